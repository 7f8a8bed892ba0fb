"""Drawing with NumPy: textures, bars and blurs that are the same on every machine.

Contract of this file: pixels are computed in float32 by operations that IEEE 754 rounds
exactly, in a fixed order; sines and cosines in float64, then rounded to float32. The
leading axis of the arrays is that of the images that are drawn together.
"""

import math

import numpy as np


def coverage(distance):
    """Returns the share of a pixel that is on the inner side of an edge, in [0, 1].

    Args:
      distance: f32[...], signed distance of the pixel from the edge, in pixels.
    """
    return np.clip(np.float32(0.5) - distance, 0, 1)


def uniform(rng, low, high, shape):
    """Returns uniform numbers in [low, high), f32[*shape].

    Args:
      rng: Generator.
      low: Least number.
      high: Number that is not reached.
      shape: Shape of the result.
    """
    return (low + (high - low) * rng.random(shape)).astype(np.float32)


def direction(rng, shape):
    """Returns cosine and sine of random angles, each f32[*shape].

    Args:
      rng: Generator.
      shape: Shape of the results.
    """
    angle = 2 * math.pi * rng.random(shape)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def brighter(rng, colour, amount):
    """Returns colours at Euclidean distance `amount`, no channel of them darker.

    Args:
      rng: Generator.
      colour: f32[..., 3], RGB in [0, 1].
      amount: f32[...] or a number, in the same unit.
    """
    step = uniform(rng, 0, 1, colour.shape)
    r, g, b = step[..., 0], step[..., 1], step[..., 2]
    return colour + step * (amount / np.sqrt(r * r + g * g + b * b)[..., None])


def waves(rng, x, y, *, period):
    """Returns textures about 0: a gradient, stripes and band-limited noise.

    Args:
      rng: Generator.
      x: f32[n, H, W], horizontal position of each pixel, in pixels.
      y: f32[n, H, W], vertical position of each pixel, in pixels.
      period: Length in pixels that frequencies are counted in, about that of an image.

    Returns:
      f32[n, H, W].
    """
    n = len(x)
    texture = np.zeros(x.shape, np.float32)
    # Fewest and most cycles per image, greatest amplitude.
    bands = [(0.0, 0.4, 0.6), (2.0, 7.0, 0.6)] + [(1.0, 8.0, 0.35)] * 5
    for low, high, amplitude in bands:
        cos, sin = direction(rng, (n, 1, 1))
        frequency = uniform(rng, low, high, (n, 1, 1)) / period
        phase = uniform(rng, 0, 1, (n, 1, 1))
        wave = (cos * frequency) * x + (sin * frequency) * y + phase
        wave -= np.floor(wave) + np.float32(0.5)
        wave *= 8 - 16 * np.abs(wave)  # a sine within 6 %, of exact operations
        texture += wave * uniform(rng, 0, amplitude, (n, 1, 1))
    return texture


def bar(rng, x, y, *, width, length, spread):
    """Returns the share of each pixel that a bar covers.

    Args:
      rng: Generator of the place and the direction.
      x: f32[n, H, W], horizontal position of each pixel, in pixels.
      y: f32[n, H, W], vertical position of each pixel, in pixels.
      width: f32[n, 1, 1], half the width, in pixels.
      length: f32[n, 1, 1], half the length, in pixels.
      spread: Largest distance of the centre from the origin in each direction, in
        pixels.

    Returns:
      f32[n, H, W] in [0, 1].
    """
    shape = (len(x), 1, 1)
    cos, sin = direction(rng, shape)
    x = x - spread * uniform(rng, -1, 1, shape)
    y = y - spread * uniform(rng, -1, 1, shape)
    along = coverage(np.abs(cos * x + sin * y) - length)
    return along * coverage(np.abs(cos * y - sin * x) - width)


def blend(scene, colour, share):
    """Lays a colour, or an image, over a share of each pixel.

    Args:
      scene: f32[n, H, W, 3], RGB.
      colour: f32[n, H, W, 3], or of a shape that broadcasts to it.
      share: f32[n, H, W] in [0, 1].
    """
    return scene + (colour - scene) * share[..., None]


def blur(scene, side):
    """Mixes neighbours along axis 1, with the weights side, 1 - 2 side and side.

    Args:
      scene: f32[n, H, W, 3], RGB.
      side: f32[n, 1, 1, 1], weight of each neighbour, in [0, 0.5].
    """
    padded = np.concatenate([scene[:, :1], scene, scene[:, -1:]], axis=1)
    return scene + side * (padded[:, :-2] + padded[:, 2:] - 2 * scene)


def noise(rng, shape):
    """Returns noise that is close to normal, of deviation 1 and exact, f32[*shape].

    Args:
      rng: Generator.
      shape: Shape of the result.
    """
    # The sum of four random bytes.
    count = math.prod(shape)
    drawn = np.frombuffer(rng.bytes(4 * count), np.uint8).reshape(4, *shape)
    centred = drawn.sum(axis=0, dtype=np.int32).astype(np.float32) - 4 * 127.5
    return centred * np.float32(1 / math.sqrt(4 * (256**2 - 1) / 12))
