import numpy as np
import pytest
import tensorflow_datasets as tfds

from spatial_smoothing.data import subsets


@pytest.mark.parametrize(
    "text",
    ["[:10%]", "[10%:]", "[-5:]", "[:-5]", "[2:7]", "[33%:67%]", "[-25%:]"],
)
@pytest.mark.parametrize("count", [10, 37, 101])
def test_subsets_are_those_of_tfds(text, count):
    info = tfds.core.SplitInfo(name="test", shard_lengths=[count], num_bytes=0)
    absolute = tfds.core.ReadInstruction.from_spec(f"test{text}").to_absolute(
        {"test": info}
    )
    start, stop = absolute[0].from_ or 0, absolute[0].to
    name, subset = subsets.split_name(f"test{text}")
    assert name == "test"
    expected = np.arange(count)[start:stop]
    np.testing.assert_array_equal(subset.rows(count), expected)


@pytest.mark.parametrize("text", ["test", "folder:/a/b[1]", "list:a[b]/c.txt", "x[5]"])
def test_names_without_a_subset_stay_as_they_are(text):
    assert subsets.split_name(text) == (text, None)


def test_a_subset_is_split_from_a_path():
    name, subset = subsets.split_name("folder:/a[1]/b[:5]")
    assert (name, subset.text) == ("folder:/a[1]/b", "[:5]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test[a:5]", "'a' is no number of examples and no percentage"),
        ("test[:200%]", "'200%' is no number"),
        ("test[:1.5]", "'1.5' is no number"),
    ],
)
def test_unusable_brackets(text, message):
    with pytest.raises(ValueError, match=message):
        subsets.split_name(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[:11]", "outside of the 10 examples"),
        ("[-11:]", "outside of the 10 examples"),
        ("[5:5]", "empty; give a larger one"),
        ("[:1%]", "empty; give a larger one"),
    ],
)
def test_subsets_that_the_split_has_not(text, message):
    _, subset = subsets.split_name(f"test{text}")
    with pytest.raises(ValueError, match=message):
        subset.rows(10)
