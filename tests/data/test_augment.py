import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing.data import augment, batches
from spatial_smoothing.data.corruption import transforms

KEY = jax.random.key(0)


def images(size=500):
    """Images without two equal pixels, so that each shift of one is another."""
    one = 1 + np.arange(5 * 6 * 2, dtype=np.uint8).reshape(5, 6, 2)
    return np.broadcast_to(one, (size, 5, 6, 2))


def crops(image, pad):
    """All crops of a padded image, by their offset."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    offsets = range(2 * pad + 1)
    return {
        padded[row : row + 5, column : column + 6].tobytes(): (row, column)
        for row in offsets
        for column in offsets
    }


def test_normalize_equals_numpy():
    mean, std = (0.1, 0.4), (0.2, 0.7)
    for x in (images(3), images(3)[0]):
        expected = (x / 255 - np.array(mean)) / np.array(std)
        for function in (augment.normalize, jax.jit(augment.normalize)):
            actual = function(x, mean=mean, std=std)
            assert actual.dtype == np.float32
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_crops_are_all_shifts_of_the_padded_image_equally_often(pad):
    known = crops(images()[0], pad)
    count = (2 * pad + 1) ** 2
    assert len(known) == count
    cropped = augment.random_crop(KEY, images(), pad=pad)
    assert cropped.dtype == np.uint8
    found = [known[image.tobytes()] for image in np.asarray(cropped)]
    occurrences = np.unique(found, axis=0, return_counts=True)[1]
    assert len(occurrences) == count
    deviation = np.sqrt(500 / count * (1 - 1 / count))
    assert np.abs(occurrences - 500 / count).max() <= 5 * deviation


def test_flips_are_mirror_images_half_of_the_time():
    flipped = np.asarray(augment.random_flip(KEY, images()))
    mirrored = (flipped == images()[:, :, ::-1]).all((1, 2, 3))
    kept = (flipped == images()).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.sum() - 250) < 5 * np.sqrt(500 / 4)


def test_crop_and_flip_are_independent_and_follow_from_the_key():
    x = images()
    result = np.asarray(augment.crop_and_flip(KEY, x))
    known, mirrored = crops(x[0], 4), crops(x[0, :, ::-1], 4)
    drawn = []
    for image in result:
        flipped = image.tobytes() in mirrored
        # Mirroring the crop mirrors its offset.
        row, column = (mirrored if flipped else known)[image.tobytes()]
        drawn.append((row, 8 - column if flipped else column, flipped))
    assert np.abs(np.corrcoef(np.array(drawn).T) - np.eye(3)).max() < 5 / np.sqrt(500)
    np.testing.assert_array_equal(augment.crop_and_flip(KEY, x), result)
    np.testing.assert_array_equal(jax.jit(augment.crop_and_flip)(KEY, x), result)
    assert (augment.crop_and_flip(jax.random.key(1), x) != result).any()


def test_preparation_augments_where_asked():
    normalize = functools.partial(augment.normalize, mean=(0.5, 0.5), std=(0.3, 0.3))
    plain = augment.preparation(normalize, augment=False)
    np.testing.assert_array_equal(plain(KEY, images()), normalize(images()))
    augmented = augment.preparation(normalize, augment=True)
    expected = normalize(augment.crop_and_flip(KEY, jnp.asarray(images())))
    np.testing.assert_array_equal(augmented(KEY, images()), expected)


def test_what_is_drawn_does_not_depend_on_jaxs_settings():
    x = jnp.asarray(images(50))
    functions = {
        "crop and flip": lambda: augment.crop_and_flip(KEY, x),
        "normalize": lambda: augment.normalize(x, mean=(0.1, 0.4), std=(0.2, 0.7)),
        "order": lambda: batches.epoch_order(KEY, 3, 50),
        "take": lambda: batches.take(
            *(x, jnp.arange(50, dtype=jnp.int32), jnp.array([4, 2, 9], jnp.int32), 1),
            batch_size=2,
        ),
        "corrupt": lambda: transforms.corrupt(
            KEY, np.zeros((2, 8, 8, 3), np.uint8), "gaussian_noise", 3
        ),
    }
    for name, function in functions.items():
        expected = function()
        with jax.enable_x64(True):
            wide = function()
        with jax.numpy_dtype_promotion("strict"):
            strict = function()
        for other in (wide, strict):
            jax.tree.map(np.testing.assert_array_equal, other, expected)
            types = jax.tree.map(lambda a: a.dtype, other)
            assert types == jax.tree.map(lambda a: a.dtype, expected), name
