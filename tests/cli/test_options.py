import pytest
from absl import flags

from spatial_smoothing.cli import options
from spatial_smoothing.evaluation.suites import Suite


def landscape(runs, setting, *, points=21, span=0.1, kinds=("a",), flip=False):
    """A suite."""


def hessian(runs, setting, *, points=5, severities=(1, 2), folder=None):
    """Another."""


SUITES = {
    "landscape": Suite(
        landscape,
        {"points": "Of an axis.", "span": "Of it.", "kinds": "Of it.", "flip": "It."},
    ),
    "hessian": Suite(
        hessian, {"points": "Of a spectrum.", "severities": "From 1.", "folder": "It."}
    ),
}


@pytest.fixture
def parse():
    values = flags.FlagValues()
    options.define(SUITES, values)

    def given(*arguments, chosen=tuple(SUITES)):
        values(["evaluate.py", *arguments])
        return options.given(SUITES, {name: SUITES[name] for name in chosen}, values)

    given.flags = values
    return given


def test_what_is_not_given_is_left_to_the_functions(parse):
    assert parse() == {"landscape": {}, "hessian": {}}


def test_types_are_those_of_the_defaults(parse):
    found = parse("--span=2", "--kinds=b,c", "--flip", "--severities=3", "--folder=x")
    assert found == {
        "landscape": {"span": 2.0, "kinds": ("b", "c"), "flip": True},
        "hessian": {"severities": (3,), "folder": "x"},
    }
    assert isinstance(found["landscape"]["span"], float)


def test_suites_share_flags(parse):
    assert parse("--points=3") == {"landscape": {"points": 3}, "hessian": {"points": 3}}
    assert parse("--points=3", chosen=["hessian"]) == {"hessian": {"points": 3}}
    text = parse.flags["points"].help
    assert "landscape: Of an axis. Default: 21." in text
    assert "hessian: Of a spectrum. Default: 5." in text


def test_options_of_suites_that_are_not_evaluated(parse):
    message = "--severities is for --suite=hessian, which is not evaluated"
    with pytest.raises(ValueError, match=message):
        parse("--severities=1", chosen=["landscape"])


def test_lists_have_each_value_once(parse):
    message = "--severities must name each value once, got 2 more than once"
    with pytest.raises(ValueError, match=message):
        parse("--severities=1,2,02")
    with pytest.raises(ValueError, match="--kinds must have at least one value, got"):
        parse("--severities=1", "--kinds=")


def test_lists_of_another_type(parse):
    message = "--severities takes ints separated by commas, got 1,two"
    with pytest.raises(ValueError, match=message):
        parse("--severities=1,two")
