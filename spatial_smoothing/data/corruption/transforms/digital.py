"""Digital processing: contrast, saturation, elastic warp, large pixels, JPEG.

Contract of this file: functions of (key, image f32[H, H, 3] in [0, 1] with values of 8
bits, constants) to an image that the caller clips to [0, 1].
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import draws, jpeg, linear


def contrast(key: jax.Array, image: jax.Array, factor: float) -> jax.Array:
    """Moves values towards the mean of their channel, by `factor` in [0, 1]."""
    del key
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def saturate(
    key: jax.Array, image: jax.Array, factor: float, offset: float
) -> jax.Array:
    """Scales and shifts the saturation of HSV, within [0, 1]; hue and value stay.

    The distance of RGB from the value is proportional to the saturation, so that no
    conversion is needed. The hue of grey is 0: an offset turns grey to red.

    Args:
      key: Not used.
      image: f32[H, H, 3] in [0, 1].
      factor: Factor of the saturation, at least 0.
      offset: Added to the saturation, which is in [0, 1].
    """
    del key
    value = image.max(axis=-1, keepdims=True)
    distance = value - image
    span = distance.max(axis=-1, keepdims=True)
    saturation = span / jnp.where(value == 0, 1, value)
    target = jnp.clip(saturation * factor + offset, 0, 1)
    grey = span < 0.5 / 255  # not 0: compiled code may round its parts apart
    red = value * jnp.array([[[0, 1, 1]]], image.dtype)
    unit = jnp.where(grey, red, distance / jnp.where(grey, 1, saturation))
    return value - unit * target


def pixelate(key: jax.Array, image: jax.Array, factor: float) -> jax.Array:
    """Shrinks by averages over boxes and enlarges by repetition, as Pillow does.

    Args:
      key: Not used.
      image: f32[H, H, 3] in [0, 1].
      factor: Size of the small image over that of the image, in (0, 1].
    """
    del key
    size = image.shape[0]
    target = math.floor(size * factor)
    down, up = linear.box(size, target), linear.box(target, size)
    pixels = jnp.round(255 * image)
    # Pillow rounds to 8 bits after the horizontal pass, and after the vertical one.
    for rows, columns in ((_identity(size), down), (down, _identity(target))):
        pixels = jnp.floor(linear.apply(rows, columns, pixels) + 0.5 + 1e-4)
    return linear.apply(up, up, pixels) / 255


def _identity(size: int) -> np.ndarray:
    return np.eye(size, dtype=np.float32)


def jpeg_compression(key: jax.Array, image: jax.Array, quality: int) -> jax.Array:
    """Compresses as Pillow does, chroma at half the resolution, and decompresses.

    Args:
      key: Not used.
      image: f32[H, H, 3] in [0, 1].
      quality: Quality of the compression, from 1 to 100.
    """
    del key
    pixels = jnp.round(255 * image).astype(jnp.int32)
    return jpeg.compress(pixels, quality).astype(image.dtype) / 255


def elastic_transform(
    key: jax.Array, image: jax.Array, alpha: float, sigma: float, jitter: float
) -> jax.Array:
    """Warps by a random affine map, then by smooth random displacements.

    Args:
      key: Key of the random numbers.
      image: f32[H, H, 3] in [0, 1].
      alpha: Scale of the displacements, in pixels.
      sigma: Standard deviation of the Gaussian that smooths them, in pixels.
      jitter: Largest shift of the three points that define the map, in pixels.
    """
    size = image.shape[0]
    affine_key, field_key = jax.random.split(key)
    shifts = draws.uniform(affine_key, (3, 2), low=-jitter, high=jitter)
    fields = draws.uniform(field_key, (size, size, 2), low=-1.0)
    image = linear.bilinear(image, *affine_source(shifts, size), border="mirror")
    if alpha == 0:
        return image
    matrix = linear.gaussian(size, sigma, border="reflect", truncate=3.0)
    right, down = jnp.moveaxis(alpha * linear.apply(matrix, matrix, fields), -1, 0)
    row, column = _grid(size)
    return linear.bilinear(image, row + down, column + right, border="reflect")


def affine_source(shifts: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the positions at which to read an image to warp it by an affine map.

    The map takes three points, size // 3 from the centre to the lower right, upper
    right and upper left, to themselves plus `shifts`.

    Args:
      shifts: f32[3, 2], (x, y) in pixels.
      size: Height and width of the image, in pixels.

    Returns:
      Rows and columns, each f32[size, size].
    """
    near, far = size // 2 - size // 3, size // 2 + size // 3
    points = jnp.array([[far, far], [far, near], [near, near]], jnp.float32)
    moved = points + shifts
    edges, moved_edges = (p[:2] - p[2:] for p in (points, moved))
    (a, b), (c, d) = moved_edges
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    matrix = jnp.matmul(inverse, edges, precision=jax.lax.Precision.HIGHEST)
    row, column = _grid(size)
    x, y = column - moved[2, 0], row - moved[2, 1]
    return (
        x * matrix[0, 1] + y * matrix[1, 1] + points[2, 1],
        x * matrix[0, 0] + y * matrix[1, 0] + points[2, 0],
    )


def _grid(size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the row and the column of each pixel, each f32[size, size]."""
    line = jnp.arange(size, dtype=jnp.float32)
    row, column = jnp.meshgrid(line, line, indexing="ij")
    return row, column
