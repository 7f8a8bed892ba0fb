"""Consistency: how steady the predictions of a sequence of frames are.

Contract of this file: frames lie along the first axis, T, at least two, in order.
`scores` are [T, B, K] of any type, and only their order over the K classes matters:
probabilities, log-probabilities or logits. `log_probs` are logarithms of probabilities.
What is returned has at least float32 and one value for each of the B sequences, to be
averaged by the caller.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.lookup import lookup
from spatial_smoothing.metrics.inputs import (
    Values,
    check_log_probs,
    class_labels,
    clipped_logs,
    widened,
)
from spatial_smoothing.metrics.scores import of_label


def consistency(scores: Values) -> jax.Array:
    """Share of the pairs of consecutive frames whose most probable classes agree.

    Args:
      scores: [T, B, K].

    Returns:
      f32[B], in [0, 1]: 1 - `flip_rate`. Source: Park & Kim, ICML 2022, appendix E.

    Raises:
      ValueError: for fewer than two frames.
    """
    return 1 - flip_rate(scores)


def flip_rate(scores: Values, *, against: str = "previous") -> jax.Array:
    """Share of the frames, without the first, of another class than a frame before.

    Args:
      scores: [T, B, K].
      against: The frame compared with: "previous", or, as Hendrycks & Dietterich, ICLR
        2019, take it for sequences of independent noise, "first".

    Returns:
      f32[B], in [0, 1].

    Raises:
      ValueError: for fewer than two frames, or another `against`.
    """
    with_previous = lookup(
        {"previous": True, "first": False}, against, "reference frame"
    )
    scores = jnp.asarray(scores)
    _check(scores)
    classes = scores.argmax(-1)
    later = classes[1:]
    if with_previous:
        reference = classes[:-1]
    else:
        reference = jnp.broadcast_to(classes[:1], later.shape)
    return (later != reference).astype(jnp.float32).mean(0)


def cec(log_probs: Values, *, target: str = "later") -> jax.Array:
    """Cross-entropy consistency as the reference code has it: a mean over classes.

    The published tables are of this size: `cec_sum` divided by K.

    Args:
      log_probs: f[T, B, K].
      target: The frame of each pair whose probabilities weigh; see `cec_sum`.

    Returns:
      f32[B], in nats, the mean over pairs.

    Raises:
      ValueError: as `cec_sum`.
    """
    return cec_sum(log_probs, target=target) / np.shape(log_probs)[-1]


def cec_sum(log_probs: Values, *, target: str = "later") -> jax.Array:
    """Cross-entropy between consecutive frames, in nats: -sum p_target log p_other.

    Classes that the target gives no probability count nothing, 0 log 0 = 0; one that it
    has and the other frame has not makes the result infinite.

    Args:
      log_probs: f[T, B, K].
      target: The frame of each pair whose probabilities weigh: "later", as in the
        reference code, -p[t + 1] log p[t]; or "earlier", as in equation 35 of the
        paper, -p[t] log p[t + 1].

    Returns:
      f32[B], the mean over pairs. Source: Park & Kim, ICML 2022, equation 35.

    Raises:
      ValueError: for fewer than two frames, another target, and, outside of `jit`,
        rows that are no logarithms of probabilities.
    """
    later_weighs = lookup({"later": True, "earlier": False}, target, "target frame")
    log_probs = jnp.asarray(log_probs)
    _check(log_probs)
    check_log_probs(log_probs)
    log_probs = clipped_logs(log_probs)
    earlier, later = log_probs[:-1], log_probs[1:]
    weighing, other = (later, earlier) if later_weighs else (earlier, later)
    probs = jnp.exp(weighing)
    return -(probs * jnp.where(probs > 0, other, 0)).sum(-1).mean(0)


def relative_confidence(log_probs: Values, labels: Values) -> jax.Array:
    """Probability of the label divided by that of the most probable class.

    Args:
      log_probs: f[..., K]; logits give the same.
      labels: i32[...].

    Returns:
      f32[...], in [0, 1]; 1 where the prediction is right, NaN for a label outside
      [0, K). Source: Park & Kim, ICML 2022, equation 36.
    """
    log_probs = widened(log_probs)
    log_prob_of_label = of_label(log_probs, class_labels(labels))
    return jnp.exp(log_prob_of_label - log_probs.max(-1))


def _check(values: jax.Array) -> None:
    if values.ndim != 3 or len(values) < 2:
        raise ValueError(
            "consistency needs [T, B, K] with at least two frames, got shape "
            f"{list(values.shape)}"
        )
