"""References for the corruptions, in NumPy and SciPy with float64."""

import math

import numpy as np
import scipy.ndimage

from spatial_smoothing.data import shapes

IMAGES, _ = shapes.generate("test", size=3)
UNITS = IMAGES / 255


def agree(images, expected, *, mean=1e-3):
    """Checks 8-bit images against values in [0, 1], but for a rounding here or there.

    Where float64 has a whole grey level up to its last bit, truncation is a toss-up.
    """
    expected = np.floor(255 * np.clip(expected, 0, 1) + 1e-9)
    difference = np.abs(images - expected)
    assert difference.max() <= 1
    assert difference.mean() <= mean


def gaussian(images, sigma, **options):
    options = {"mode": "nearest", "truncate": 4.0, **options}
    filtered = scipy.ndimage.gaussian_filter1d(images, sigma, axis=1, **options)
    return scipy.ndimage.gaussian_filter1d(filtered, sigma, axis=2, **options)


def clipped_zoom(image, factor):
    size = len(image)
    source = math.ceil(size / factor)
    start = (size - source) // 2
    part = image[start : start + source, start : start + source]
    large = scipy.ndimage.zoom(part, (factor, factor, 1), order=1)
    trim = (len(large) - size) // 2
    return large[trim : trim + size, trim : trim + size]


def streak(image, angle, radius, sigma):
    """The motion blur of ImageMagick, tap by tap."""
    total, weights = np.zeros(image.shape), 0.0
    rows, columns = np.indices(image.shape[:2])
    for i in range(2 * radius + 1):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        weight = math.exp(-(i**2) / (2 * sigma**2))
        row = np.clip(rows + down, 0, image.shape[0] - 1)
        column = np.clip(columns + right, 0, image.shape[1] - 1)
        total, weights = total + weight * image[row, column], weights + weight
    return np.round(255 * total / weights) / 255
