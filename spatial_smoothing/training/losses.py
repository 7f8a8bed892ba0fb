"""The loss of a training step: a pure function of (variables, batch, key).

Contract of this file: batches are those of `data.batches`, augmented and normalised.
Only the examples in the mask count. Weight decay is no part of a loss; the optimiser
adds it to the gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing.data import batches
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.runtime import random_bits
from spatial_smoothing.training import freezing, objectives
from spatial_smoothing.training.objectives import PLAIN, StepOptions


class LossOutputs(NamedTuple):
    """What a training loss finds on the way.

    Attributes:
      logits: f32[B, K], or f32[B, H, W, K] of segmentation, predictions of the batch;
        of several samples of an example, the logarithm of their mean probabilities.
      batch_stats: Updated running statistics of batch normalisation, `{}` if none.
    """

    logits: jax.Array
    batch_stats: dict[str, Any]


def training_loss(
    model: nn.Module,
    variables: dict[str, Any],
    batch: Batch,
    *,
    dropout_key: jax.Array,
    train: bool = True,
    frozen: Sequence[str] = (),
    options: StepOptions = PLAIN,
) -> tuple[jax.Array, LossOutputs]:
    """Returns the loss of a step: the mean cross-entropy of the examples in the mask.

    The examples of segmentation are pixels. Where they have weights, the loss is the
    sum of weight times cross-entropy, divided by the number of pixels in the mask.
    Weight decay is no part of it; the optimiser adds it to the gradients.

    Args:
      model: The network.
      variables: Its Flax variables, `{"params", "batch_stats"}`.
      batch: `image` f32[B, H, W, C] augmented and normalised, `label` i32[B] in [0, K),
        `mask` bool[B], False for padding. Of segmentation, `label` is i32[B, H, W] and
        `mask` bool[B, H, W], False for void pixels too; there may be a `weight`
        f32[B, H, W], at least 0. A batch that `objectives.mixed` made has
        `other_label` and `share`, too.
      dropout_key: PRNG key of the dropout masks.
      train: Whether batch normalisation uses the statistics of the batch, and updates
        the running ones. If False, it uses the running ones, and dropout stays on.
      frozen: Names of the parts whose batch normalisation does not train; see
        `freezing`.
      options: How the loss departs from the plain cross-entropy of one sample.

    Returns:
      f32[], the loss in nats, and what it finds on the way.
    """
    samples = options.train_samples
    batch = objectives.repeated(batch, samples)
    mask, labels = batch["mask"], batch["label"]
    rngs = {"dropout": random_bits.fused(dropout_key)}
    if train:
        with freezing.evaluating(frozen):
            logits, updates = model.apply(
                variables,
                batch["image"],
                train=True,
                # Padding takes no part in the statistics of a batch.
                mask=_images_of_statistics(mask),
                rngs=rngs,
                mutable=["batch_stats"],
            )
        batch_stats = updates.get("batch_stats", {})
    else:
        logits = model.apply(variables, batch["image"], train=False, rngs=rngs)
        batch_stats = variables.get("batch_stats", {})
    # Sums over examples are at least float32, whatever the network computes in.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    predicted = objectives.mean_prediction(logits, samples)
    if options.is_of_mean:
        # Each example counts once, with the first of its copies in the batch.
        batch = {name: value[::samples] for name, value in batch.items()}
        logits, mask, labels = predicted, batch["mask"], batch["label"]
    smoothing = options.label_smoothing
    losses = objectives.cross_entropy(logits, labels, label_smoothing=smoothing)
    if "other_label" in batch:
        # Cross-entropy is linear in the targets: that of mixed ones is a mixture.
        others = objectives.cross_entropy(
            logits, batch["other_label"], label_smoothing=smoothing
        )
        losses = batch["share"] * losses + (1 - batch["share"]) * others
    if "weight" in batch:
        losses = losses * batch["weight"].astype(losses.dtype)
    count = mask.sum(dtype=losses.dtype)
    if mask.ndim > 1:
        count = jnp.maximum(count, 1)  # all pixels of a batch may be void
    # `where`, not a product: the loss of padding may be infinite.
    mean = jnp.where(mask, losses, 0).sum() / count
    return mean, LossOutputs(predicted, batch_stats)


def _images_of_statistics(mask: jax.Array) -> jax.Array:
    """Returns the images that batch normalisation takes its statistics over, bool[B].

    Args:
      mask: bool[B], or of segmentation bool[B, H, W].
    """
    if mask.ndim == 1:
        return mask
    images = batches.image_mask(mask)
    # A batch whose pixels are all void has statistics too: the mean of nothing is NaN.
    return images | ~images.any()
