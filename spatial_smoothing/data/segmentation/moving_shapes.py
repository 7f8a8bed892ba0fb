"""The embedded segmentation data set `moving_shapes`: short videos, drawn from a seed.

Frames are u8[T, 48, 64, 3] (RGB); labels are u8[T, 48, 64] and index `CLASS_NAMES`. A
video shows figures of five classes that move, turn and cover each other in front of a
textured ground that moves too, seen through a blurring, noisy camera whose gain
flickers. Bars that are part of the ground pass in front of the figures. Colours tell
the classes apart in part only: each class has a colour of its own, about which the
colours of its figures spread, so that those of two classes overlap. Noise differs from
frame to frame, and some frames are much noisier than the others, so that the frames
before help. A pixel has the class of what covers its centre. No label is wrong, and no
pixel is void.

A split is an endless stream of videos of which `generate` returns the beginning. As for
`shapes`, the bytes are meant to be the same on every machine; see `drawing`.
"""

import numpy as np

from spatial_smoothing.data import drawing, shapes
from spatial_smoothing.runtime import progress

VERSION = 1  # raise when any pixel changes: a key for caches of the videos
HEIGHT, WIDTH = 48, 64
NUM_FRAMES = 12  # of a video
TRAIN_VIDEOS = 100
TEST_VIDEOS = 40
CLASS_NAMES = ("ground", "disc", "ring", "square", "triangle", "cross")
NUM_CLASSES = len(CLASS_NAMES)
# What pixels are normalised by, in [0, 1]. The training split has the means 0.486,
# 0.448 and 0.461, and the deviations 0.249, 0.228 and 0.236.
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
# Colours of the classes in pictures, and the mean colours of their figures.
PALETTE = (
    *((64, 64, 64), (220, 80, 80), (90, 190, 90)),
    *((90, 110, 230), (230, 200, 80), (200, 100, 210)),
)

_SPLIT_VIDEOS = {"train": TRAIN_VIDEOS, "test": TEST_VIDEOS}
_NUM_FIGURES = 5
_SPREAD = 0.3  # of the colours of a class, to either side in each channel
_NOISE = (0.04, 0.12)  # deviations of the noise of a video, least and largest
_BAD_FRAMES = 0.2  # share of the frames that are much noisier
_BAD_NOISE = 0.3


def _grid():
    """Returns x and y of each pixel of each frame, f32[T, H, W], 0 in the centre."""
    rows, columns = (
        np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        for size in (HEIGHT, WIDTH)
    )
    shape = (NUM_FRAMES, HEIGHT, WIDTH)
    return (
        np.broadcast_to(columns, shape),
        np.broadcast_to(rows[:, None], shape),
    )


def _path(rng, *, start, speed):
    """Returns x and y of something that moves straight, f32[T, 1, 1] in pixels.

    Args:
      rng: Generator.
      start: Largest distances from the centre at the middle of the video, in pixels.
      speed: Largest speed in each direction, in pixels a frame.
    """
    times = np.arange(NUM_FRAMES, dtype=np.float32) - np.float32(NUM_FRAMES / 2)
    places = [
        drawing.uniform(rng, -far, far, ())
        + drawing.uniform(rng, -speed, speed, ()) * times
        for far in start
    ]
    return tuple(place[:, None, None] for place in places)


def _turn(rng):
    """Returns cosine and sine of an angle that changes evenly, each f32[T, 1, 1]."""
    angles = 2 * np.pi * rng.random() + rng.uniform(-0.15, 0.15) * np.arange(NUM_FRAMES)
    return (f(angles).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))


def _textured(rng, colour, x, y):
    """Returns a surface of about a colour, f32[T, H, W, 3], fixed to x and y."""
    # One texture for all frames: they are drawn as one tall image.
    tall = (1, NUM_FRAMES * HEIGHT, WIDTH)
    texture = drawing.waves(rng, x.reshape(tall), y.reshape(tall), period=HEIGHT)
    tint = drawing.brighter(rng, colour, 0.15) - colour
    return colour + tint * texture.reshape(*x.shape, 1)


def _video(rng):
    """Draws a video before the camera: f32[T, H, W, 3], and labels u8[T, H, W]."""
    x, y = _grid()
    labels = np.zeros(x.shape, np.uint8)
    away_x, away_y = _path(rng, start=(0, 0), speed=0.5)
    ground_colour = drawing.uniform(rng, 0.15, 0.7, (3,))
    ground = _textured(rng, ground_colour, x - away_x, y - away_y)
    scene = ground
    # One figure of each class, in random order, and so of depth.
    classes = 1 + rng.random(_NUM_FIGURES).argsort()
    for label in classes:
        radius = drawing.uniform(rng, 6, 13, ())
        at_x, at_y = _path(rng, start=(WIDTH / 2, HEIGHT / 2), speed=1.5)
        cos, sin = (part / radius for part in _turn(rng))
        u = cos * (x - at_x) + sin * (y - at_y)
        v = cos * (y - at_y) - sin * (x - at_x)
        distance = radius * shapes.SIGNED_DISTANCES[CLASS_NAMES[label]](u, v)
        colour = np.float32(PALETTE[label]) / 255 + drawing.uniform(
            rng, -_SPREAD, _SPREAD, (3,)
        )
        # The texture moves and turns with the figure.
        fill = _textured(rng, colour, u * radius, v * radius)
        scene = drawing.blend(scene, fill, drawing.coverage(distance))
        labels[distance < 0] = label
    for _ in range(2):
        at_x, at_y = _path(rng, start=(WIDTH / 2, HEIGHT / 2), speed=2.0)
        cos, sin = _turn(rng)
        width = drawing.uniform(rng, 0.5, 2.0, ())
        across = np.abs(cos * (y - at_y) - sin * (x - at_x)) - width
        scene = drawing.blend(scene, ground, drawing.coverage(across))
        labels[across < 0] = 0
    return scene, labels


def _photograph(rng, scene):
    """Blurs a video, makes its gain flicker, adds noise: u8[T, H, W, 3]."""
    side = drawing.uniform(rng, 0.05, 0.25, (1, 1, 1, 1))
    scene = drawing.blur(drawing.blur(scene, side).swapaxes(1, 2), side).swapaxes(1, 2)
    each = (NUM_FRAMES, 1, 1, 1)
    scene = scene * drawing.uniform(rng, 0.8, 1.2, each)
    deviation = np.broadcast_to(drawing.uniform(rng, *_NOISE, (1, 1, 1, 1)), each)
    is_bad = rng.random(each) < _BAD_FRAMES
    noise = drawing.noise(rng, scene.shape)
    scene = scene + noise * np.where(is_bad, np.float32(_BAD_NOISE), deviation)
    return (255 * np.clip(scene, 0, 1) + np.float32(0.5)).astype(np.uint8)


def generate(
    split: str, *, seed: int = 0, num_videos: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the first videos of a split, always the same for the same seed.

    Args:
      split: "train" or "test"; the two are independent streams.
      seed: Seed, at least 0. Every seed gives another data set of the same
        distribution.
      num_videos: V, at least 1; None for `TRAIN_VIDEOS` or `TEST_VIDEOS`.

    Returns:
      Frames u8[V, T, 48, 64, 3], RGB, and labels u8[V, T, 48, 64].

    Raises:
      ValueError: Unknown split, negative seed, or less than one video.
    """
    if split not in _SPLIT_VIDEOS:
        raise ValueError(f"unknown split {split!r}; choose 'train' or 'test'")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}")
    num_videos = _SPLIT_VIDEOS[split] if num_videos is None else num_videos
    if num_videos < 1:
        raise ValueError(f"num_videos must be at least 1, not {num_videos}")
    split_index = list(_SPLIT_VIDEOS).index(split)
    images = np.empty((num_videos, NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    labels = np.empty(images.shape[:-1], np.uint8)
    name = f"drawing moving_shapes {split}"
    for number in progress.track(range(num_videos), total=num_videos, name=name):
        sequence = np.random.SeedSequence(seed, spawn_key=(split_index, number))
        rng = np.random.Generator(np.random.PCG64(sequence))
        scene, labels[number] = _video(rng)
        images[number] = _photograph(rng, scene)
    return images, labels
