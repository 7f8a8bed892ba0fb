"""Spatter: drops of water or splashes of mud on the lens.

Contract of this file: images are f32[H, H, 3] in [0, 1], layers f32[H, H]. The steps
for water are those of OpenCV: edges by Canny, distance transform, mean filters,
histogram equalisation.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import draws, linear

_WATER = np.array([175, 238, 238], np.float32) / 255  # RGB
_MUD = np.array([63, 42, 20], np.float32) / 255
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_ONES = ((1, 1, 1), (1, 1, 1), (1, 1, 1))
_FARTHEST = 20  # distances are cut off there, in pixels
_PIXEL = 1 << 16  # a pixel in the units of distances


def spatter(
    key: jax.Array,
    image: jax.Array,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> jax.Array:
    """Adds drops of water, or splashes of mud.

    Args:
      key: Key of the noise that becomes liquid.
      image: f32[H, H, 3] in [0, 1].
      mean: Mean of the normal noise.
      std: Standard deviation of the normal noise.
      sigma: Standard deviation of the Gaussian that smooths the noise, in pixels.
      threshold: Smoothed noise below it leaves the pixel dry.
      strength: For water, its opacity in [0, 1]; for mud, the standard deviation of the
        Gaussian that blurs its edge, in pixels.
      mud: Whether the liquid is mud; else it is water.
    """
    layer = liquid_layer(key, image.shape[0], mean, std, sigma, threshold)
    if not mud:
        return water(image, layer, strength)
    cover = _gaussian((layer > threshold).astype(image.dtype), strength)
    cover = jnp.where(cover < 0.8, 0, cover)[..., None]
    return image * (1 - cover) + cover * _MUD[None, None]


def liquid_layer(
    key: jax.Array, size: int, mean: float, std: float, sigma: float, threshold: float
) -> jax.Array:
    """Returns smooth noise, 0 where it is below the threshold.

    Args:
      key: Key of the noise.
      size: Height and width, in pixels.
      mean: Mean of the normal noise.
      std: Standard deviation of the normal noise.
      sigma: Standard deviation of the Gaussian that smooths the noise, in pixels.
      threshold: Values below it become 0.

    Returns:
      f32[size, size].
    """
    layer = mean + std * draws.normal(key, (size, size))
    layer = _gaussian(layer, sigma)
    return jnp.where(layer < threshold, 0, layer)


def _gaussian(layer: jax.Array, sigma: float) -> jax.Array:
    matrix = linear.gaussian(layer.shape[0], sigma, border="nearest", truncate=4.0)
    return linear.apply(matrix, matrix, layer[..., None])[..., 0]


def water(image: jax.Array, layer: jax.Array, strength: float) -> jax.Array:
    """Adds water where the layer is not 0, lit from one side.

    Args:
      image: f32[H, H, 3] in [0, 1].
      layer: f32[H, H], as `liquid_layer` makes it.
      strength: Opacity of the water, in [0, 1].
    """
    layer = jnp.floor(255 * layer).astype(jnp.int32) & 255  # above 1 it wraps around
    drops = layer * _relief(layer)
    highest = jnp.maximum(drops.max(), 1)
    opacity = strength * drops.astype(image.dtype) / highest.astype(image.dtype)
    return image + opacity[..., None] * _WATER[None, None]


def _relief(layer: jax.Array) -> jax.Array:
    """Returns the light on the drops, i32[H, H] in [0, 255], from 8-bit levels."""
    distance = chamfer_distance(canny(layer, low=50, high=150))
    levels = _equalize(_neighbourhood(distance, _ONES) // (9 * _PIXEL))
    levels = jnp.clip(_neighbourhood(levels, _EMBOSS), 0, 255)
    return (2 * _neighbourhood(levels, _ONES) + 9) // 18


def _neighbourhood(image: jax.Array, kernel: Sequence) -> jax.Array:
    """Correlates with a 3x3 kernel, borders mirrored about the outermost pixels."""
    views = _neighbours(image, 1, mode="reflect")
    return sum(kernel[i + 1][j + 1] * view for (i, j), view in views.items())


def _neighbours(
    image: jax.Array, reach: int, *, mode: str, **options
) -> dict[tuple[int, int], jax.Array]:
    """Returns the image shifted by all offsets within `reach` pixels.

    Args:
      image: [H, W].
      reach: Largest offset in each direction, in pixels.
      mode: How `jnp.pad` continues the image beyond its borders.
      **options: Options of `jnp.pad`.

    Returns:
      Offset (rows, columns) -> [H, W], the pixels so many rows and columns further.
    """
    height, width = image.shape
    padded = jnp.pad(image, reach, mode=mode, **options)
    offsets = range(-reach, reach + 1)
    return {
        (i, j): padded[reach + i : reach + i + height, reach + j : reach + j + width]
        for i, j in itertools.product(offsets, offsets)
    }


def canny(layer: jax.Array, *, low: int, high: int) -> jax.Array:
    """Returns the edges of an image, by the algorithm of Canny as OpenCV has it.

    Edges are ridges of the L1 norm of the gradient (Sobel, 3x3) above `low` that are
    connected to a ridge above `high`. The angle is compared with 22.5 and 67.5 degrees
    in steps of 2^-15.

    Args:
      layer: i32[H, W] in [0, 255].
      low: Norm above which a ridge continues an edge.
      high: Norm above which a ridge begins an edge.

    Returns:
      bool[H, W].
    """
    at = _neighbours(layer, 1, mode="edge")
    right = at[-1, 1] + 2 * at[0, 1] + at[1, 1]
    right -= at[-1, -1] + 2 * at[0, -1] + at[1, -1]
    down = at[1, -1] + 2 * at[1, 0] + at[1, 1]
    down -= at[-1, -1] + 2 * at[-1, 0] + at[-1, 1]
    norm = jnp.abs(right) + jnp.abs(down)
    near = _neighbours(norm, 1, mode="constant")
    # A pixel is on a ridge if its norm exceeds that of its two neighbours across the
    # edge: along the diagonal, or, where the gradient is steep or flat, along an axis.
    flat = 13573 * jnp.abs(right)  # 2^15 tan(22.5 degrees)
    steep = flat + (jnp.abs(right) << 16)
    slope = jnp.abs(down) << 15
    across = jnp.where(
        (right ^ down) < 0,
        (norm > near[-1, 1]) & (norm > near[1, -1]),
        (norm > near[-1, -1]) & (norm > near[1, 1]),
    )
    across = jnp.where(
        slope > steep, (norm > near[-1, 0]) & (norm >= near[1, 0]), across
    )
    across = jnp.where(
        slope < flat, (norm > near[0, -1]) & (norm >= near[0, 1]), across
    )
    ridge = across & (norm > low)

    def grow(state: tuple) -> tuple:
        edges, _ = state
        views = _neighbours(edges, 1, mode="constant").values()
        grown = ridge & jnp.stack([*views]).any(axis=0)
        return grown, (grown != edges).any()

    edges = ridge & (norm > high)
    return jax.lax.while_loop(lambda state: state[1], grow, (edges, edges.any()))[0]


def chamfer_distance(edges: jax.Array) -> jax.Array:
    """Returns the distance to the nearest edge in 2^-16 pixels, i32[H, W], at most 20.

    Paths are made of steps to a neighbour (1), a diagonal one (1.4) and a knight's move
    (2.1969), as in OpenCV's transform with a 5x5 mask.

    Args:
      edges: bool[H, W].
    """
    costs = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
    costs = {move: round(cost * _PIXEL) for move, cost in costs.items()}

    def relax(_: int, distance: jax.Array) -> jax.Array:
        views = _neighbours(distance, 2, mode="constant", constant_values=farthest)
        for (i, j), view in views.items():
            cost = costs.get((min(abs(i), abs(j)), max(abs(i), abs(j))))
            if cost:
                distance = jnp.minimum(distance, view + cost)
        return distance

    farthest = _FARTHEST * _PIXEL
    start = jnp.where(edges, 0, farthest).astype(jnp.int32)
    return jax.lax.fori_loop(0, _FARTHEST, relax, start)


def _equalize(levels: jax.Array) -> jax.Array:
    """Equalises the histogram of i32[H, W] in [0, 20] to [0, 255]."""
    bins = jnp.arange(_FARTHEST + 1, dtype=jnp.int32)
    reached = levels[..., None] >= bins[None, None]
    counts = (levels[..., None] == bins[None, None]).sum(axis=(0, 1), dtype=jnp.int32)
    # As OpenCV does, without the pixels of the lowest level, which become 0.
    counts = jnp.where(bins <= levels.min(), 0, counts)
    below = jnp.where(reached, counts[None, None], 0).sum(axis=-1, dtype=jnp.int32)
    total = counts.sum(dtype=jnp.int32)
    scale = 255 / jnp.maximum(total, 1).astype(jnp.float32)
    scaled = jnp.round(below.astype(jnp.float32) * scale)
    return jnp.where(total == 0, levels, scaled.astype(jnp.int32))
