"""Batches: their order, padding and mask, on the device and on the host.

Contract of this file: a batch is `{"image": u8[B, H, W, C], "label": i32[B], "mask":
bool[B]}`; of segmentation, labels and mask are [B, H, W], see `segmentation.sets`. The
last batch of a pass is padded to full size with examples whose mask is False; it is
never dropped. The order is a pure function of (key, epoch).
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Batch = dict[str, jax.Array]
# Label of a pixel without a class, outside of batches, where labels of pixels are u8.
VOID = 255


def num_batches(num_examples: int, batch_size: int) -> int:
    """Returns the number of batches of a pass, the last short one included.

    Args:
      num_examples: N, number of examples of the pass.
      batch_size: B, number of examples of a batch.
    """
    return -(-num_examples // batch_size)


def epoch_order(key: jax.Array, epoch: jax.Array, num_examples: int) -> jax.Array:
    """Returns the order of examples in an epoch.

    Args:
      key: Key of the run's data.
      epoch: i32[], number of the epoch.
      num_examples: N.

    Returns:
      i32[N], a permutation of 0 to N - 1.
    """
    numbers = jnp.arange(num_examples, dtype=jnp.int32)
    return jax.random.permutation(jax.random.fold_in(key, epoch), numbers)


def take(
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    index: jax.Array,
    *,
    batch_size: int,
) -> Batch:
    """Takes batch number `index` of a pass in the given order.

    Args:
      images: u8[N, H, W, C], or flat, u8[N, H W C], as the batch then is.
      labels: i32[N].
      order: i32[M], numbers of the examples of the pass.
      index: i32[], number of the batch, in [0, num_batches(M, batch_size)).
      batch_size: B, number of examples of a batch.

    Returns:
      A batch of B examples; padding repeats the last one.
    """
    start = jnp.asarray(index, jnp.int32) * batch_size
    positions = start + jnp.arange(batch_size, dtype=jnp.int32)
    mask = positions < order.shape[0]
    chosen = order[jnp.minimum(positions, order.shape[0] - 1)]
    return {"image": images[chosen], "label": labels[chosen], "mask": mask}


def with_pixel_mask(batch: Batch, label_shape: Sequence[int]) -> Batch:
    """Returns a batch of segmentation, given one whose labels are flat bytes.

    Args:
      batch: `label` u8[B, H W], `VOID` where a pixel has no class; `mask` bool[B].
      label_shape: (H, W).

    Returns:
      The batch with `label` i32[B, H, W], 0 where a pixel has no class, and `mask`
      bool[B, H, W], False there and in padding.
    """
    labels = batch["label"].reshape(-1, *label_shape)
    has_class = labels != VOID
    return {
        **batch,
        "label": jnp.where(has_class, labels, 0).astype(jnp.int32),
        "mask": has_class & batch["mask"][:, None, None],
    }


def image_mask(mask: jax.Array) -> jax.Array:
    """Returns which images of a batch are not padding, bool[B].

    Args:
      mask: bool[B], or of segmentation bool[B, H, W]. An image counts if any of its
        pixels does; void pixels do not exclude their image.
    """
    return mask if mask.ndim == 1 else mask.any(tuple(range(1, mask.ndim)))


def sequential(
    images: np.ndarray, labels: np.ndarray, *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields all examples in order, from the host; the last batch is padded.

    Args:
      images: [N, H, W, C], of any type.
      labels: i32[N].
      batch_size: B, number of examples of a batch.
    """
    size = len(labels)
    for start in range(0, size, batch_size):
        positions = np.arange(start, start + batch_size)
        chosen = np.minimum(positions, size - 1)
        yield {
            "image": images[chosen],
            "label": labels[chosen],
            "mask": positions < size,
        }
