"""Crops, flips and normalises batches on the device: functions of (key, images).

Contract of this file: raw images are u8[B, H, W, C]; normalised ones are f32. Images of
ImageNet and of folders are cropped and flipped while they are decoded, by
`images/decoding.py`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def normalize(
    images: jax.Array, *, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Scales to [0, 1], then to zero mean and unit deviation per channel.

    Args:
      images: u8[..., C].
      mean: Mean of each channel, in [0, 1].
      std: Standard deviation of each channel, positive, of values in [0, 1].

    Returns:
      f32[..., C].
    """
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (mean, std))
    return (images.astype(jnp.float32) / 255 - mean) / std


def random_crop(key: jax.Array, images: jax.Array, *, pad: int = 4) -> jax.Array:
    """Shifts each image by up to `pad` pixels, black coming in at the borders.

    Args:
      key: Key of the shifts.
      images: [B, H, W, C], of any type.
      pad: Largest shift in each direction, in pixels.

    Returns:
      [B, H, W, C], of the type of `images`.
    """
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # The type is given, so that JAX_ENABLE_X64 does not change what is drawn.
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * pad + 1, jnp.int32)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], jnp.int32(0))
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half.

    Args:
      key: Key that draws which images are mirrored.
      images: [B, H, W, C], of any type.

    Returns:
      [B, H, W, C], of the type of `images`.
    """
    # In float32: bernoulli draws in the type of the probability, which JAX_ENABLE_X64
    # would make another one.
    half, shape = jnp.float32(0.5), (images.shape[0], 1, 1, 1)
    flip = jax.random.bernoulli(key, half, shape)
    return jnp.where(flip, images[:, :, ::-1], images)


def crop_and_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Augments as the paper does on CIFAR: a crop from 4 pixels of padding, a flip.

    Args:
      key: Key of the crops and flips.
      images: [B, H, W, C], of any type.

    Returns:
      [B, H, W, C], of the type of `images`.
    """
    crop_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, random_crop(crop_key, images))


def preparation(
    normalize: Callable[[jax.Array], jax.Array], *, augment: bool
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns what training does with a batch of images before the network sees it.

    Args:
      normalize: u8[B, H, W, C] -> f32[B, H, W, C].
      augment: Whether images are cropped and flipped at random before.

    Returns:
      `prepare(key, images)`: u8[B, H, W, C] -> f32[B, H, W, C].
    """

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        return normalize(crop_and_flip(key, images) if augment else images)

    return prepare
