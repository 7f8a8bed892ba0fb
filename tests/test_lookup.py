import pytest

from spatial_smoothing.lookup import lookup, unknown

COLOURS = {"red": 1, "green": 2, "blue": 3}


def test_lookup_finds_what_is_there():
    assert lookup(COLOURS, "green", "colour") == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gren",
            "unknown colour 'gren'; did you mean 'green'? choices: red, green, blue",
        ),
        ("xyz", "unknown colour 'xyz'; choices: red, green, blue"),
        ("", "unknown colour ''; choices: red, green, blue"),
        (None, "unknown colour None; choices: red, green, blue"),
    ],
)
def test_unknown_names_are_explained(name, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        lookup(COLOURS, name, "colour")
    assert str(error.value) == message


def test_many_choices_are_counted():
    names = (f"model_{number}" for number in range(21))
    assert str(unknown("model", "model_99", names)).endswith("choices: 21 names")
    few = unknown("model", "zzz", [f"m{number}" for number in range(20)])
    assert str(few).endswith("m18, m19")
