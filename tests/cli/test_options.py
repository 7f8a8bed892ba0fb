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
    assert "For landscape: Of an axis. Default: 21." in text
    assert "For hessian: Of a spectrum. Default: 5." in text


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


def test_numbers_are_finite(parse):
    for argument in ("--span=nan", "--span=inf"):
        with pytest.raises(ValueError, match="--span must be a finite number, got"):
            parse(argument)


def variance(runs, setting, *, num_images=512):
    """Draws images."""


def corruption(runs, setting, *, num_images=0):
    """Makes as many of each set."""


IMAGES = {
    **SUITES,
    "variance": Suite(variance, {"num_images": "Images."}),
    "corruption": Suite(corruption, {"num_images": "Images of each set."}),
}


def images(*arguments, chosen):
    values = flags.FlagValues()
    names = options.define(IMAGES, values)
    assert {"num_images", "variance_images", "corruption_images"} <= set(names)
    values(["evaluate.py", *arguments])
    return options.given(IMAGES, {name: IMAGES[name] for name in chosen}, values)


def test_numbers_of_images_have_a_flag_for_each_suite():
    both = ("variance", "corruption")
    found = images("--variance_images=3", "--corruption_images=5", chosen=both)
    assert found == {"variance": {"num_images": 3}, "corruption": {"num_images": 5}}
    found = images("--corruption_images=0", chosen=both)
    assert found == {"variance": {}, "corruption": {"num_images": 0}}
    one = ("hessian", "variance")
    expected = {"hessian": {}, "variance": {"num_images": 3}}
    assert images("--num_images=3", chosen=one) == expected
    found = images("--num_images=3", "--variance_images=4", chosen=one)
    assert found["variance"] == {"num_images": 4}


def test_a_number_of_images_that_could_be_several():
    message = "--num_images is not the same in variance, corruption; give --variance_im"
    with pytest.raises(ValueError, match=message):
        images("--num_images=3", chosen=("variance", "corruption"))
    message = "--num_images is for --suite=variance or corruption, which is not evaluat"
    with pytest.raises(ValueError, match=message):
        images("--num_images=3", chosen=("hessian",))
    message = "--variance_images is for --suite=variance, which is not evaluated"
    with pytest.raises(ValueError, match=message):
        images("--variance_images=3", chosen=("corruption",))
