import pytest

from spatial_smoothing.runtime import paths


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one\ntwo"), "one"),
        (ValueError("x" * 600), "x" * 500),
        (OSError(), "OSError()"),
        (EOFError("\n"), r"EOFError('\n')"),
    ],
)
def test_first_line_of_an_error(error, line):
    assert paths.first_line(error) == line
