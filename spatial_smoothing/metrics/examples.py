"""Scores of single examples, kept.

Contract of this file: `log_probs` are f[n, K], logarithms of class probabilities,
finite where possible; `labels` are i32[n] in [0, K). `Examples` of batches concatenate.
Where a `Tally` is enough, it is smaller; weights and ranks need `Examples`, from which
`table` computes scores.
"""

import chex
import flax.struct
import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.scores import brier, in_top
from spatial_smoothing.metrics.uncertainty import entropy


@flax.struct.dataclass
class Examples:
    """What scores need to know of each example; all fields are [n].

    Attributes:
      label: i32.
      prediction: i32, the most probable class, the lowest of equal ones.
      confidence: f32, its probability.
      nll: f32, in nats.
      brier: f32, in [0, 2].
      top5: bool, whether the label is among the five most probable classes.
      entropy: f32, in nats.
      mutual_information: f32, in nats.
      variation_ratio: f32, in [0, 1).
      energy: f32; NaN where it was not given.
    """

    label: jax.Array
    prediction: jax.Array
    confidence: jax.Array
    nll: jax.Array
    brier: jax.Array
    top5: jax.Array
    entropy: jax.Array
    mutual_information: jax.Array
    variation_ratio: jax.Array
    energy: jax.Array


def per_example(
    log_probs: jax.Array,
    labels: jax.Array,
    *,
    mutual_information: jax.Array | None = None,
    variation_ratio: jax.Array | None = None,
    energy: jax.Array | None = None,
) -> Examples:
    """Scores the examples of one batch.

    Args:
      log_probs: f[n, K], of the mean of an ensemble.
      labels: i32[n].
      mutual_information: f[n]; None for 0, as of a single sample.
      variation_ratio: f[n]; None for 0, as of a single sample.
      energy: f[n], of logits; None for NaN, as it does not follow from probabilities.

    Returns:
      The examples. The NLL is NaN for a label outside [0, K).
    """
    chex.assert_rank([log_probs, labels], [2, 1])
    chex.assert_equal_shape_prefix([log_probs, labels], 1)
    log_probs = log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    probs = jnp.exp(log_probs)
    index = jnp.where(labels < 0, probs.shape[-1], labels)  # -1 is not the last class
    given = (mutual_information, variation_ratio, energy)
    rest = [
        jnp.full(labels.shape, default, probs.dtype) if value is None else value
        for value, default in zip(given, (0, 0, jnp.nan), strict=True)
    ]
    chex.assert_equal_shape([labels, *rest])
    return Examples(
        labels,
        probs.argmax(-1),
        probs.max(-1),
        -jnp.take_along_axis(log_probs, index[:, None], axis=-1)[:, 0],
        brier(probs, index),
        in_top(probs, index, 5),
        entropy(probs),
        *rest,
    )
