"""Weather and digital processing, against SciPy, Pillow and colorsys."""

import colorsys
import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
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
from spatial_smoothing.data.corruption.transforms import digital, jpeg, weather

KEY = jax.random.key(0)


def cases(name):
    constants = transforms.CORRUPTIONS[name].cifar
    return pytest.mark.parametrize(
        ("severity", "constants"), list(enumerate(constants, 1))
    )


def corrupt(name, severity):
    return np.asarray(transforms.corrupt(KEY, IMAGES, name, severity))


def in_hsv(images, change):
    """Applies a function to (hue, saturation, value) of each pixel, in Python."""
    pixels = [
        colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel)))
        for pixel in images.reshape(-1, 3)
    ]
    return np.array(pixels).reshape(images.shape)


# Colours, greys, black and white.
PALETTE = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
PALETTE[0, 0] = PALETTE[0, 0, :, :1]
PALETTE[0, 1, :8], PALETTE[0, 1, 8:] = 0, 255


@cases("brightness")
def test_brightness(severity, constants):
    (amount,) = constants
    found = transforms.corrupt(KEY, PALETTE, "brightness", severity)
    change = lambda h, s, v: (h, s, min(v + amount, 1))
    agree(found, in_hsv(PALETTE / 255, change))


@cases("saturate")
def test_saturate(severity, constants):
    factor, offset = constants
    found = transforms.corrupt(KEY, PALETTE, "saturate", severity)
    change = lambda h, s, v: (h, min(s * factor + offset, 1), v)
    agree(found, in_hsv(PALETTE / 255, change))


@cases("contrast")
def test_contrast(severity, constants):
    mean = UNITS.mean(axis=(1, 2), keepdims=True)
    agree(corrupt("contrast", severity), (UNITS - mean) * constants[0] + mean)


@cases("pixelate")
def test_pixelate_is_that_of_pillow(severity, constants):
    size = [30, 28, 27, 24, 20][severity - 1]
    box = PIL.Image.Resampling.BOX
    for found, image in zip(corrupt("pixelate", severity), IMAGES, strict=True):
        small = PIL.Image.fromarray(image).resize((size, size), box)
        np.testing.assert_array_equal(found, small.resize((32, 32), box))
    assert int(32 * constants[0]) == size


def through_pillow(image, quality):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


@cases("jpeg_compression")
def test_jpeg_is_that_of_pillow(severity, constants):
    for found, image in zip(corrupt("jpeg_compression", severity), IMAGES, strict=True):
        np.testing.assert_array_equal(found, through_pillow(image, *constants))


@pytest.mark.parametrize("quality", [1, 7, 95])
def test_jpeg_of_noise_and_odd_sides_is_that_of_pillow(quality):
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
    found = jax.jit(jpeg.compress)(jnp.asarray(image, jnp.int32), quality)
    np.testing.assert_array_equal(found, through_pillow(image, quality))


def test_affine_maps_take_the_points_where_they_belong():
    shifts = np.random.default_rng(0).uniform(-2, 2, (3, 2))
    rows, columns = digital.affine_source(jnp.float32(shifts), 32)
    points = np.array([[26, 26], [26, 6], [6, 6]])
    # Both are linear in the place (x, y): its coefficients, from three corners.
    corner = np.array([[0, 0, 1], [31, 0, 1], [0, 31, 1]])
    for values, target in ((columns, points[:, 0]), (rows, points[:, 1])):
        plane = np.linalg.solve(corner, [values[0, 0], values[0, 31], values[31, 0]])
        moved = np.column_stack([points + shifts, np.ones(3)])
        np.testing.assert_allclose(moved @ plane, target, atol=1e-3)


@pytest.mark.parametrize(("alpha", "sigma"), [(0, 0), (1.6, 6.4), (3.2, 0.96)])
def test_elastic_transform(alpha, sigma):
    affine_key, field_key = jax.random.split(KEY)
    shifts = jax.random.uniform(affine_key, (3, 2), minval=-2.0, maxval=2.0)
    fields = jax.random.uniform(field_key, (1, 32, 32, 2), minval=-1.0)
    source = [np.asarray(a, float) for a in digital.affine_source(shifts, 32)]
    expected = UNITS[0]
    rows, columns = np.indices((32, 32)).astype(float)
    steps = [(source, "mirror")]
    if alpha:
        smooth = alpha * gaussian(fields, sigma, mode="reflect", truncate=3.0)[0]
        field = [rows + smooth[..., 1], columns + smooth[..., 0]]
        steps.append((field, "reflect"))
    for place, mode in steps:
        channels = [
            scipy.ndimage.map_coordinates(channel, place, order=1, mode=mode)
            for channel in np.moveaxis(expected, -1, 0)
        ]
        expected = np.stack(channels, axis=-1)
    compiled = jax.jit(digital.elastic_transform, static_argnums=(2, 3, 4))
    found = compiled(KEY, jnp.float32(UNITS[0]), alpha, sigma, 2.0)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def plasma(noise, decay):
    """Diamond-square point by point, on a map that wraps around."""
    size = len(noise)
    heights, step, wibble = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half = step // 2
        for y in range(half, size, step):
            for x in range(half, size, step):
                corners = [(y - half, x - half), (y - half, x + half)]
                corners += [(y + half, x - half), (y + half, x + half)]
                mean = np.mean([heights[i % size, j % size] for i, j in corners])
                heights[y, x] = mean + wibble * noise[y, x]
        places = [
            (y, x + half) for y in range(0, size, step) for x in range(0, size, step)
        ]
        places += [(x, y) for y, x in places]
        for y, x in places:
            sides = [(y - half, x), (y + half, x), (y, x - half), (y, x + half)]
            mean = np.mean([heights[i % size, j % size] for i, j in sides])
            heights[y, x] = mean + wibble * noise[y, x]
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max()


@pytest.mark.parametrize("decay", [1.75, 3.0])
def test_plasma(decay):
    noise = jax.random.uniform(KEY, (16, 16), minval=-100.0, maxval=100.0)
    found = jax.jit(weather.plasma, static_argnums=1)(KEY, 16, decay)
    np.testing.assert_allclose(
        found, plasma(np.asarray(noise, float), decay), atol=1e-5
    )


def test_fog():
    image = jnp.float32(UNITS[0]) * 0.8
    fog, plasma = jax.jit(weather.fog), jax.jit(weather.plasma, static_argnums=1)
    layer = np.asarray(plasma(KEY, 32, 2.0))[..., None]
    highest = image.max()
    expected = (image + 0.5 * layer) * highest / (highest + 0.5)
    found = fog(KEY, image, 0.5, 2.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Images that are no power of two get a part of a larger map.
    part = fog(KEY, image[:20, :20], 0.5, 2.0)
    assert part.shape == (20, 20, 3)


@pytest.mark.parametrize("zoom", [1, 2.25])
def test_snow(zoom):
    layer_key, angle_key = jax.random.split(KEY)
    noise = jax.random.normal(layer_key, (32, 32, 1))
    layer = clipped_zoom(np.asarray(0.25 + 0.3 * noise, float), zoom)
    layer[layer < 0.6] = 0
    layer = np.floor(255 * np.clip(layer, 0, 1)) / 255
    angle = float(jax.random.uniform(angle_key, minval=-135.0, maxval=-45.0))
    layer = streak(layer, angle, 8, 3)
    grey = UNITS[0] @ [[0.299], [0.587], [0.114]]
    expected = 0.85 * UNITS[0] + 0.15 * np.maximum(UNITS[0], 1.5 * grey + 0.5)
    expected += layer + np.rot90(layer, k=2)
    image = jnp.float32(UNITS[0])
    constants = 0.25, 0.3, zoom, 0.6, 8, 3.0, 0.85
    found = jax.jit(lambda key, image: weather.snow(key, image, *constants))(KEY, image)
    np.testing.assert_allclose(found, expected, atol=1.01 / 255)
    assert np.mean(np.abs(found - expected)) < 1e-4


def test_frost_adds_a_part_of_a_texture():
    image = jnp.float32(UNITS[0])
    frost = 255 * (weather.frost(KEY, image, 0.75, 0.45, 5) - 0.75 * image) / 0.45
    frost = np.asarray(frost).round().astype(np.uint8)
    pictures = weather.frost_textures.textures()[:, 2::5, 2::5]
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (32, 32), (1, 2))
    part = frost.transpose(2, 0, 1)
    places = np.argwhere(np.all(windows[..., 0, 0] == part[:, 0, 0], axis=-1))
    assert any(np.array_equal(windows[i, y, x], part) for i, y, x in places)
