"""Scores of single examples, kept.

Contract of this file: `log_probs` are [n, K], logarithms of class probabilities,
finite where possible; `labels` are i32[n] in [0, K). `Examples` of batches concatenate.
Where a `Tally` is enough, it is smaller; weights and ranks need `Examples`, from which
`table` computes scores.
"""

import flax.struct
import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.inputs import (
    Values,
    check_batch,
    check_log_probs,
    class_labels,
    clipped_logs,
    widened,
)
from spatial_smoothing.metrics.scores import in_top, of_label, squared_errors


@flax.struct.dataclass
class Examples:
    """What scores need to know of each example; all fields are [n].

    Attributes:
      label: i32, the class that is right.
      prediction: i32, the most probable class, the lowest of equal ones.
      confidence: f32, the probability of the prediction, in [0, 1].
      nll: f32, in nats, at least 0.
      brier: f32, in [0, 2].
      top5: bool, whether the label is among the five most probable classes.
      entropy: f32, in nats.
      mutual_information: f32, in nats.
      variation_ratio: f32, in [0, 1).
      energy: f32, free energy of the logits; NaN where it was not given.
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
    log_probs: Values,
    labels: Values,
    *,
    mutual_information: Values | None = None,
    variation_ratio: Values | None = None,
    energy: Values | None = None,
) -> Examples:
    """Scores the examples of one batch.

    Args:
      log_probs: f[n, K], logarithm of the mean of an ensemble's probabilities.
      labels: i32[n].
      mutual_information: f[n], in nats; None for 0, as of a single sample.
      variation_ratio: f[n], in [0, 1); None for 0, as of a single sample.
      energy: f[n], of the logits; None for NaN, as it does not follow from
        probabilities.

    Returns:
      The examples. NLL and Brier score are NaN for a label outside [0, K).

    Raises:
      ValueError: for shapes that do not fit, and, outside of `jit`, rows that are no
        logarithms of probabilities, such as logits (see `inputs` for inside).
    """
    log_probs = jnp.asarray(log_probs)
    labels = class_labels(labels)
    check_batch("log_probs", log_probs, labels=labels)
    check_log_probs(log_probs)
    log_probs = clipped_logs(log_probs)
    probs = jnp.exp(log_probs)
    rest = {
        "mutual_information": (mutual_information, 0),
        "variation_ratio": (variation_ratio, 0),
        "energy": (energy, jnp.nan),
    }
    rest = {
        name: jnp.full(labels.shape, default, probs.dtype)
        if values is None
        else widened(values)
        for name, (values, default) in rest.items()
    }
    check_batch("log_probs", log_probs, **rest)
    return Examples(
        label=labels,
        prediction=probs.argmax(-1).astype(jnp.int32),
        confidence=probs.max(-1),
        nll=-of_label(log_probs, labels),
        brier=squared_errors(probs, labels),
        top5=in_top(probs, labels, 5),
        entropy=jax.scipy.special.entr(probs).sum(-1),
        **rest,
    )
