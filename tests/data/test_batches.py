import functools

import jax
import numpy as np
import pytest

from spatial_smoothing.data import batches, datasets

KEY = jax.random.key(0)


def data(size=23):
    labels = np.arange(size, dtype=np.int32)
    images = np.broadcast_to(labels[:, None, None, None], (size, 2, 3, 1))
    return images.astype(np.uint8), labels


def real(batch):
    """Returns the labels that count, after a check that the images belong to them."""
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    assert batch["mask"].dtype == bool
    np.testing.assert_array_equal(batch["image"][:, 1, 2, 0], batch["label"])
    return list(np.asarray(batch["label"])[np.asarray(batch["mask"])])


@pytest.mark.parametrize(
    ("examples", "size", "expected"), [(20, 5, 4), (21, 5, 5), (1, 5, 1), (0, 5, 0)]
)
def test_short_batches_count(examples, size, expected):
    assert batches.num_batches(examples, size) == expected


def test_order_is_a_permutation_that_follows_from_key_and_epoch():
    order = functools.partial(batches.epoch_order, num_examples=50)
    first = order(KEY, 0)
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    np.testing.assert_array_equal(order(KEY, 0), first)
    np.testing.assert_array_equal(jax.jit(order)(KEY, 0), first)
    for other in (order(KEY, 1), order(jax.random.key(1), 0)):
        np.testing.assert_array_equal(np.sort(other), np.arange(50))
        assert (other != first).sum() > 25


@pytest.mark.parametrize("size", [1, 7, 23, 64])
def test_pass_takes_every_example_once_in_the_given_order(size):
    order = batches.epoch_order(KEY, 3, 23)
    take = jax.jit(functools.partial(batches.take, batch_size=size))
    seen = []
    for index in range(batches.num_batches(23, size)):
        batch = take(*data(), order, index)
        assert batch["label"].shape == (size,)
        seen += real(batch)
    assert seen == list(order)
    # Padding repeats an example of the data set.
    assert set(np.asarray(batch["label"])[~np.asarray(batch["mask"])]) <= {
        int(order[-1])
    }


def test_pass_over_a_part_takes_that_part():
    order = np.array([4, 2, 9])
    batch = batches.take(*data(), order, 0, batch_size=4)
    assert real(batch) == [4, 2, 9]


@pytest.mark.parametrize("size", [1, 7, 23, 64])
def test_sequential_yields_every_example_in_order(size):
    passed = list(batches.sequential(*data(), batch_size=size))
    assert len(passed) == batches.num_batches(23, size)
    assert all(batch["image"].shape == (size, 2, 3, 1) for batch in passed)
    assert [label for batch in passed for label in real(batch)] == list(range(23))
    assert list(batches.sequential(*data(0), batch_size=size)) == []


@pytest.mark.parametrize(("fraction", "held"), [(0.0, 0), (0.1, 2), (0.5, 12)])
def test_hold_out_splits_without_loss(fraction, held):
    dataset = datasets.Dataset(*data())
    split = functools.partial(datasets.hold_out, dataset, fraction=fraction)
    (images, labels), (held_images, held_labels) = split(seed=0)
    assert len(held_labels) == len(held_images) == held
    assert sorted([*labels, *held_labels]) == list(range(23))
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    np.testing.assert_array_equal(held_images[:, 0, 0, 0], held_labels)
    np.testing.assert_array_equal(split(seed=0)[1][1], held_labels)
    if held:
        assert list(split(seed=1)[1][1]) != list(held_labels)


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
def test_unusable_fractions_are_explained(fraction):
    with pytest.raises(ValueError, match=rf"in \[0, 1\), got {fraction}"):
        datasets.hold_out(datasets.Dataset(*data()), fraction=fraction, seed=0)


@pytest.mark.parametrize(("fraction", "part"), [(0.02, "held out"), (0.99, "trained")])
def test_fractions_that_leave_a_part_empty_are_explained(fraction, part):
    message = f"of 23 images, val_fraction {fraction} leaves none to be {part}"
    with pytest.raises(ValueError, match=message):
        datasets.hold_out(datasets.Dataset(*data()), fraction=fraction)
