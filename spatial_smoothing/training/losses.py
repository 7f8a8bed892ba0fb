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
import optax

from spatial_smoothing.data.batches import Batch
from spatial_smoothing.runtime import random_bits
from spatial_smoothing.training import freezing


class LossOutputs(NamedTuple):
    """What a training loss finds on the way.

    Attributes:
      logits: f32[B, K], predictions of the batch.
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
) -> tuple[jax.Array, LossOutputs]:
    """Returns the loss of a step: the mean cross-entropy of the examples in the mask.

    Weight decay is no part of it; the optimiser adds it to the gradients.

    Args:
      model: The network.
      variables: Its Flax variables, `{"params", "batch_stats"}`.
      batch: `image` f32[B, H, W, C] augmented and normalised, `label` i32[B] in [0, K),
        `mask` bool[B], False for padding.
      dropout_key: PRNG key of the dropout masks.
      train: Whether batch normalisation uses the statistics of the batch, and updates
        the running ones. If False, it uses the running ones, and dropout stays on.
      frozen: Names of the parts whose batch normalisation does not train; see
        `freezing`.

    Returns:
      f32[], the loss in nats, and what it finds on the way.
    """
    mask, labels = batch["mask"], batch["label"]
    rngs = {"dropout": random_bits.fused(dropout_key)}
    if train:
        with freezing.evaluating(frozen):
            logits, updates = model.apply(
                variables,
                batch["image"],
                train=True,
                mask=mask,  # padding takes no part in the statistics of a batch
                rngs=rngs,
                mutable=["batch_stats"],
            )
        batch_stats = updates.get("batch_stats", {})
    else:
        logits = model.apply(variables, batch["image"], train=False, rngs=rngs)
        batch_stats = variables.get("batch_stats", {})
    # Sums over examples are at least float32, whatever the network computes in.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # `where`, not a product: the loss of padding may be infinite.
    mean = jnp.where(mask, losses, 0).sum() / mask.sum(dtype=losses.dtype)
    return mean, LossOutputs(logits, batch_stats)
