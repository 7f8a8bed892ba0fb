"""Consistency: how steady the predictions of a sequence of frames are.

Contract of this file: frames lie along the first axis, T, at least two, in order.
`scores` are f[T, B, K] and only their order over the K classes matters: probabilities,
log-probabilities or logits. `log_probs` are logarithms of probabilities. What is
returned has one value for each of the B sequences, to be averaged by the caller.
"""

import jax
import jax.numpy as jnp

from spatial_smoothing.lookup import lookup


def consistency(scores: jax.Array) -> jax.Array:
    """Share of the pairs of consecutive frames whose most probable classes agree.

    Args:
      scores: f[T, B, K].

    Returns:
      f32[B], in [0, 1]: 1 - `flip_rate`. Source: Park & Kim, ICML 2022, appendix E.
    """
    return 1 - flip_rate(scores)


def flip_rate(scores: jax.Array, *, against: str = "previous") -> jax.Array:
    """Share of the frames, without the first, of another class than a frame before.

    Args:
      scores: f[T, B, K].
      against: The frame compared with: "previous", or, as Hendrycks & Dietterich, ICLR
        2019, take it for sequences of independent noise, "first".

    Returns:
      f32[B], in [0, 1].

    Raises:
      ValueError: for fewer than two frames, or another `against`.
    """
    previous = lookup({"previous": True, "first": False}, against, "reference frame")
    _check(scores)
    classes = scores.argmax(-1)
    reference = (
        classes[:-1] if previous else jnp.broadcast_to(classes[:1], classes[1:].shape)
    )
    return (classes[1:] != reference).astype(jnp.float32).mean(0)


def cec(log_probs: jax.Array, *, target: str = "later") -> jax.Array:
    """Cross-entropy consistency as the reference code has it: a mean over classes.

    `cec_sum` divided by K; arguments and result as there. The published tables are of
    this size.
    """
    return cec_sum(log_probs, target=target) / log_probs.shape[-1]


def cec_sum(log_probs: jax.Array, *, target: str = "later") -> jax.Array:
    """Cross-entropy between consecutive frames, in nats: -sum p_target log p_other.

    Classes that the target gives no probability count nothing, 0 log 0 = 0; one that it
    has and the other frame has not makes the result infinite.

    Args:
      log_probs: f[T, B, K].
      target: Of each pair, the frame whose probabilities weigh: "later", as in the
        reference code, -p[t + 1] log p[t]; or "earlier", as in equation 35 of the
        paper, -p[t] log p[t + 1].

    Returns:
      f32[B], the mean over pairs. Source: Park & Kim, ICML 2022, equation 35.

    Raises:
      ValueError: for fewer than two frames, or another target.
    """
    later = lookup({"later": True, "earlier": False}, target, "target frame")
    _check(log_probs)
    wide = log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    first, second = wide[:-1], wide[1:]
    weighing, other = (second, first) if later else (first, second)
    probs = jnp.exp(weighing)
    return -(probs * jnp.where(probs > 0, other, 0)).sum(-1).mean(0)


def relative_confidence(log_probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Probability of the label divided by that of the most probable class.

    Args:
      log_probs: f[..., K].
      labels: i32[...].

    Returns:
      f32[...], in [0, 1]; 1 where the prediction is right. Source: Park & Kim, ICML
      2022, equation 36.
    """
    of_label = jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return jnp.exp(of_label - log_probs.max(-1))


def _check(values: jax.Array) -> None:
    if values.ndim != 3 or len(values) < 2:
        raise ValueError(
            "consistency needs [T, B, K] with at least two frames, got shape "
            f"{list(values.shape)}"
        )
