"""The embedded data set `shapes`: ten classes of figures, drawn from a seed.

Images are uint8[N, 32, 32, 3] (NHWC, RGB), labels int32[N] index `CLASS_NAMES`.
Each image shows one figure at a random place, angle, size and colour on a textured
background, with bars behind and over it, blurred and noisy. One number per image,
its difficulty, uniform in [0, 1], sets size, contrast, occlusion, blur and noise
together: easy images are plain, hard ones nearly ambiguous, and no label is wrong.
The classes are invariant to flips and rotations.

A split is an endless stream of which `generate` returns the beginning, so a smaller
size is a prefix of a larger one and the images past `TRAIN_SIZE` serve as validation.
Per-pixel arithmetic uses only operations that IEEE 754 rounds exactly, in a fixed
order, and random draws only raw uniform ones. A sine or cosine is rounded from float64
to float32, which hides the last bit of the platform's libm but for about one value
in 10^9; such a value could change a pixel by 1.
"""

import functools
import math

import numpy as np

VERSION = 1  # raise when any pixel changes: caches of the images use it as a key
IMAGE_SIZE = 32
TRAIN_SIZE = 10_000
TEST_SIZE = 2_000
MEAN = (0.5, 0.5, 0.5)
STD = (0.2, 0.2, 0.2)

_SPLIT_SIZES = {"train": TRAIN_SIZE, "test": TEST_SIZE}
_CHUNK = 250  # images drawn at once, each chunk from its own stream; 10 divides it


def _disc(x, y, *, radius=1.0):
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _ring(x, y):
    return np.abs(_disc(x, y, radius=0.775)) - np.float32(0.225)


def _crescent(x, y):
    return np.maximum(_disc(x, y), -_disc(x - np.float32(0.45), y, radius=0.8))


def _heart(x, y):
    """A square of half-side a, standing on a corner, and a disc on each upper side."""
    a, shift, cos45 = np.float32([0.5607, 0.2071, math.sqrt(0.5)])
    right = (y + shift + x) * cos45
    left = (y + shift - x) * cos45
    across, along = np.abs(right) - a, np.abs(left) - a
    square = _disc(np.maximum(across, 0), np.maximum(along, 0), radius=0.0)
    square += np.minimum(np.maximum(across, along), 0)
    lobes = np.minimum(
        _disc(right - a, left, radius=a), _disc(right, left - a, radius=a)
    )
    return np.minimum(square, lobes)


def _polygon(x, y, *, vertices):
    """Signed distance to a simple polygon: the nearest edge; parity of crossings."""
    squared = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    ends = np.roll(vertices, -1, axis=0)
    for (x0, y0), (dx, dy) in zip(vertices, ends - vertices, strict=True):
        px, py = x - x0, y - y0
        t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        ex, ey = px - t * dx, py - t * dy
        np.minimum(squared, ex * ex + ey * ey, out=squared)
        if dy != 0:
            inside ^= ((py >= 0) != (py >= dy)) & (px < py * (dx / dy))
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance)


def _star(points, *, inner):
    """Vertices on the unit circle and, between them, on one of radius `inner`."""
    angles = np.arange(2 * points) * math.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    vertices = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return vertices.astype(np.float32)


def _regular(sides):
    return _star(sides, inner=1.0)[::2]


_A, _B = 0.94, 0.34  # reach and half-width of the arms of the cross
_CROSS = np.float32(
    [(_A, -_B), (_A, _B), (_B, _B), (_B, _A), (-_B, _A), (-_B, _B)]
    + [(-_A, _B), (-_A, -_B), (-_B, -_B), (-_B, -_A), (_B, -_A), (_B, -_B)]
)
_ARROW = np.float32(
    [(1, 0), (0.1, 0.85), (0.1, 0.28), (-0.95, 0.28)]
    + [(-0.95, -0.28), (0.1, -0.28), (0.1, -0.85)]
)

# Signed distance (negative inside) at float32 points x, y of each figure inscribed in
# the unit circle, exact on the outside near its edge.
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


def coverage(distance):
    """Share of a pixel inside an edge, f32 in [0, 1], from its distance in pixels."""
    return np.clip(np.float32(0.5) - distance, 0, 1)


def _uniform(rng, low, high, shape):
    return (low + (high - low) * rng.random(shape)).astype(np.float32)


def _direction(rng, shape):
    angle = 2 * math.pi * rng.random(shape)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _blend(scene, colour, alpha):
    """Lays `colour` [n, 1, 1, 3] or an image over the scene, opacity `alpha`."""
    scene += (colour - scene) * alpha[..., None]


def _waves(rng, n, x, y):
    """Texture f32[n, 32, 32] about 0: a gradient, stripes, and band-limited noise."""
    total = np.zeros((n, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    # Cycles per image, amplitude: the first is a gradient, the second stripes.
    table = [(0.0, 0.4, 0.6), (2.0, 7.0, 0.6)] + [(1.0, 8.0, 0.35)] * 5
    for low, high, amplitude in table:
        cos, sin = _direction(rng, (n, 1, 1))
        cycles = _uniform(rng, low, high, (n, 1, 1)) / IMAGE_SIZE
        t = (cos * cycles) * x + (sin * cycles) * y + _uniform(rng, 0, 1, (n, 1, 1))
        t -= np.floor(t)
        t -= np.float32(0.5)
        # A parabola for each half wave: a sine to 6 %, without the libm.
        t *= np.float32(8) - np.float32(16) * np.abs(t)
        total += t * _uniform(rng, 0, amplitude, (n, 1, 1))
    return total


def _bar(rng, x, y, *, half_width, half_length, spread):
    """Coverage f32[n, 32, 32] of a bar placed up to `spread` pixels off the origin."""
    n = len(x)
    cos, sin = _direction(rng, (n, 1, 1))
    x = x - spread * _uniform(rng, -1, 1, (n, 1, 1))
    y = y - spread * _uniform(rng, -1, 1, (n, 1, 1))
    along = np.abs(cos * x + sin * y) - half_length
    across = np.abs(cos * y - sin * x) - half_width
    return coverage(along) * coverage(across)


def _shift(rng, colour, amount):
    """A colour `amount` away from `colour` in a random direction, towards the middle."""
    step = _uniform(rng, 0, 1, colour.shape)
    r, g, b = step[..., 0], step[..., 1], step[..., 2]
    step /= np.sqrt(r * r + g * g + b * b)[..., None] + np.float32(1e-3)
    moved = colour + step * amount
    # Reflected where it would leave the gamut, so that the contrast is kept.
    return moved


def _figure(labels, x, y):
    """Signed distance f32[n, 32, 32] to the figure of each label, in its own units."""
    distance = np.empty_like(x)
    for label, signed_distance in enumerate(SIGNED_DISTANCES.values()):
        of_class = np.flatnonzero(labels == label)
        distance[of_class] = signed_distance(x[of_class], y[of_class])
    return distance


def _scene(rng, labels, difficulty):
    """Images f32[n, 32, 32, 3] in about [0, 1] before the camera; `difficulty` f32[n]."""
    n = len(labels)
    grid = np.arange(IMAGE_SIZE, dtype=np.float32) - np.float32((IMAGE_SIZE - 1) / 2)
    x, y = np.broadcast_to(grid, (n, IMAGE_SIZE, IMAGE_SIZE)), grid[:, None]
    easy = 1 - difficulty[:, None, None]
    contrast = 0.15 + 0.6 * easy[..., None]

    ground = _uniform(rng, 0.1, 0.6, (n, 1, 1, 3))
    scene = np.broadcast_to(ground, (n, IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
    second = _shift(rng, ground, 0.15)
    scene += (second - ground) * _waves(rng, n, x, y)[..., None]
    for _ in range(1):
        width, length = (
            _uniform(rng, 0.5, 2.5, (n, 1, 1)),
            _uniform(rng, 3, 12, (n, 1, 1)),
        )
        bar = _bar(rng, x, y, half_width=width, half_length=length, spread=16)
        _blend(scene, _shift(rng, ground, contrast), bar)
    behind = scene.copy()

    radius = 7 + 6 * easy + _uniform(rng, -1, 1, (n, 1, 1))
    room = IMAGE_SIZE / 2 - radius
    x = x - room * _uniform(rng, -1, 1, (n, 1, 1))
    y = y - room * _uniform(rng, -1, 1, (n, 1, 1))
    cos, sin = _direction(rng, (n, 1, 1))
    unit = 1 / radius
    distance = _figure(labels, (cos * x + sin * y) * unit, (cos * y - sin * x) * unit)
    colour = _shift(rng, ground, contrast)
    fill = (
        colour + (_shift(rng, colour, 0.15) - colour) * _waves(rng, n, x, y)[..., None]
    )
    _blend(scene, fill, coverage(distance * radius))

    for occluder in (_uniform(rng, 0, 1, (n, 1, 1, 3)), behind):
        width = _uniform(rng, 0, 1, (n, 1, 1)) * (0.5 + 2.5 * (1 - easy))
        length = _uniform(rng, 2, 14, (n, 1, 1))
        bar = _bar(rng, x, y, half_width=width, half_length=length, spread=radius)
        _blend(scene, occluder, bar)
    return scene


def _camera(rng, scene, difficulty):
    """Blurs, adds noise and quantises to uint8."""
    difficulty = difficulty[:, None, None, None]
    side = _uniform(rng, 0.05, 0.2, difficulty.shape)
    for axis in (1, 2):
        shape = [(0, 0)] * 4
        shape[axis] = (1, 1)
        padded = np.pad(scene, shape, mode="edge")
        first = padded.take(range(IMAGE_SIZE), axis=axis)
        last = padded.take(range(2, IMAGE_SIZE + 2), axis=axis)
        scene = scene + side * (first - scene + (last - scene))
    # The sum of four uniform bytes is a normal variable to a few percent, and exact.
    noise = np.frombuffer(rng.bytes(4 * scene.size), np.uint8).reshape(4, *scene.shape)
    noise = noise.sum(axis=0, dtype=np.int32).astype(np.float32) - np.float32(510)
    sigma = (0.01 + 0.05 * difficulty) / math.sqrt((256**2 - 1) / 3)
    scene = scene + sigma.astype(np.float32) * noise
    return np.clip(scene * 255 + np.float32(0.5), 0, 255).astype(np.uint8)


def _chunk(split, seed, number):
    spawn_key = (list(_SPLIT_SIZES).index(split), number)
    rng = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(seed, spawn_key=spawn_key))
    )
    # Each run of ten labels holds every class once, in random order.
    labels = rng.random((_CHUNK // NUM_CLASSES, NUM_CLASSES)).argsort(axis=1).ravel()
    difficulty = _uniform(rng, 0, 1, _CHUNK)
    scene = _scene(rng, labels, difficulty)
    return _camera(rng, scene, difficulty), labels.astype(np.int32)


def generate(split, *, seed=0, size=None):
    size = _SPLIT_SIZES[split] if size is None else size
    images = np.empty((size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    labels = np.empty(size, np.int32)
    for start in range(0, size, _CHUNK):
        stop = min(start + _CHUNK, size)
        chunk_images, chunk_labels = _chunk(split, seed, start // _CHUNK)
        images[start:stop] = chunk_images[: stop - start]
        labels[start:stop] = chunk_labels[: stop - start]
    return images, labels
