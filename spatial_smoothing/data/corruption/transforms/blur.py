"""Blurs: out of focus, through frosted glass, in motion, zooming, Gaussian.

Contract of this file: functions of (key, image f32[H, H, C] in [0, 1] with values of 8
bits, constants) to an image that the caller clips to [0, 1]. Lengths are in pixels.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import draws, linear


def gaussian_blur(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    """Blurs by a Gaussian that is cut off at four standard deviations.

    Args:
      key: Not used.
      image: f32[H, H, C] in [0, 1].
      sigma: Standard deviation, in pixels.
    """
    del key
    return _gaussian(image, sigma)


def _gaussian(image: jax.Array, sigma: float) -> jax.Array:
    size = image.shape[0]
    matrix = linear.gaussian(size, sigma, border="nearest", truncate=4.0)
    return linear.apply(matrix, matrix, image)


def defocus_blur(
    key: jax.Array, image: jax.Array, radius: float, alias_sigma: float
) -> jax.Array:
    """Blurs by a disc whose edge is smoothed by a Gaussian.

    Args:
      key: Not used.
      image: f32[H, H, C] in [0, 1].
      radius: Radius of the disc, in pixels.
      alias_sigma: Standard deviation of the Gaussian, in pixels.
    """
    del key
    kernel = disc(radius, alias_sigma)
    return linear.apply_sum(
        *linear.kernel(image.shape[0], kernel, border="mirror"), image
    )


def disc(radius: float, alias_sigma: float) -> np.ndarray:
    """Returns the kernel of `defocus_blur`, [K, K] with sum one."""
    reach, smoothing = (8, 1) if radius <= 8 else (int(radius), 2)
    grid = np.arange(-reach, reach + 1)
    inside = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(float)
    taps = linear.gaussian_taps(alias_sigma, smoothing)
    matrix = linear.correlation(len(grid), taps, border="mirror")
    return matrix @ (inside / inside.sum()) @ matrix.T


def zoom_blur(key: jax.Array, image: jax.Array, step: float, count: int) -> jax.Array:
    """Averages the image and its magnifications by 1 + i * step, i = 0..count - 1.

    Args:
      key: Not used.
      image: f32[H, H, C] in [0, 1].
      step: Difference between two magnifications.
      count: Number of magnifications.
    """
    del key
    # By arange, as in the published code: its rounding decides, in the last bit, about
    # the size of a magnification.
    factors = np.arange(1, 1 + (count - 0.5) * step, step)
    matrices = np.stack([linear.zoom(image.shape[0], factor) for factor in factors])
    return (image + linear.apply_sum(matrices, matrices, image)) / (count + 1)


def motion_blur(
    key: jax.Array, image: jax.Array, radius: int, sigma: float
) -> jax.Array:
    """Blurs along a line at most 45 degrees off the horizontal.

    Args:
      key: Key that draws the angle, uniform in [-45, 45) degrees.
      image: f32[H, H, C] in [0, 1].
      radius: Half the length of the line, in pixels.
      sigma: Standard deviation of the weights along the line, in pixels.
    """
    angle = draws.uniform(key, (), low=-45.0, high=45.0)
    return streak(image, angle, radius, sigma)


def streak(image: jax.Array, angle: jax.Array, radius: int, sigma: float) -> jax.Array:
    """Blurs to one side along a line, as ImageMagick's motion blur does.

    out(p) = sum_i w_i image(p + ceil(i (sin a, cos a) - 1/2)), w_i ~ exp(-i^2 / 2
    sigma^2), i = 0..2 radius, edges replicated.

    Args:
      image: f32[H, W, C] in [0, 1].
      angle: f32[], in degrees; 0 reads to the right, 90 downward.
      radius: Half the length of the line, in pixels.
      sigma: Standard deviation of the weights, in pixels.

    Returns:
      f32[H, W, C], rounded to 8 bits.
    """
    reach = 2 * radius
    along = np.arange(reach + 1)
    weights = np.exp(-0.5 * (along / sigma) ** 2)
    weights = np.float32(weights / weights.sum())
    along = np.float32(along)
    radians = jnp.deg2rad(angle)
    direction = jnp.stack([jnp.sin(radians), jnp.cos(radians)])
    shifts = jnp.ceil(along[:, None] * direction[None] - 0.5).astype(jnp.int32)
    pad = (reach, reach)
    padded = jnp.pad(image, (pad, pad, (0, 0)), mode="edge")

    def add(total: jax.Array, tap: tuple) -> tuple:
        weight, (down, right) = tap
        start = (reach + down, reach + right, jnp.int32(0))
        part = jax.lax.dynamic_slice(padded, start, image.shape)
        return total + weight * part, None

    blurred = jax.lax.scan(add, jnp.zeros_like(image), (weights, shifts))[0]
    return jnp.round(255 * blurred) / 255


def glass_blur(
    key: jax.Array, image: jax.Array, sigma: float, delta: int, iterations: int
) -> jax.Array:
    """Blurs, lets pixels take the colour of a random one nearby, and blurs again.

    Args:
      key: Key of the random offsets.
      image: f32[H, H, C] in [0, 1].
      sigma: Standard deviation of both blurs, in pixels.
      delta: Offsets are in [-delta, delta) pixels, in both directions.
      iterations: How often pixels take the colour of another one.
    """
    blurred = jnp.floor(255 * _gaussian(image, sigma) + 1e-4)
    # Levels of 8 bits take a quarter of the memory of f32.
    pixels = blurred.astype(jnp.uint8)
    for each_key in jax.random.split(key, iterations):
        moves = glass_moves(each_key, image.shape[0], delta)
        # TPUs read memory at computed places one pixel at a time.
        pixels = jax.lax.platform_dependent(
            pixels,
            moves,
            tpu=functools.partial(copy_by_shifts, delta=delta),
            default=copy_by_reads,
        )
    return _gaussian(pixels.astype(image.dtype) / 255, sigma)


def glass_moves(key: jax.Array, size: int, delta: int) -> jax.Array:
    """Returns the offset of the pixel that each pixel copies.

    Args:
      key: Key of the random offsets.
      size: Height and width of the image, in pixels.
      delta: Offsets are in [-delta, delta) pixels, in both directions.

    Returns:
      i32[2, size, size], offsets down and to the right; 0 near the borders, where
      pixels keep their colour.
    """
    offsets = draws.uniform(key, (2, size, size), low=-delta, high=delta)
    line = jnp.arange(size, dtype=jnp.int32)
    visited = (line > delta) & (line <= size - delta)
    visited = visited[:, None] & visited[None]
    return jnp.where(visited[None], jnp.floor(offsets).astype(jnp.int32), 0)


def copy_by_reads(pixels: jax.Array, moves: jax.Array) -> jax.Array:
    """Lets each pixel take the colour of another one.

    The definition visits the pixels in order, last row and last column first. Where the
    other pixel was visited before, it already has the colour of a third one: such
    chains are followed to their end, doubling the stride, instead of visiting pixel
    after pixel.

    Args:
      pixels: u8[H, H, C].
      moves: i32[2, H, H], as `glass_moves` returns them.

    Returns:
      u8[H, H, C].
    """
    height, width, channels = pixels.shape
    here = jnp.arange(height * width, dtype=jnp.int32)
    target = here + (moves[0] * width + moves[1]).ravel()
    # These targets were visited before, because the visits run from the end.
    chained = target > here

    def follow(state: tuple) -> tuple:
        target, chained = state
        return jnp.where(chained, target[target], target), chained & chained[target]

    target, _ = jax.lax.while_loop(
        lambda state: state[1].any(), follow, (target, chained)
    )
    return pixels.reshape(-1, channels)[target].reshape(pixels.shape)


def copy_by_shifts(pixels: jax.Array, moves: jax.Array, *, delta: int) -> jax.Array:
    """Returns what `copy_by_reads` returns, by choices among shifted images.

    All pixels copy at once, again and again, until nothing changes any more: a colour
    that comes over a chain of n copies is right after n rounds.

    Args:
      pixels: u8[H, H, C].
      moves: i32[2, H, H], as `glass_moves` returns them.
      delta: Offsets are in [-delta, delta).

    Returns:
      u8[H, H, C].
    """
    height, width, _ = pixels.shape

    def copy(start: jax.Array, source: jax.Array, offsets: Sequence) -> jax.Array:
        padded = jnp.pad(source, ((delta, delta), (delta, delta), (0, 0)))
        for down, right in offsets:
            top, left = delta + down, delta + right
            shifted = padded[top : top + height, left : left + width]
            chosen = (moves[0] == down) & (moves[1] == right)
            start = jnp.where(chosen[..., None], shifted, start)
        return start

    offsets = [*itertools.product(range(-delta, delta), repeat=2)]
    # A pixel further down, or further right in this row, was visited before and may
    # have another colour by then. All others are copied as they are.
    before = [offset for offset in offsets if offset > (0, 0)]
    first = copy(pixels, pixels, [offset for offset in offsets if offset < (0, 0)])
    if not before:
        return first

    def again(state: tuple) -> tuple:
        pixels, _ = state
        copied = copy(first, pixels, before)
        return copied, (copied != pixels).any()

    start = first, jnp.array(True)
    return jax.lax.while_loop(lambda state: state[1], again, start)[0]
