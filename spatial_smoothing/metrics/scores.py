"""Proper scores and ranks of single examples.

Contract of this file: `probs` are [n, K], each row sums to one; `labels` are i32[n] in
[0, K). Scores have at least float32, whatever the type of `probs`. Rows that are no
probabilities are refused, see `inputs`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.inputs import (
    Values,
    check_batch,
    check_probs,
    class_labels,
    clipped,
    tolerance,
    widened,
)


def nll(probs: Values, labels: Values) -> jax.Array:
    """Negative log-likelihood of each example, in nats; infinite where it was 0.

    Args:
      probs: f[n, K]. The logarithm of NumPy float64 is taken in float64, so that it is
        finite for probabilities that are too small for float32.
      labels: i32[n].

    Returns:
      f[n], at least 0; NaN for a label outside [0, K).

    Raises:
      ValueError: for shapes that do not fit, or rows that are no probabilities.
    """
    probs, labels = _checked(probs, labels)
    return losses(probs, labels)


def brier(probs: Values, labels: Values) -> jax.Array:
    """Brier score of each example: the sum over classes of (p - one-hot)^2.

    Args:
      probs: f[n, K].
      labels: i32[n].

    Returns:
      f[n], in [0, 2]; NaN for a label outside [0, K). Source: Brier 1950.

    Raises:
      ValueError: for shapes that do not fit, or rows that are no probabilities.
    """
    probs, labels = _checked(probs, labels)
    return squared_errors(clipped(probs), labels)


def in_top(probs: Values, labels: Values, k: int) -> jax.Array:
    """Whether the label is among the k most probable classes.

    Of equal probabilities the higher class goes first; the reference leaves it open.

    Args:
      probs: [n, K]; only their order matters, so that logits will do.
      labels: i32[n].
      k: Number of classes, at least 0.

    Returns:
      bool[n]; False for a label outside [0, K).

    Raises:
      ValueError: for shapes that do not fit.
    """
    probs, labels = jnp.asarray(probs), class_labels(labels)
    check_batch("probs", probs, labels=labels)
    is_class = (labels >= 0) & (labels < probs.shape[-1])
    index = jnp.where(is_class, labels, 0)[:, None]
    probs_of_label = jnp.take_along_axis(probs, index, axis=-1)
    is_later = jnp.arange(probs.shape[-1])[None] > index
    ahead = (probs > probs_of_label) | ((probs == probs_of_label) & is_later)
    return is_class & (ahead.sum(-1) < k)


def losses(probs: jax.Array | np.ndarray, labels: jax.Array) -> jax.Array:
    """`nll` without its checks.

    Args:
      probs: f[n, K].
      labels: i32[n].

    Returns:
      f[n].
    """
    is_known = not isinstance(labels, jax.core.Tracer)
    if isinstance(probs, np.ndarray) and probs.dtype == np.float64 and is_known:
        labels = np.asarray(labels)
        nearest = np.clip(labels, 0, probs.shape[-1] - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = -np.log(np.minimum(probs[np.arange(len(probs)), nearest], 1))
        return jnp.asarray(np.where(nearest == labels, found, np.nan))
    slack, of_each = tolerance(probs), of_label(widened(probs), labels)
    # The loss is clipped, not the probability: that would make subnormal numbers 0.
    loss = jnp.maximum(-_log(of_each), 0)
    is_outside = (of_each < -slack) | (of_each > 1 + slack)
    return jnp.where(is_outside, jnp.nan, loss)


def squared_errors(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """`brier` without its checks.

    Args:
      probs: f[n, K], in at least float32.
      labels: i32[n].

    Returns:
      f[n].
    """
    one_hot = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    is_class = (labels >= 0) & (labels < probs.shape[-1])
    return jnp.where(is_class, jnp.square(probs - one_hot).sum(-1), jnp.nan)


def of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """The value of each example's label.

    Args:
      values: f[..., K].
      labels: i32[...].

    Returns:
      f[...]; NaN for a label outside [0, K).
    """
    # A negative index would count from the end, and -1 is not the last class.
    index = jnp.where(labels < 0, values.shape[-1], labels)[..., None]
    return jnp.take_along_axis(values, index, axis=-1, mode="fill")[..., 0]


def _log(probs: jax.Array) -> jax.Array:
    """The logarithm, of subnormal numbers too; -infinity for negative ones.

    XLA takes subnormal numbers for 0 on CPUs, and their logarithm is that of another.
    The bits of such a number are an integer m, and it stands for m times the least
    positive number: log m + log of the least.
    """
    info = jnp.finfo(probs.dtype)
    bits = jax.lax.bitcast_convert_type(probs, jnp.dtype(f"int{info.bits}"))
    is_subnormal = (bits > 0) & (bits < 2**info.nmant)
    log_of_least = float((info.minexp - info.nmant) * np.log(2))
    log = jnp.log(jnp.where(is_subnormal, bits.astype(probs.dtype), probs))
    log = jnp.where(is_subnormal, log + log_of_least, log)
    return jnp.where(probs < 0, -jnp.inf, log)


def _checked(probs: Values, labels: Values) -> tuple[jax.Array | np.ndarray, jax.Array]:
    """Arrays of probabilities and labels; NumPy float64 and lists stay on the host."""
    probs = probs if isinstance(probs, jax.Array) else np.asarray(probs)
    labels = class_labels(labels)
    check_batch("probs", probs, labels=labels)
    check_probs(probs)
    return probs, labels
