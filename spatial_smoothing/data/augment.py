"""Crops, flips and normalises batches on the device: functions of (key, images).

For segmentation, images and labels are cropped, scaled and flipped together.

Contract of this file: raw images are u8[B, H, W, C]; normalised ones are f32. Images of
ImageNet and of folders are cropped and flipped while they are decoded, by
`images/decoding.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from spatial_smoothing.data.batches import Batch

# Least and largest factor by which images and labels of segmentation are scaled.
SCALES = (0.75, 1.5)


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


def joint_scale_crop_flip(
    key: jax.Array, batch: Batch, *, scales: tuple[float, float] = SCALES
) -> Batch:
    """Scales, crops and flips images and the labels of their pixels alike.

    Each image is scaled by a factor whose logarithm is uniform. Of a larger one a crop
    of the size of the image is taken, at a random place; a smaller one is put at a
    random place, with black around it, which no pixel of the mask covers. One half is
    mirrored left to right. Images are interpolated linearly between pixels, labels and
    mask take the nearest pixel.

    Args:
      key: Key of scales, places and flips.
      batch: `image` u8[B, H, W, C], `label` i32[B, H, W] and `mask` bool[B, H, W].
      scales: Least and largest factor, above 0.

    Returns:
      A batch of the same shapes, whose images are f32 in 0 to 255.
    """
    count, height, width = batch["label"].shape
    keys = jax.random.split(key, 3)
    # The type is given, so that JAX_ENABLE_X64 does not change what is drawn.
    uniform = functools.partial(jax.random.uniform, dtype=jnp.float32)
    low, high = jnp.log(jnp.asarray(scales, jnp.float32))
    scale = jnp.exp(uniform(keys[0], (count,), minval=low, maxval=high))
    place = uniform(keys[1], (count, 2))
    flip = jax.random.bernoulli(keys[2], jnp.float32(0.5), (count,))

    def transform(image, label, mask, scale, place, flip):
        # Where the centre of each row and column of the result is in the image.
        rows = _positions(height, scale, place[0])
        columns = _positions(width, scale, place[1])
        columns = jnp.where(flip, columns[::-1], columns)
        image = _interpolated(image.astype(jnp.float32), rows, axis=0)
        image = _interpolated(image, columns, axis=1)
        inside = _inside(rows, height)[:, None] & _inside(columns, width)[None]
        near_rows, near_columns = _nearest(rows, height), _nearest(columns, width)
        return (
            jnp.where(inside[..., None], image, 0),
            jnp.where(inside, label[near_rows][:, near_columns], 0),
            inside & mask[near_rows][:, near_columns],
        )

    image, label, mask = jax.vmap(transform)(
        batch["image"], batch["label"], batch["mask"], scale, place, flip
    )
    return {**batch, "image": image, "label": label, "mask": mask}


def _positions(size: int, scale: jax.Array, place: jax.Array) -> jax.Array:
    """Returns where the pixels of a scaled axis were, f32[size], in pixels.

    Args:
      size: Length of the axis, before and after.
      scale: f32[], factor by which it is scaled.
      place: f32[] in [0, 1], from the first to the last place of the crop.
    """
    # The result shows size / scale pixels. Of a smaller image that is more than there
    # are, and the beginning is before the first one.
    begin = place * (size - size / scale)
    return begin + (jnp.arange(size, dtype=jnp.float32) + 0.5) / scale - 0.5


def _inside(positions: jax.Array, size: int) -> jax.Array:
    """Whether positions are in a pixel of an axis of this size."""
    return (positions >= -0.5) & (positions < size - 0.5)


def _nearest(positions: jax.Array, size: int) -> jax.Array:
    """Returns the pixels that positions are in, i32[...]; ends are repeated."""
    return jnp.clip(jnp.floor(positions + 0.5).astype(jnp.int32), 0, size - 1)


def _interpolated(image: jax.Array, positions: jax.Array, *, axis: int) -> jax.Array:
    """Interpolates an image linearly at positions of an axis; ends are repeated."""
    last = image.shape[axis] - 1
    positions = jnp.clip(positions, 0, last)
    before = jnp.floor(positions)
    share = positions - before
    before = before.astype(jnp.int32)
    after = jnp.minimum(before + 1, last)
    shape = [1] * image.ndim
    shape[axis] = -1
    share = share.reshape(shape)
    low, high = (jnp.take(image, index, axis=axis) for index in (before, after))
    return low * (1 - share) + high * share


@dataclasses.dataclass(frozen=True)
class JointPreparation:
    """What training does with a batch of segmentation before the network sees it.

    Attributes:
      normalize: f32[B, H, W, C] in 0 to 255 -> f32[B, H, W, C].
      augment: Whether images and labels are scaled, cropped and flipped before.
      class_weights: Weight of the loss of a pixel by its class, K numbers of at least
        0; None where all count the same.
    """

    normalize: Callable[[jax.Array], jax.Array]
    augment: bool
    class_weights: tuple[float, ...] | None = None

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        """Returns the batch with `image` normalised and, of weighted classes, `weight`.

        Args:
          key: Key of the augmentation.
          batch: `image` u8[B, H, W, C], `label` i32[B, H, W] and `mask` bool[B, H, W].
        """
        if self.augment:
            batch = joint_scale_crop_flip(key, batch)
        batch = {**batch, "image": self.normalize(batch["image"])}
        if self.class_weights is not None:
            weights = jnp.asarray(self.class_weights, jnp.float32)
            batch["weight"] = weights[batch["label"]]
        return batch
