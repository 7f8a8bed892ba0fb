import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from spatial_smoothing.data import shapes
from spatial_smoothing.data.corruption import perturbations
from spatial_smoothing.data.corruption.transforms import blur, spatter

IMAGES, _ = shapes.generate("test", size=4)
KEY = jax.random.key(0)
FRAMES = {
    **{"gaussian_noise": 31, "shot_noise": 31, "motion_blur": 21, "zoom_blur": 31},
    **{"spatter": 31, "brightness": 31, "translate": 16, "rotate": 31, "tilt": 31},
    "scale": 31,
}


def perturb(name, images=IMAGES, **options):
    return np.asarray(perturbations.sequence(KEY, images, name, **options))


@pytest.fixture(scope="module")
def sequences():
    return {name: perturb(name) for name in FRAMES}


def through_pillow(image, matrix):
    """Warps about the centre by the inverse of a matrix [2, 2] on (x, y)."""
    inverse = np.linalg.inv(matrix)
    shift = [16, 16] - inverse @ [16, 16]
    coefficients = [*inverse[0], shift[0], *inverse[1], shift[1]]
    bilinear = PIL.Image.Resampling.BILINEAR
    picture = PIL.Image.fromarray(image)
    affine = PIL.Image.Transform.AFFINE
    return np.asarray(picture.transform((32, 32), affine, coefficients, bilinear))


def agree(found, expected, *, mean=0.01):
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert difference.mean() <= mean


def test_names_and_lengths_are_those_of_the_files(sequences):
    assert [*FRAMES] == [*perturbations.NAMES]
    for name, frames in FRAMES.items():
        assert sequences[name].shape == (frames, 4, 32, 32, 3)
        assert sequences[name].dtype == np.uint8
        assert perturbations.PERTURBATIONS[name].frames == frames
        is_noise = perturbations.PERTURBATIONS[name].is_noise
        assert is_noise == (name in ("gaussian_noise", "shot_noise"))


@pytest.mark.parametrize("name", FRAMES)
def test_images_are_perturbed_alike_in_any_batch(name, sequences):
    later = perturb(name, np.roll(IMAGES, -2, axis=0), numbers=2 + np.arange(4))
    np.testing.assert_array_equal(later[:, :2], sequences[name][:, 2:])


CLEAN = {"gaussian_noise": 0, "shot_noise": 0, "zoom_blur": 0, "brightness": 15}
CLEAN |= {"translate": 7, "rotate": 15, "scale": 15}


@pytest.mark.parametrize("name", CLEAN)
def test_one_frame_is_clean(name, sequences):
    np.testing.assert_array_equal(sequences[name][CLEAN[name]], IMAGES)
    for frame in {0, 1, 14, FRAMES[name] - 1} - {CLEAN[name]}:
        assert np.any(sequences[name][frame] != IMAGES)


def test_noise(sequences):
    values = IMAGES / 255
    inner = np.abs(values - 0.5) < 0.3
    variances = {"gaussian_noise": 0.02**2, "shot_noise": values / 700}
    for name, variance in variances.items():
        frames = sequences[name][1:] / 255 + 0.5 / 255
        assert len({frame.tobytes() for frame in frames}) == 30
        scores = (frames - values) / np.sqrt(variance + 1 / 12 / 255**2)
        assert abs(scores[:, inner].mean()) < 0.01
        assert abs(scores[:, inner].std() - 1) < 0.01


def test_motion_blur_turns(sequences):
    for i in (0, 7, 20):
        angle = jnp.float32(9 * (i - 20))
        expected = blur.streak(jnp.float32(IMAGES[0] / 255), angle, 6, 1.8)
        agree(sequences["motion_blur"][i, 0], np.round(255 * expected))
    # It reads upward at 90 degrees, and to the right at 0: rows stay apart there.
    striped = np.zeros_like(IMAGES[:1])
    striped[:, ::2] = 200
    frames = perturb("motion_blur", np.repeat(striped, 4, axis=0))
    np.testing.assert_array_equal(frames[20], np.repeat(striped, 4, axis=0))
    assert np.ptp(frames[10, 0, 8:24].astype(int), axis=0).max() < 100


def test_zoom_blur_averages_magnifications(sequences):
    for image, frames in zip(
        IMAGES, sequences["zoom_blur"].swapaxes(0, 1), strict=True
    ):
        zoomed = [through_pillow(image, (1 + 0.004 * j) * np.eye(2)) for j in range(31)]
        means = np.cumsum(zoomed, axis=0) / np.arange(1, 32).reshape(-1, 1, 1, 1)
        agree(frames, np.floor(means + 1e-6), mean=0.02)


def test_scale_and_rotate_are_those_of_pillow(sequences):
    for i in range(31):
        angle = np.deg2rad(i - 15)
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        for image, rotated, scaled in zip(
            IMAGES, sequences["rotate"][i], sequences["scale"][i], strict=True
        ):
            agree(rotated, through_pillow(image, np.array(turn)))
            zoomed = through_pillow(image, (0.7 + 0.02 * i) * np.eye(2))
            # Simple fractions of a pixel give whole grey levels, where float64 tosses.
            agree(scaled, zoomed, mean=0.03)


def test_rotation_is_clockwise():
    image = np.zeros((4, 32, 32, 3), np.uint8)
    image[:, 2:5, 15:17] = 255  # above the centre
    _, _, columns, _ = np.nonzero(perturb("rotate", image)[-1:, 0])
    assert columns.mean() > 17


def test_translate_fills_with_black(sequences):
    for i in range(16):
        expected = scipy.ndimage.shift(IMAGES, (0, 0, i - 7, 0), order=0)
        np.testing.assert_array_equal(sequences["translate"][i], expected)


def test_brightness_moves_the_value(sequences):
    value = IMAGES.max(axis=-1) / 255
    for i in range(31):
        found = sequences["brightness"][i].max(axis=-1)
        expected = np.floor(255 * np.clip(value + 0.015 * (i - 15), 0, 1) + 1e-6)
        agree(found, expected)


def test_tilt_turns_the_plane_in_space(sequences):
    size, focal = 32, np.hypot(32, 32)
    for i in (0, 9, 30):
        angle = np.deg2rad(0.75 * (i - 15))
        cos, sin = np.cos(angle), np.sin(angle)
        inverse = np.linalg.inv(perturbations.homography(np.rad2deg(angle), size))
        # The corners, turned about the vertical axis, then about the horizontal one.
        for x, y in ((0, 0), (31, 5), (20, 31)):
            u, v = x - 16, y - 16
            across, depth = u * cos - sin, u * sin + cos
            up, depth = v * cos - depth * sin, v * sin + depth * cos
            depth += focal
            seen = [focal * across / depth + 16, focal * up / depth + 16, 1]
            back = inverse @ seen
            np.testing.assert_allclose(back[:2] / back[2], (x, y), atol=1e-6)
        rows, columns = np.indices((size, size))
        places = inverse @ np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
        columns, rows = (
            np.round(32 * places[:2] / places[2]).reshape(2, size, size) / 32
        )
        for channel in range(3):
            plane = np.pad(IMAGES[0, ..., channel].astype(float), 1)
            at = np.clip([rows + 1, columns + 1], 0, size + 1)
            expected = scipy.ndimage.map_coordinates(plane, at, order=1)
            agree(sequences["tilt"][i, 0, ..., channel], np.round(expected))


def test_drops_run_down(sequences):
    key = jax.random.fold_in(KEY, 0)
    water = jax.jit(spatter.water)
    layer = spatter.liquid_layer(key, 32, 0.6, 0.265, 1.75, 0.7)
    layer = np.asarray(layer)
    assert np.any(layer > 0)
    for i in range(4):
        image = jnp.float32(IMAGES[0] / 255)
        expected = 255 * water(image, jnp.asarray(layer), 0.6).clip(0, 1)
        agree(sequences["spatter"][i, 0], np.floor(expected))
        run = [np.convolve(column, [0.2, 0.8], mode="same") for column in layer.T]
        layer = np.float32(run).T


def test_errors_name_the_choices():
    with pytest.raises(ValueError, match="perturbation 'tilted'; did you mean 'tilt'"):
        perturb("tilted")
    with pytest.raises(ValueError, match=r"not float64\[4, 32, 32, 3\]"):
        perturb("tilt", IMAGES / 255)
