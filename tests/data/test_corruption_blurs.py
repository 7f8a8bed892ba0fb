"""Blurs and linear filters, against SciPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from corruption_references import (
    IMAGES,
    UNITS,
    agree,
    clipped_zoom,
    gaussian,
    streak,
)

from spatial_smoothing.data.corruption import transforms
from spatial_smoothing.data.corruption.transforms import blur, linear

KEY = jax.random.key(0)


def cases(name):
    constants = transforms.CORRUPTIONS[name].cifar
    return pytest.mark.parametrize(
        ("severity", "constants"), list(enumerate(constants, 1))
    )


def corrupt(name, severity):
    return np.asarray(transforms.corrupt(KEY, IMAGES, name, severity))


@cases("gaussian_blur")
def test_gaussian_blur(severity, constants):
    agree(corrupt("gaussian_blur", severity), gaussian(UNITS, *constants))


@pytest.mark.parametrize(
    ("severity", "centre", "edge", "corner"),
    [
        (1, 0.84497, 0.03713, 0.00163),
        (2, 0.61935, 0.08382, 0.01134),
        (3, 0.44521, 0.11102, 0.02768),
        (4, 0.2, 0.2, 0.0),
        (5, 1 / 9, 1 / 9, 1 / 9),
    ],
)
def test_discs(severity, centre, edge, corner):
    kernel = blur.disc(*transforms.CORRUPTIONS["defocus_blur"].cifar[severity - 1])
    found = kernel[8, 8], kernel[8, 9], kernel[7, 9]
    np.testing.assert_allclose(found, (centre, edge, corner), atol=1e-5)
    np.testing.assert_allclose(kernel.sum(), 1)


@pytest.mark.parametrize("radius", [3, 10])
def test_large_discs_are_round_and_smooth(radius):
    kernel = blur.disc(radius, 0.5)
    grid = np.arange(-(len(kernel) // 2), len(kernel) // 2 + 1)
    distance = np.hypot(grid[:, None], grid)
    assert np.ptp(kernel[distance <= radius - 3]) < 1e-9
    assert np.all(kernel[distance > radius + 3] == 0)


@cases("defocus_blur")
def test_defocus_blur(severity, constants):
    kernel = blur.disc(*constants)[None, ..., None]
    expected = scipy.ndimage.correlate(UNITS, kernel, mode="mirror")
    # Five equal taps give whole grey levels to a fifth of the pixels.
    mean = 0.1 if severity == 4 else 2e-3
    agree(corrupt("defocus_blur", severity), expected, mean=mean)


def test_large_defocus_blur():
    kernel = blur.disc(10, 0.5)
    expected = scipy.ndimage.correlate(UNITS[0], kernel[..., None], mode="mirror")
    matrices = linear.kernel(32, kernel, border="mirror")
    found = linear.apply_sum(*matrices, jnp.float32(UNITS[0]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@cases("zoom_blur")
def test_zoom_blur(severity, constants):
    step, count = constants
    factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][severity - 1], step)
    assert len(factors) == count
    zoomed = [[clipped_zoom(image, f) for f in factors] for image in UNITS]
    expected = (UNITS + np.sum(zoomed, axis=1)) / (count + 1)
    agree(corrupt("zoom_blur", severity), expected, mean=3e-3)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("factor", [1.0, 1.25, 1.75, 2.25, 4.5])
def test_zoom(size, factor):
    image = np.random.default_rng(0).random((size, size, 1))
    matrix = linear.zoom(size, factor)
    found = linear.apply(matrix, matrix, jnp.float32(image))
    np.testing.assert_allclose(found, clipped_zoom(image, factor), atol=1e-5)


@pytest.mark.parametrize("angle", [-133.0, -90.0, -50.3, -20.7, 13.0, 44.0])
def test_streaks(angle):
    found = jax.jit(lambda image, angle: blur.streak(image, angle, 6, 2.0))(
        jnp.float32(UNITS[0]), jnp.float32(angle)
    )
    np.testing.assert_allclose(found, streak(UNITS[0], angle, 6, 2.0), atol=1e-6)


def test_motion_blur_goes_up_to_45_degrees():
    image = jnp.zeros((32, 32, 1)).at[16, 16].set(1.0)
    keys = jax.random.split(KEY, 100)
    blurred = jax.jit(jax.vmap(lambda key: blur.motion_blur(key, image, 6, 4.0)))(keys)
    _, rows, columns, _ = np.nonzero(blurred)
    assert columns.min() == 4
    assert columns.max() == 16
    assert np.all(np.abs(rows - 16) <= 16 - columns)
    assert rows.min() < 10
    assert rows.max() > 22


@pytest.mark.parametrize(("delta", "iterations"), [(1, 2), (2, 1), (3, 2)])
def test_glass_blur_visits_pixel_after_pixel(delta, iterations):
    sigma = 0.4
    image = np.floor(255 * gaussian(UNITS[:1], sigma) + 1e-9)[0]
    for key in jax.random.split(KEY, iterations):
        offsets = jax.random.uniform(key, (2, 32, 32), minval=-delta, maxval=delta)
        down, right = np.floor(np.asarray(offsets)).astype(int)
        assert {*np.unique(down)} == {*range(-delta, delta)}
        for h in range(32 - delta, delta, -1):
            for w in range(32 - delta, delta, -1):
                image[h, w] = image[h + down[h, w], w + right[h, w]]
    expected = gaussian(image[None] / 255, sigma)[0]
    compiled = jax.jit(blur.glass_blur, static_argnums=(2, 3, 4))
    found = compiled(KEY, jnp.float32(UNITS[0]), sigma, delta, iterations)
    np.testing.assert_allclose(found, expected, atol=1.01 / 255)
    assert np.mean(np.abs(found - expected)) < 2e-5


def test_colours_are_copied_alike_on_tpus():
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(0, 256, (3, 24, 24, 3)), jnp.uint8)

    def both(key, pixels, delta):
        moves = blur.glass_moves(key, 24, delta)
        read = blur.copy_by_reads(pixels, moves)
        return read, blur.copy_by_shifts(pixels, moves, delta=delta)

    for delta in (1, 4):  # with 1, no pixel copies one that was visited before
        compiled = jax.jit(jax.vmap(both, (0, 0, None)), static_argnums=2)
        read, shifted = compiled(jax.random.split(KEY, 3), pixels, delta)
        assert np.mean(read != pixels) > 0.4
        np.testing.assert_array_equal(shifted, read)


def test_entries_of_tables_are_exact_on_tpus():
    rng = np.random.default_rng(0)
    table = rng.random((256, 51), np.float32)
    rows, columns = rng.integers(0, 256, 999), rng.integers(0, 51, 999)
    at = jnp.int32(rows), jnp.int32(columns)
    for form in (linear.entries, linear.entries_by_products):
        found = jax.jit(form)(table, *at)
        np.testing.assert_array_equal(found, table[rows, columns])


@pytest.mark.parametrize("form", [linear.bilinear, linear.bilinear_by_products])
@pytest.mark.parametrize("border", ["nearest", "reflect", "mirror"])
def test_bilinear(border, form):
    rng = np.random.default_rng(0)
    rows, columns = rng.uniform(-20, 50, (2, 32, 32))
    rows[0], columns[:, 0] = np.arange(-16, 16), 31  # between pixels, and on them
    at = jnp.float32(rows), jnp.float32(columns)
    found = form(jnp.float32(UNITS[0]), *at, border=border)
    for channel in range(3):
        expected = scipy.ndimage.map_coordinates(
            UNITS[0, ..., channel], [rows, columns], order=1, mode=border
        )
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)


# Corruptions that read pixels or tables at computed places.
READING = ("shot_noise", "glass_blur", "elastic_transform")


def of_one_image(name):
    """The corruption at severity 3 as a function of a key and an image."""
    corruption = transforms.CORRUPTIONS[name]
    return lambda key, image: corruption.function(key, image, *corruption.cifar[2])


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_tpus_read_by_exact_products(name, platform):
    traced = jax.jit(of_one_image(name)).trace(KEY, jnp.zeros((32, 32, 3)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    # A TPU reads memory at computed places one value at a time.
    assert ("stablehlo.gather" in text) == (platform != "tpu")
    products = re.findall(r"stablehlo\.dot_general .*", text)
    assert products or platform != "tpu"
    # It rounds the factors of other products to 8 bits. These read pixels and tables.
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)


@pytest.mark.parametrize("name", READING)
def test_images_of_tpus_are_those_of_other_devices(name, monkeypatch):
    image = jnp.float32(UNITS[0])
    expected = jax.jit(of_one_image(name))(KEY, image)

    def as_on_a_tpu(*arguments, tpu, default):
        return tpu(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", as_on_a_tpu)
    found = jax.jit(of_one_image(name))(KEY, image)
    assert np.mean(np.abs(found - image)) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)
