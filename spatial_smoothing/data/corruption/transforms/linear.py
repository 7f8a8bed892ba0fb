"""Linear filters and resamplings of images, as small matrices made on the host.

A filter that works on rows and columns separately is a pair of matrices, borders
included, so that applying it is two matrix products whatever its support. A kernel that
is not separable is a sum of such pairs, by its singular value decomposition.

Contract of this file: images are f32[H, W, C]; matrices are f32[output, input]. Borders
are named as SciPy does: "nearest" (a a|a b c|c c), "reflect" (b a|a b c|c b) and
"mirror" (c b|a b c|b a).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.lookup import lookup

# (index, size) -> the pixel that stands in for it; for NumPy and JAX arrays alike.
_BORDERS = {
    "nearest": lambda i, size: i.clip(0, size - 1),
    "reflect": lambda i, size: size - 1 - abs(2 * (i % (2 * size) - size) + 1) // 2,
    "mirror": lambda i, size: size - 1 - abs(i % max(2 * size - 2, 1) - size + 1),
}


def fold(index: np.ndarray, size: int, *, border: str) -> np.ndarray:
    """Returns the pixel in [0, size) that stands in for one beyond the borders.

    Args:
      index: int[...], numbers of pixels, also below 0 and above `size`.
      size: Number of pixels.
      border: "nearest", "reflect" or "mirror", see the top of this file.
    """
    return lookup(_BORDERS, border, "border")(index, size)


def correlation(size: int, taps: np.ndarray, *, border: str) -> np.ndarray:
    """Returns the matrix f32[size, size] of a centred filter.

    Args:
      size: Number of pixels in a row of the image.
      taps: [K], weights of the filter, K odd.
      border: "nearest", "reflect" or "mirror", see the top of this file.
    """
    radius = len(taps) // 2
    index = np.arange(size)[:, None] + np.arange(-radius, radius + 1)
    matrix = np.zeros((size, size))
    np.add.at(
        matrix, (np.arange(size)[:, None], fold(index, size, border=border)), taps
    )
    return matrix.astype(np.float32)


def gaussian_taps(sigma: float, radius: int) -> np.ndarray:
    """Returns weights exp(-i^2 / 2 sigma^2), i = -radius..radius, that sum to one."""
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def gaussian(size: int, sigma: float, *, border: str, truncate: float) -> np.ndarray:
    """Returns the matrix f32[size, size] of a Gaussian blur.

    Args:
      size: Number of pixels in a row of the image.
      sigma: Standard deviation in pixels; 0 gives the identity.
      border: "nearest", "reflect" or "mirror", see the top of this file.
      truncate: Distance at which the filter ends, in standard deviations.
    """
    if sigma == 0:
        return np.eye(size, dtype=np.float32)
    taps = gaussian_taps(sigma, math.floor(truncate * sigma + 0.5))
    return correlation(size, taps, border=border)


def kernel(size: int, weights: np.ndarray, *, border: str) -> tuple:
    """Returns rows and columns, each f32[terms, size, size], of a 2-D correlation.

    Args:
      size: Height and width of the image, in pixels.
      weights: [K, K], weights of the correlation, K odd.
      border: "nearest", "reflect" or "mirror", see the top of this file.
    """
    u, scales, v = np.linalg.svd(np.asarray(weights, np.float64))
    terms = range(np.sum(scales > 1e-7 * scales[0]))
    rows = [correlation(size, scales[k] * u[:, k], border=border) for k in terms]
    columns = [correlation(size, v[k], border=border) for k in terms]
    return np.stack(rows), np.stack(columns)


def zoom(size: int, factor: float) -> np.ndarray:
    """Returns the matrix that magnifies the centre by `factor`, at least 1.

    The middle ceil(size / factor) pixels are enlarged by linear interpolation, end
    points aligned, and of the result the middle `size` are kept.

    Args:
      size: Number of pixels in a row of the image.
      factor: Magnification, at least 1.

    Returns:
      f32[size, size].
    """
    source = math.ceil(size / factor)
    enlarged = round(source * factor)
    position = np.arange(size) + (enlarged - size) // 2
    position = position * ((source - 1) / max(enlarged - 1, 1))
    low = np.clip(np.floor(position).astype(int), 0, max(source - 2, 0))
    matrix = np.zeros((size, size))
    start, row = (size - source) // 2, np.arange(size)
    np.add.at(matrix, (row, start + low), 1 - (position - low))
    np.add.at(matrix, (row, start + np.minimum(low + 1, source - 1)), position - low)
    return matrix.astype(np.float32)


def box(size: int, target: int) -> np.ndarray:
    """Returns the matrix of Pillow's resizing with the box filter.

    Args:
      size: Number of pixels in a row of the image.
      target: Number of pixels in a row of the result.

    Returns:
      f32[target, size].
    """
    scale = size / target
    centre = (np.arange(target) + 0.5) * scale
    half = 0.5 * max(scale, 1.0)
    low, high = np.floor(centre - half + 0.5), np.floor(centre + half + 0.5)
    offset = (np.arange(size) + 0.5 - centre[:, None]) / (2 * half)
    inside = (np.arange(size) >= low[:, None]) & (np.arange(size) < high[:, None])
    matrix = inside & (offset > -0.5) & (offset <= 0.5)
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def apply(rows: np.ndarray, columns: np.ndarray, image: jax.Array) -> jax.Array:
    """Applies a matrix to the columns of an image and one to its rows.

    Args:
      rows: f32[P, H], applied to the columns, so that it mixes rows.
      columns: f32[Q, W], applied to the rows, so that it mixes columns.
      image: f32[H, W, C].

    Returns:
      f32[P, Q, C].
    """
    exact = jax.lax.Precision.HIGHEST  # accelerators would round to 8 or 10 bits
    return jnp.einsum("ph,hwc,qw->pqc", rows, image, columns, precision=exact)


def apply_sum(rows: np.ndarray, columns: np.ndarray, image: jax.Array) -> jax.Array:
    """Sums `apply` over pairs of matrices.

    Args:
      rows: f32[terms, H, H].
      columns: f32[terms, W, W].
      image: f32[H, W, C].

    Returns:
      f32[H, W, C].
    """

    def add(total: jax.Array, pair: tuple) -> tuple:
        return total + apply(*pair, image), None

    return jax.lax.scan(add, jnp.zeros_like(image), (rows, columns))[0]


def bilinear(
    image: jax.Array, rows: jax.Array, columns: jax.Array, *, border: str
) -> jax.Array:
    """Reads an image at any positions, by linear interpolation.

    TPUs read memory at computed places one pixel at a time, so that there the reads are
    matrix products. Both forms agree to rounding.

    Args:
      image: f32[H, W, C].
      rows: f32[P, Q], vertical positions, in pixels.
      columns: f32[P, Q], horizontal positions, in pixels.
      border: "nearest", "reflect" or "mirror", see the top of this file.

    Returns:
      f32[P, Q, C].
    """
    return jax.lax.platform_dependent(
        image,
        rows,
        columns,
        tpu=functools.partial(bilinear_by_products, border=border),
        default=functools.partial(bilinear_by_reads, border=border),
    )


def bilinear_by_reads(
    image: jax.Array, rows: jax.Array, columns: jax.Array, *, border: str
) -> jax.Array:
    """Returns `bilinear`, from the four pixels around each position."""
    height, width, channels = image.shape
    pixels = image.reshape(height * width, channels)
    top, left = (jnp.floor(place).astype(jnp.int32) for place in (rows, columns))
    down = (rows - top.astype(rows.dtype))[..., None]
    right = (columns - left.astype(columns.dtype))[..., None]

    def read(i: int, j: int) -> jax.Array:
        row = fold(top + i, height, border=border)
        column = fold(left + j, width, border=border)
        return pixels[row * width + column]

    upper = read(0, 0) * (1 - right) + read(0, 1) * right
    lower = read(1, 0) * (1 - right) + read(1, 1) * right
    return upper * (1 - down) + lower * down


def bilinear_by_products(
    image: jax.Array, rows: jax.Array, columns: jax.Array, *, border: str
) -> jax.Array:
    """Returns `bilinear`, from products with matrices of interpolation weights."""
    height, width, channels = image.shape
    row_weights = _interpolation(rows.ravel(), height, border=border)
    column_weights = _interpolation(columns.ravel(), width, border=border)
    planes = [
        _weighted(image[..., channel], row_weights, column_weights)
        for channel in range(channels)
    ]
    return jnp.stack(planes, axis=-1).reshape(*rows.shape, channels)


def _interpolation(place: jax.Array, size: int, *, border: str) -> jax.Array:
    """Returns the weights of the pixels of a line, for each position along it.

    Args:
      place: f32[n], positions, in pixels.
      size: Number of pixels of the line.
      border: "nearest", "reflect" or "mirror", see the top of this file.

    Returns:
      f32[n, size]; the weights of a position sum to one.
    """
    # Folding a position, and not the two pixels around it, leaves a single number from
    # which XLA computes the weights where they are used, and does not store them.
    last = size - 1
    if border == "mirror":
        place = last - jnp.abs(place % max(2 * last, 1) - last)
    elif border == "reflect":
        place = size - 0.5 - jnp.abs((place + 0.5) % (2 * size) - size)
    place = place.clip(0, last)
    pixel = jnp.arange(size, dtype=place.dtype)
    return jnp.maximum(1 - jnp.abs(place[:, None] - pixel[None]), 0)


def entries(table: np.ndarray, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Reads entries of a table, on TPUs by matrix products as `bilinear` does.

    Args:
      table: f32[P, Q].
      rows: i32[n] in [0, P).
      columns: i32[n] in [0, Q).

    Returns:
      f32[n], exact on all devices.
    """
    return jax.lax.platform_dependent(
        jnp.asarray(table),
        rows,
        columns,
        tpu=entries_by_products,
        default=lambda table, rows, columns: table[rows, columns],
    )


def entries_by_products(
    table: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Returns `entries`, from products with matrices of zeros and ones."""
    row_weights, column_weights = (
        jax.nn.one_hot(index, size, dtype=table.dtype)
        for index, size in zip((rows, columns), table.shape, strict=True)
    )
    return _weighted(table, row_weights, column_weights)


def _weighted(
    plane: jax.Array, row_weights: jax.Array, column_weights: jax.Array
) -> jax.Array:
    """Returns sums of a plane, each with its own weights of rows and of columns.

    Args:
      plane: f32[P, Q].
      row_weights: f32[n, P].
      column_weights: f32[n, Q].

    Returns:
      f32[n].
    """
    # XLA fuses the product with the sum that follows, so that the n weighted sums of
    # rows, f32[n, Q], are never stored. It does not for several planes at once.
    exact = jax.lax.Precision.HIGHEST  # accelerators would round to 8 bits
    lines = jnp.matmul(row_weights, plane, precision=exact)
    return (column_weights * lines).sum(axis=-1)
