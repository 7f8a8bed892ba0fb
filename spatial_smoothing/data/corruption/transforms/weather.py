"""Weather: snow, frost, fog, a brighter day.

Contract of this file: functions of (key, image f32[H, H, 3] in [0, 1], constants) to an
image that the caller clips to [0, 1].
"""

import jax
import jax.numpy as jnp

from spatial_smoothing.data.corruption.transforms import (
    blur,
    draws,
    frost_textures,
    linear,
)


def snow(
    key: jax.Array,
    image: jax.Array,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> jax.Array:
    """Whitens the image and adds streaks of snow, once upright and once upside down.

    Args:
      key: Key of the noise that becomes snow, and of the angle of its streaks.
      image: f32[H, H, 3] in [0, 1].
      mean: Mean of the normal noise.
      std: Standard deviation of the normal noise.
      zoom: Magnification of the noise, at least 1.
      threshold: Noise below it is no snow.
      radius: Radius of the motion blur, see `blur.streak`, in pixels.
      sigma: Standard deviation of the motion blur, in pixels.
      keep: Share of the image that is not whitened, in [0, 1].
    """
    layer_key, angle_key = jax.random.split(key)
    layer = snow_layer(layer_key, image.shape[0], mean, std, zoom, threshold)
    angle = draws.uniform(angle_key, (), low=-135.0, high=-45.0)
    return snowfall(image, blur.streak(layer, angle, radius, sigma), keep)


def snow_layer(
    key: jax.Array, size: int, mean: float, std: float, zoom: float, threshold: float
) -> jax.Array:
    """Returns the flakes of snow, before the motion blur.

    Args:
      key: Key of the noise that becomes snow.
      size: Height and width, in pixels.
      mean: Mean of the normal noise.
      std: Standard deviation of the normal noise.
      zoom: Magnification of the noise, at least 1.
      threshold: Noise below it is no snow.

    Returns:
      f32[size, size, 1] in [0, 1], multiples of 1/255.
    """
    layer = mean + std * draws.normal(key, (size, size, 1))
    matrix = linear.zoom(size, zoom)
    layer = linear.apply(matrix, matrix, layer)
    layer = jnp.where(layer < threshold, 0, layer).clip(0, 1)
    return jnp.floor(255 * layer + 1e-4) / 255


def snowfall(image: jax.Array, layer: jax.Array, keep: float) -> jax.Array:
    """Adds snow to a whitened image, once upright and once upside down.

    Args:
      image: f32[H, H, 3] in [0, 1].
      layer: f32[H, H, 1] in [0, 1], the snow.
      keep: Share of the image that is not whitened, in [0, 1].
    """
    grey = image @ jnp.array([[0.299], [0.587], [0.114]], image.dtype)
    white = jnp.maximum(image, 1.5 * grey + 0.5)
    return keep * image + (1 - keep) * white + layer + layer[::-1, ::-1]


def frost(
    key: jax.Array,
    image: jax.Array,
    image_weight: float,
    frost_weight: float,
    stride: int,
) -> jax.Array:
    """Adds a random part of one of five textures of frost.

    The definition takes photographs, which are not part of this package; these textures
    are drawn by rule.

    Args:
      key: Key that draws the texture and the part of it.
      image: f32[H, H, 3] in [0, 1].
      image_weight: Factor of the image in the sum.
      frost_weight: Factor of the texture in the sum.
      stride: Distance between the pixels of a texture that are read, in both
        directions.
    """
    size = image.shape[0]
    textures = frost_textures.textures()[
        :, stride // 2 :: stride, stride // 2 :: stride
    ]
    count, height, width, _ = textures.shape
    if size >= min(height, width):
        raise ValueError(
            f"frost is made for images of less than {min(height, width)} pixels, "
            f"not {size}"
        )
    bounds = jnp.array([count, height - size, width - size], jnp.float32)
    drawn = jnp.floor(bounds * draws.uniform(key, (3,))).astype(jnp.int32)
    which, top, left = drawn
    start = (which, top, left, jnp.int32(0))
    part = jax.lax.dynamic_slice(textures, start, (1, size, size, 3))
    return image_weight * image + frost_weight * part[0].astype(image.dtype) / 255


def fog(key: jax.Array, image: jax.Array, amplitude: float, decay: float) -> jax.Array:
    """Adds a plasma fractal, and darkens so that the brightest value may stay.

    Args:
      key: Key of the fractal.
      image: f32[H, H, 3] in [0, 1].
      amplitude: Factor of the fractal, whose values reach from 0 to 1.
      decay: Quotient of the roughness at a scale and at the next finer one.
    """
    size, highest = image.shape[0], image.max()
    layer = plasma(key, 1 << (size - 1).bit_length(), decay)[:size, :size, None]
    return (image + amplitude * layer) * highest / (highest + amplitude)


def plasma(key: jax.Array, size: int, decay: float) -> jax.Array:
    """Returns a fractal from 0 to 1, by the diamond-square algorithm.

    The map wraps around. New points are the mean of their four neighbours and noise of
    amplitude 100^2, divided by `decay` at each finer step.

    Args:
      key: Key of the noise.
      size: Height and width, a power of two.
      decay: Quotient of the roughness at a scale and at the next finer one.

    Returns:
      f32[size, size] in [0, 1].
    """
    noise = draws.uniform(key, (size, size), low=-100.0, high=100.0)
    grid, step, roughness = jnp.zeros((1, 1), jnp.float32), size, 100.0
    while step >= 2:
        half = step // 2
        right, below = jnp.roll(grid, -1, axis=1), jnp.roll(grid, -1, axis=0)
        corners = grid + right + below + jnp.roll(right, -1, axis=0)
        centre = corners / 4 + roughness * noise[half::step, half::step]
        edge_right = grid + right + centre + jnp.roll(centre, 1, axis=0)
        edge_right = edge_right / 4 + roughness * noise[::step, half::step]
        edge_below = grid + below + centre + jnp.roll(centre, 1, axis=1)
        edge_below = edge_below / 4 + roughness * noise[half::step, ::step]
        grid = _interleave(
            _interleave(grid, edge_right, axis=1),
            _interleave(edge_below, centre, axis=1),
            axis=0,
        )
        step, roughness = half, roughness / decay
    grid = grid - grid.min()
    return grid / grid.max()


def _interleave(first: jax.Array, second: jax.Array, *, axis: int) -> jax.Array:
    """Puts rows (axis 0) or columns (axis 1) of two arrays in turn."""
    shape = [*first.shape]
    shape[axis] *= 2
    return jnp.stack([first, second], axis=axis + 1).reshape(shape)


def brightness(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Adds to the value of HSV, within [0, 1]; hue and saturation stay.

    RGB is proportional to the value, so that no conversion is needed.

    Args:
      key: Not used.
      image: f32[H, H, 3] in [0, 1].
      amount: Added to the value.
    """
    del key
    value = image.max(axis=-1, keepdims=True)
    brighter = jnp.clip(value + amount, 0, 1)
    black = value == 0
    return jnp.where(black, brighter, image * (brighter / jnp.where(black, 1, value)))
