"""Spatter, against the steps of OpenCV written out pixel by pixel."""

import heapq
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from spatial_smoothing.data import shapes
from spatial_smoothing.data.corruption import transforms
from spatial_smoothing.data.corruption.transforms import spatter

KEY = jax.random.key(0)
IMAGE = shapes.generate("test", size=1)[0][0] / 255
WATER = (0.65, 0.3, 1.0, 0.69)  # mean, deviation, blur, threshold
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
SIDES = [(-1, 0), (1, 0), (0, -1), (0, 1)]


def layers():
    """Layers of liquid as the corruption makes them, u8[32, 32]."""
    make = jax.jit(lambda key: spatter.liquid_layer(key, 32, *WATER))
    drawn = [make(key) for key in jax.random.split(KEY, 3)]
    return [np.floor(255 * np.asarray(layer)).astype(int) & 255 for layer in drawn]


def canny(levels, low, high):
    """Canny's edges by angles, then connected pieces that have a strong pixel."""
    sobel = {"mode": "nearest"}
    right = scipy.ndimage.sobel(levels, axis=1, **sobel)
    down = scipy.ndimage.sobel(levels, axis=0, **sobel)
    norm = np.pad(np.abs(right) + np.abs(down), 1)
    ridge = np.zeros(levels.shape, bool)
    for y, x in np.ndindex(levels.shape):
        here = norm[y + 1, x + 1]
        if here <= low:
            continue
        angle = math.degrees(math.atan2(abs(down[y, x]), abs(right[y, x])))
        at = lambda i, j, y=y, x=x: norm[y + 1 + i, x + 1 + j]
        if angle < 22.5:
            ridge[y, x] = here > at(0, -1) and here >= at(0, 1)
        elif angle > 67.5:
            ridge[y, x] = here > at(-1, 0) and here >= at(1, 0)
        else:
            j = 1 if (right[y, x] < 0) == (down[y, x] < 0) else -1
            ridge[y, x] = here > at(-1, -j) and here > at(1, j)
    pieces, _ = scipy.ndimage.label(ridge, np.ones((3, 3)))
    strong = np.unique(pieces[ridge & (norm[1:-1, 1:-1] > high)])
    return ridge & np.isin(pieces, strong[strong > 0])


def chamfer(edges):
    """Distances to the edges by Dijkstra's algorithm."""
    steps = dict.fromkeys(SIDES, 1.0) | dict.fromkeys(CORNERS, 1.4)
    steps |= {(i * a, j * b): 2.1969 for i, j in CORNERS for a, b in ((1, 2), (2, 1))}
    distance = np.full(edges.shape, np.inf)
    queue = [(0.0, y, x) for y, x in np.argwhere(edges).tolist()]
    while queue:
        length, y, x = heapq.heappop(queue)
        if length >= distance[y, x]:
            continue
        distance[y, x] = length
        for (i, j), cost in steps.items():
            if 0 <= y + i < len(edges) and 0 <= x + j < edges.shape[1]:
                heapq.heappush(queue, (length + cost, y + i, x + j))
    return np.minimum(distance, 20)


def equalize(levels):
    counts = np.bincount(levels.ravel(), minlength=256)
    lowest = levels.min()
    counts[lowest] = 0
    if not counts.any():
        return levels
    return np.round(np.cumsum(counts) * (255 / counts.sum())).astype(int)[levels]


def water(image, levels, strength):
    correlate = lambda x, kernel: scipy.ndimage.correlate(x, kernel, mode="mirror")
    distance = chamfer(canny(levels, 50, 150))
    distance = np.floor(correlate(distance, np.full((3, 3), 1 / 9)) + 1e-6)
    light = equalize(distance.astype(int))
    light = correlate(light, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    light = np.round(correlate(np.clip(light, 0, 255), np.ones((3, 3), int)) / 9)
    drops = levels * light
    opacity = strength * drops / max(drops.max(), 1)
    return image + opacity[..., None] * np.array([175, 238, 238]) / 255


def test_edges():
    compiled = jax.jit(lambda x: spatter.canny(x, low=50, high=150))
    noise = np.random.default_rng(0).integers(0, 60, (32, 32))
    for levels in [*layers(), noise, noise // 4, np.zeros((32, 32), int)]:
        found = compiled(jnp.asarray(levels, jnp.int32))
        np.testing.assert_array_equal(found, canny(levels, 50, 150))
    assert canny(noise, 50, 150).any()


@pytest.mark.parametrize("share", [0.0, 0.004, 0.1])
def test_distances(share):
    edges = np.random.default_rng(0).random((32, 32)) < share
    found = jax.jit(spatter.chamfer_distance)(jnp.asarray(edges))
    np.testing.assert_allclose(found / 2**16, chamfer(edges), atol=1e-4)
    assert edges.any() == (share > 0)


def test_water():
    compiled = jax.jit(spatter.water)
    for levels in layers():
        layer = jnp.float32((levels + 0.25) / 255 * (levels > 0))
        found = compiled(jnp.float32(IMAGE), layer, 0.6)
        expected = water(IMAGE, levels, 0.6)
        assert np.any(expected > IMAGE + 0.1)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_water_changes_nothing():
    found = jax.jit(spatter.water)(jnp.float32(IMAGE), jnp.zeros((32, 32)), 0.6)
    np.testing.assert_allclose(found, IMAGE, atol=1e-6)


def test_mud():
    constants = transforms.constants_of("spatter", 4)
    found = np.asarray(
        transforms.corrupt(KEY, np.full((1, 32, 32, 3), 200, np.uint8), "spatter", 4)
    )
    mean, std, sigma, threshold, strength, mud = constants
    assert mud
    key = jax.random.fold_in(KEY, 0)
    noise = np.asarray(jax.random.normal(key, (32, 32)), float)
    options = {"mode": "nearest", "truncate": 4.0}
    layer = scipy.ndimage.gaussian_filter(mean + std * noise, sigma, **options)
    wet = (layer > threshold).astype(float)
    cover = scipy.ndimage.gaussian_filter(wet, strength, **options)
    cover[cover < 0.8] = 0
    expected = 200 + cover[..., None] * (np.array([63, 42, 20]) - 200)
    assert cover.max() > 0.9
    assert np.abs(found[0] - np.floor(expected + 1e-6)).max() <= 1
