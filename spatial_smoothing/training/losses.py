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
from spatial_smoothing.models import rivals
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import random_bits
from spatial_smoothing.training import freezing, objectives
from spatial_smoothing.training.objectives import PLAIN, StepOptions

# Number of the key that arranges a batch, among those made of the dropout key.
_ARRANGEMENT = 0x6172


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

    Of a network that makes M predictions in a pass, it is the mean over its members,
    too. MIMO trains on other images for each member, with their labels.

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
    rival = rivals.of(model) if isinstance(model, Network) else None
    if rival is not None and options.train_samples > 1:
        raise ValueError(
            f"train_samples {options.train_samples} is for networks that make one "
            f"prediction in a pass, and ensemble {model.ensemble!r} makes {rival.size}"
        )
    batch = objectives.repeated(batch, options.train_samples)
    count, order = len(batch["mask"]), None
    if rival is not None and train:
        key = jax.random.fold_in(dropout_key, _ARRANGEMENT)
        batch, order = rival.arrange(key, batch)
    rngs = {"dropout": random_bits.fused(dropout_key)}
    if train:
        with freezing.evaluating(frozen):
            logits, updates = model.apply(
                variables,
                batch["image"],
                train=True,
                # Padding takes no part in the statistics of a batch.
                mask=_images_of_statistics(batch["mask"]),
                rngs=rngs,
                mutable=["batch_stats"],
            )
        batch_stats = updates.get("batch_stats", {})
    else:
        logits = model.apply(variables, batch["image"], train=False, rngs=rngs)
        batch_stats = variables.get("batch_stats", {})
    # Sums over examples are at least float32, whatever the network computes in.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    targets = {name: value for name, value in batch.items() if name != "image"}
    if rival is not None:
        predicted = _of_examples(logits, order, count=count)
        # Labels of the members, and which of them count.
        targets = {
            name: jnp.broadcast_to(value, logits.shape[:2])
            for name, value in targets.items()
        }
    else:
        predicted = objectives.mean_prediction(logits, options.train_samples)
    if options.is_of_mean:
        # Each example counts once, with the first of its copies in the batch.
        targets = {
            name: value[:: options.train_samples] for name, value in targets.items()
        }
        logits = predicted
    mean = _mean_loss(logits, targets, options)
    return mean, LossOutputs(predicted, batch_stats)


def _mean_loss(
    logits: jax.Array, targets: dict[str, jax.Array], options: StepOptions
) -> jax.Array:
    """Returns the mean loss of the predictions in the mask, f[].

    Args:
      logits: f[..., K].
      targets: `label` and `mask`, and perhaps `weight`, or `other_label` and `share`,
        each of the shape of `logits` without the classes.
      options: How the step departs from the plain one.
    """
    smoothing = options.label_smoothing
    losses = objectives.cross_entropy(
        logits, targets["label"], label_smoothing=smoothing
    )
    if "other_label" in targets:
        # Cross-entropy is linear in the targets: that of mixed ones is a mixture.
        others = objectives.cross_entropy(
            logits, targets["other_label"], label_smoothing=smoothing
        )
        losses = targets["share"] * losses + (1 - targets["share"]) * others
    if "weight" in targets:
        losses = losses * targets["weight"].astype(losses.dtype)
    mask = targets["mask"]
    count = mask.sum(dtype=losses.dtype)
    if mask.ndim > 2:
        count = jnp.maximum(count, 1)  # all pixels of a batch may be void
    # `where`, not a product: the loss of padding may be infinite.
    return jnp.where(mask, losses, 0).sum() / count


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


def _of_examples(
    logits: jax.Array, order: jax.Array | None, *, count: int
) -> jax.Array:
    """Returns one prediction f32[B, K] of each example, given f32[M, B', K].

    Args:
      logits: Logits of the members at each place.
      order: i32[B'], the example that the first member sees at each place; None where
        all members see the examples of the batch in its order.
      count: Number of examples B of the batch.

    Returns:
      Logarithms of the mean probability of the members; logits of the first member
      alone where the members see different examples.
    """
    if order is None:
        log_probs = jax.nn.log_softmax(logits)
        return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits))
    # Where a batch has an example several times, one of its places is as good as
    # another.
    empty = jnp.zeros((count, logits.shape[-1]), logits.dtype)
    return empty.at[order].set(logits[0])
