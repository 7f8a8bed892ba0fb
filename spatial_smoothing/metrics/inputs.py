"""What scores accept: widened to float32, clipped to [0, 1], and checked.

Contract of this file: values may be lists, NumPy arrays or JAX arrays of any real type.
Arrays that are returned have at least float32, so that no sum is kept in less.

Values that are no probabilities, such as logits or percentages, are refused by
`check_probs` and `check_log_probs`. Outside of `jit` and `vmap` they look at the values
and raise ValueError. Inside, where values are not known yet, they are
`checkify.debug_check`: nothing is computed, unless the caller asks for the checks by

    error, tally = checkify.checkify(jax.jit(metrics.tally))(probs, labels)
    error.throw()
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

Values = jax.Array | np.ndarray | Sequence


def widened(values: Values) -> jax.Array:
    """Values as a JAX array of at least float32; integers and booleans become float32.

    Args:
      values: Any shape, any real type.

    Returns:
      The values, in float32, or in float64 where they have it and x64 is on.
    """
    values = jnp.asarray(values)
    return values.astype(accumulator(values.dtype))


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The type in which values of `dtype` are summed up: float32, or float64 for it."""
    is_wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return jnp.dtype(dtype) if is_wide else jnp.dtype(jnp.float32)


def tolerance(values: Values) -> float:
    """How far a row of probabilities may be from summing to one, by the input's type.

    4 units of rounding, and at least 2^-8: rows that a network computed in bfloat16 and
    that were converted afterwards are as inexact as that.
    """
    dtype = jnp.result_type(values)
    if not jnp.issubdtype(dtype, jnp.floating):
        return 2.0**-8
    return max(4 * float(jnp.finfo(dtype).eps), 2.0**-8)


def log_tolerance(log_probs: Values) -> float:
    """How far the log of a row's sum may be from 0: rounding grows with log K."""
    return tolerance(log_probs) * (1 + float(np.log(jnp.shape(log_probs)[-1])))


def clipped(probs: Values) -> jax.Array:
    """Probabilities in at least float32, in [0, 1].

    Rounding puts some slightly above 1, where histograms would not find them: these
    become 1. Values further away are no probabilities and become NaN, which no score
    hides; `check_probs` says more where it can.

    Args:
      probs: [..., K], or any shape.

    Returns:
      f[...], of the shape of `probs`.
    """
    slack, probs = tolerance(probs), widened(probs)
    is_outside = (probs < -slack) | (probs > 1 + slack)
    return jnp.where(is_outside, jnp.nan, jnp.clip(probs, 0, 1))


def clipped_logs(log_probs: Values) -> jax.Array:
    """Log-probabilities in at least float32, at most 0; see `clipped`.

    Args:
      log_probs: [..., K].

    Returns:
      f[..., K].
    """
    slack, log_probs = log_tolerance(log_probs), widened(log_probs)
    return jnp.where(log_probs > slack, jnp.nan, jnp.minimum(log_probs, 0))


def class_labels(labels: Values) -> jax.Array:
    """Labels as int32; those that int32 cannot hold become -1, which is no class.

    Args:
      labels: [...], any integer type.

    Returns:
      i32[...].

    Raises:
      ValueError: if labels are not integers.
    """
    xp = jnp if isinstance(labels, jax.Array) else np
    labels = xp.asarray(labels)
    if not xp.issubdtype(labels.dtype, xp.integer):
        hint = "" if labels.ndim < 2 else "; of one-hot vectors, take labels.argmax(-1)"
        raise ValueError(
            f"labels must be integers, the numbers of classes, got {labels.dtype}{hint}"
        )
    if labels.dtype.itemsize == 8:  # a cast would wrap 2^32 to 0
        labels = xp.clip(labels.astype(xp.int64), -1, 2**31 - 1)
    return jnp.asarray(labels.astype(xp.int32))


def check_lengths(**arrays: jax.Array | None) -> None:
    """Refuses arrays that are not all [n] of the same n >= 1.

    Args:
      **arrays: Name -> array; None is passed over.

    Raises:
      ValueError: names the arrays and their shapes.
    """
    given = {name: jnp.shape(x) for name, x in arrays.items() if x is not None}
    shapes = set(given.values())
    if len(shapes) > 1 or any(len(shape) != 1 or 0 in shape for shape in shapes):
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in given.items())
        raise ValueError(f"shapes must be [n], of one n of at least 1; got {listed}")


def check_batch(name: str, scores: jax.Array, **arrays: jax.Array) -> None:
    """Refuses scores of classes that are not [n, K], and arrays beside them not [n].

    Args:
      name: Of the scores, for the message.
      scores: Should be [n, K].
      **arrays: Name -> array that should be [n].

    Raises:
      ValueError: names the arrays, their shapes and, for samples, the remedy.
    """
    if scores.ndim == 3:
        raise ValueError(
            f"{name} must be [n, K], got {list(scores.shape)}; of samples [S, n, K] "
            "take the mean of the probabilities first, probs.mean(0), or score each "
            "by jax.vmap"
        )
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"{name} must be [n, K], got shape {list(scores.shape)}")
    for other, values in arrays.items():
        if values.shape != scores.shape[:1]:
            raise ValueError(
                f"{other} must be [n], one for each row of {name} "
                f"{list(scores.shape)}, got shape {list(values.shape)}"
            )


def check_temperature(temperature: float | jax.Array) -> None:
    """Refuses a temperature that is not positive and finite; see the module for `jit`.

    Raises:
      ValueError: shows the temperature.
    """
    if isinstance(temperature, jax.core.Tracer):
        is_fine = (temperature > 0) & jnp.isfinite(temperature)
        checkify.debug_check(is_fine.all(), "a temperature is not positive and finite")
    elif not np.all((np.asarray(temperature) > 0) & np.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def check_probs(probs: jax.Array, *, mask: jax.Array | None = None) -> None:
    """Refuses rows that are no probabilities: negative, or not summing to one.

    Rows that hold NaN pass: their scores are NaN. See the module for `jit`.

    Args:
      probs: [..., K], as the caller gave them.
      mask: bool[...], the rows that count; None for all.

    Raises:
      ValueError: shows a row's sum, and what the values look like.
    """
    if (row := _first_refused(_no_probs, probs, mask)) is None:
        return
    total, smallest = row.sum(), row.min()
    if smallest < 0 and row.max() <= 0:
        found, remedy = f"{smallest:g}", "log-probabilities; give jnp.exp of them"
    elif smallest < 0:
        found, remedy = f"{smallest:g}", "logits; give jax.nn.softmax of them"
    elif 99 < total < 101:
        found, remedy = f"the sum {total:g}", "percentages; divide by 100"
    else:
        found = f"the sum {total:g}"
        remedy = "exp(logits) or scores of classes; divide each row by its sum"
    raise ValueError(
        f"probs must be probabilities, but a row has {found}; they look like {remedy}"
    )


def check_log_probs(log_probs: jax.Array, *, mask: jax.Array | None = None) -> None:
    """Refuses rows that are no logarithms of probabilities; see `check_probs`.

    Args:
      log_probs: [..., K], as the caller gave them.
      mask: bool[...], the rows that count; None for all.

    Raises:
      ValueError: shows a row's sum, and what the values look like.
    """
    if (row := _first_refused(_no_log_probs, log_probs, mask)) is None:
        return
    if row.min() >= 0 and abs(row.sum() - 1) <= tolerance(log_probs):
        remedy = "probabilities; give jnp.log of them"
    else:
        remedy = "logits; give jax.nn.log_softmax of them"
    raise ValueError(
        "log_probs must be logarithms of probabilities, but those of a row sum to "
        f"{np.exp(np.minimum(row, 700)).sum():g}; they look like {remedy}"
    )


def _no_probs(probs: jax.Array) -> jax.Array:
    slack, probs = tolerance(probs), widened(probs)
    is_fine = (jnp.abs(probs.sum(-1) - 1) <= slack) & (probs.min(-1) >= -slack)
    return ~is_fine & ~jnp.isnan(probs).any(-1)


def _no_log_probs(log_probs: jax.Array) -> jax.Array:
    slack, log_probs = log_tolerance(log_probs), widened(log_probs)
    is_fine = jnp.abs(jax.nn.logsumexp(log_probs, axis=-1)) <= slack
    return ~is_fine & ~jnp.isnan(log_probs).any(-1)


def _first_refused(refused, values: jax.Array, mask) -> np.ndarray | None:
    """The first row that `refused` finds, f64[K], or None; under `jit` always None."""
    if isinstance(values, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        found = refused(values) if mask is None else refused(values) & mask
        checkify.debug_check(
            ~found.any(), "a row is no probabilities; they may be logits or percentages"
        )
        return None
    found = np.asarray(jax.jit(refused)(jnp.asarray(values)))
    if mask is not None:
        found = found & np.asarray(mask)
    if not found.any():
        return None
    return np.asarray(values)[found][0].astype(np.float64)
