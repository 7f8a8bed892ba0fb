"""Augmentation and normalisation on the device: pure functions of (key, images).

Contract of this file: raw images are u8[B, H, W, C]; normalised ones are f32.
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
      mean: Per channel, in [0, 1].
      std: Per channel, positive.

    Returns:
      f32[..., C].
    """
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (mean, std))
    return (images.astype(jnp.float32) / 255 - mean) / std


def random_crop(key: jax.Array, images: jax.Array, *, pad: int = 4) -> jax.Array:
    """Shifts each image by up to `pad` pixels, black coming in at the borders.

    Args:
      key: Key.
      images: [B, H, W, C], any dtype.
      pad: Largest shift, in pixels.

    Returns:
      As `images`.
    """
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * pad + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half; as `images`."""
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def crop_and_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """The paper's augmentation for CIFAR: a crop from 4 pixels of padding, a flip."""
    crop_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, random_crop(crop_key, images))


def preparation(
    normalize: Callable[[jax.Array], jax.Array], *, augment: bool
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns `prepare(key, images)` for training: augments or not, and normalises."""

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        return normalize(crop_and_flip(key, images) if augment else images)

    return prepare
