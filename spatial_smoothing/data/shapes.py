"""The embedded data set `shapes`: ten classes of figures, drawn from a seed.

Images are u8[N, 32, 32, 3] (NHWC, RGB); labels i32[N] index `CLASS_NAMES`. An
image shows one figure, at a random place, angle, size and colour, on a textured ground
darker than itself, with bars behind and over it, seen through a blurring, noisy camera.
One number per image, its difficulty, uniform in [0, 1), sets size, contrast, occlusion
and noise together: the easiest images are plain, the hardest nearly ambiguous, and no
label is wrong. Flips and rotations do not change the class.

A split is an endless stream of which `generate` returns the beginning: a smaller size
is a prefix of a larger one, classes are balanced within one in every prefix, and the
images beyond `TRAIN_SIZE` can serve for validation.

The bytes are meant to be the same on every machine. Pixels are computed in float32 by
operations that IEEE 754 rounds exactly, in a fixed order. Sines and cosines are taken
of a few angles per image only, in float64, then rounded to float32: two libms that
differ in the last bit agree after it but for about one value in 10^8, which could
change some pixels of its image by 1.
"""

import functools
import math

import numpy as np

from spatial_smoothing.data import drawing
from spatial_smoothing.runtime import progress

VERSION = 2  # raise when any pixel changes: a key for caches of the images
IMAGE_SIZE = 32
TRAIN_SIZE = 10_000
TEST_SIZE = 2_000
# Mean and standard deviation of each channel (RGB), in [0, 1], of the training split
# with seed 0.
MEAN = (0.4093, 0.4079, 0.4097)
STD = (0.1946, 0.1930, 0.1933)

_SPLIT_SIZES = {"train": TRAIN_SIZE, "test": TEST_SIZE}
_CHUNK = 250  # images drawn at once, with one random generator; a multiple of 10


# Figures are functions of points (x, y), f32[...] each, to the signed distance from the
# outline, f32[...], negative inside. They are inscribed in the unit circle.


def _disc(x, y, *, radius=1.0):
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _ring(x, y):
    return np.abs(_disc(x, y, radius=0.775)) - np.float32(0.225)


def _crescent(x, y):
    return np.maximum(_disc(x, y), -_disc(x - np.float32(0.45), y, radius=0.8))


def _heart(x, y):
    """A square of half-side a on one corner, a disc of radius a on each upper side."""
    a, shift, diagonal = np.float32([0.5607, 0.2071, math.sqrt(0.5)])
    u, v = (y + shift + x) * diagonal, (y + shift - x) * diagonal
    beyond_u, beyond_v = np.abs(u) - a, np.abs(v) - a
    square = _disc(np.maximum(beyond_u, 0), np.maximum(beyond_v, 0), radius=0.0)
    square += np.minimum(np.maximum(beyond_u, beyond_v), 0)
    lobes = np.minimum(_disc(u - a, v, radius=a), _disc(u, v - a, radius=a))
    return np.minimum(square, lobes)


def _polygon(x, y, *, vertices):
    """A polygon with these vertices, f32[V, 2].

    The distance is that to the nearest edge. A point is inside where a ray from it
    crosses an odd number of edges.
    """
    squared = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    edges = np.roll(vertices, -1, axis=0) - vertices
    for (x0, y0), (dx, dy) in zip(vertices, edges, strict=True):
        px, py = x - x0, y - y0
        t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        qx, qy = px - t * dx, py - t * dy
        np.minimum(squared, qx * qx + qy * qy, out=squared)
        if dy != 0:
            inside ^= ((py >= 0) != (py >= dy)) & (px < py * (dx / dy))
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance)


def _star(points, *, inner):
    """Returns vertices f32[2 points, 2], in turn on an outer and an inner circle."""
    index = np.arange(2 * points)
    radius = np.where(index % 2 == 0, 1.0, inner)
    angle = index * (math.pi / points)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return vertices.astype(np.float32)


def _regular(sides):
    return _star(sides, inner=1.0)[::2]


_CROSS = np.float32(
    [
        *[(0.94, -0.34), (0.94, 0.34), (0.34, 0.34), (0.34, 0.94)],
        *[(-0.34, 0.94), (-0.34, 0.34), (-0.94, 0.34), (-0.94, -0.34)],
        *[(-0.34, -0.34), (-0.34, -0.94), (0.34, -0.94), (0.34, -0.34)],
    ]
)
_ARROW = np.float32(
    [
        *[(1.0, 0.0), (0.1, 0.85), (0.1, 0.28), (-0.95, 0.28)],
        *[(-0.95, -0.28), (0.1, -0.28), (0.1, -0.85)],
    ]
)

# Class -> its figure.
SIGNED_DISTANCES = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "triangle": functools.partial(_polygon, vertices=_regular(3)),
    "square": functools.partial(_polygon, vertices=_regular(4)),
    "pentagon": functools.partial(_polygon, vertices=_regular(5)),
    "star": functools.partial(_polygon, vertices=_star(5, inner=0.42)),
    "cross": functools.partial(_polygon, vertices=_CROSS),
    "arrow": functools.partial(_polygon, vertices=_ARROW),
}
CLASS_NAMES = tuple(SIGNED_DISTANCES)
NUM_CLASSES = len(CLASS_NAMES)
coverage = drawing.coverage


def _figure(labels, x, y):
    """Returns the signed distances from the figures of the labels.

    Args:
      labels: i64[n].
      x: f32[n, 32, 32], horizontal position in the unit of the figure.
      y: f32[n, 32, 32], vertical position in the unit of the figure.

    Returns:
      f32[n, 32, 32], negative inside.
    """
    distance = np.empty_like(x)
    for label, signed_distance in enumerate(SIGNED_DISTANCES.values()):
        of_class = labels == label
        distance[of_class] = signed_distance(x[of_class], y[of_class])
    return distance


def _scene(rng, labels, difficulty):
    """Draws scenes, as they are before the camera.

    Args:
      rng: Generator.
      labels: i64[n].
      difficulty: f32[n, 1, 1] in [0, 1).

    Returns:
      f32[n, 32, 32, 3], RGB; values may leave [0, 1].
    """
    shape, colours = (len(labels), 1, 1), (len(labels), 1, 1, 3)
    grid = np.arange(IMAGE_SIZE, dtype=np.float32) - np.float32((IMAGE_SIZE - 1) / 2)
    x = np.broadcast_to(grid, (len(labels), IMAGE_SIZE, IMAGE_SIZE))
    y = x.swapaxes(1, 2)
    easy = 1 - difficulty
    contrast = 0.22 + 0.5 * easy[..., None]

    ground = drawing.uniform(rng, 0.1, 0.6, colours)
    tint = drawing.brighter(rng, ground, 0.15) - ground
    behind = ground + tint * drawing.waves(rng, x, y, period=IMAGE_SIZE)[..., None]
    width, length = (
        drawing.uniform(rng, 0.5, 2.5, shape),
        drawing.uniform(rng, 3, 12, shape),
    )
    bar = drawing.bar(rng, x, y, width=width, length=length, spread=IMAGE_SIZE / 2)
    behind = drawing.blend(behind, drawing.brighter(rng, ground, contrast), bar)

    radius = 8 + 4.5 * easy + drawing.uniform(rng, -1, 1, shape)
    x = x - (IMAGE_SIZE / 2 - radius) * drawing.uniform(rng, -1, 1, shape)
    y = y - (IMAGE_SIZE / 2 - radius) * drawing.uniform(rng, -1, 1, shape)
    cos, sin = (component / radius for component in drawing.direction(rng, shape))
    distance = radius * _figure(labels, cos * x + sin * y, cos * y - sin * x)
    colour = drawing.brighter(rng, ground, contrast)
    tint = drawing.brighter(rng, colour, 0.15) - colour
    fill = colour + tint * drawing.waves(rng, x, y, period=IMAGE_SIZE)[..., None]
    scene = drawing.blend(behind, fill, drawing.coverage(distance))

    # One bar over the figure is of any colour; through the other the ground shows.
    for occluder in (drawing.uniform(rng, 0, 1, colours), behind):
        width = drawing.uniform(rng, 0, 1, shape) * (0.5 + 1.8 * difficulty)
        length = drawing.uniform(rng, 2, 14, shape)
        bar = drawing.bar(rng, x, y, width=width, length=length, spread=radius)
        scene = drawing.blend(scene, occluder, bar)
    return scene


def _photograph(rng, scene, difficulty):
    """Blurs the scene, adds noise to it and quantises it to u8[n, 32, 32, 3]."""
    side = drawing.uniform(rng, 0.05, 0.2, (len(scene), 1, 1, 1))
    scene = drawing.blur(drawing.blur(scene, side).swapaxes(1, 2), side).swapaxes(1, 2)
    # The sum of four random bytes is close to normal, and exact.
    noise = np.frombuffer(rng.bytes(4 * scene.size), np.uint8).reshape(4, *scene.shape)
    noise = noise.sum(axis=0, dtype=np.int32).astype(np.float32) - 4 * 127.5
    deviation = math.sqrt(4 * (256**2 - 1) / 12)
    scene = scene + noise * ((0.01 + 0.045 * difficulty[..., None]) / deviation)
    return (255 * np.clip(scene, 0, 1) + np.float32(0.5)).astype(np.uint8)


def _chunk(split_index, seed, chunk_index):
    """Draws images u8[_CHUNK, 32, 32, 3] and labels i64[_CHUNK]."""
    sequence = np.random.SeedSequence(seed, spawn_key=(split_index, chunk_index))
    rng = np.random.Generator(np.random.PCG64(sequence))
    # Ten in a row are the ten classes in random order.
    labels = rng.random((_CHUNK // NUM_CLASSES, NUM_CLASSES)).argsort(axis=1).ravel()
    difficulty = drawing.uniform(rng, 0, 1, (_CHUNK, 1, 1))
    scene = _scene(rng, labels, difficulty)
    return _photograph(rng, scene, difficulty), labels


def generate(
    split: str, *, seed: int = 0, size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the first `size` images of a split, always the same for the same seed.

    Args:
      split: "train" or "test"; the two are independent streams.
      seed: Seed, at least 0. Every seed gives another data set of the same
        distribution.
      size: Number of images, at least 1; None for `TRAIN_SIZE` or `TEST_SIZE`.

    Returns:
      Images u8[size, 32, 32, 3], RGB, and labels i32[size].

    Raises:
      ValueError: Unknown split, negative seed, or size below 1.
    """
    if split not in _SPLIT_SIZES:
        raise ValueError(f"unknown split {split!r}; choose 'train' or 'test'")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}")
    size = _SPLIT_SIZES[split] if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    split_index = list(_SPLIT_SIZES).index(split)
    images = np.empty((size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    labels = np.empty(size, np.int32)
    starts = range(0, size, _CHUNK)
    name = f"drawing shapes {split}"
    for start in progress.track(starts, total=len(starts), name=name):
        part = slice(start, min(start + _CHUNK, size))
        drawn = _chunk(split_index, seed, start // _CHUNK)
        images[part], labels[part] = (array[: part.stop - start] for array in drawn)
    return images, labels
