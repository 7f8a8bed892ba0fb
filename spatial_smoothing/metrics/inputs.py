"""What scores accept: widened to float32, clipped to [0, 1], and checked.

Contract of this file: values may be lists, NumPy arrays or JAX arrays of any real type.
Arrays that are returned have at least float32, so that no sum is kept in less.

Values that are no probabilities, such as logits or percentages, are refused by
`check_probs` and `check_log_probs`. Outside of `jit` and `vmap` they look at the values
and raise ValueError. Inside, where values are not known yet, they add nothing to the
program, unless it is traced within `checks_under_jit`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Values = jax.Array | np.ndarray | Sequence
_UNDER_JIT = contextvars.ContextVar(
    "whether traced programs check values", default=False
)


@contextlib.contextmanager
def checks_under_jit() -> Iterator[None]:
    """While it lasts, rows that are no probabilities are errors under `jit` too.

    It is a switch for debugging: programs call back to Python, which is slow, and are
    compiled anew when it begins and when it ends. The error is that of JAX for
    callbacks, and its text holds ours. For example:

        with metrics.checks_under_jit():
            jax.jit(metrics.tally)(probs, labels)
    """
    jax.clear_caches()  # of programs without the checks
    before = _UNDER_JIT.set(True)
    try:
        yield
        jax.effects_barrier()  # errors of the programs that are still running
    finally:
        _UNDER_JIT.reset(before)
        jax.clear_caches()


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


def type_of(values: Values) -> jnp.dtype:
    """The type that JAX gives to values: without x64, float32 for those of float64."""
    if not hasattr(values, "dtype"):
        values = np.asarray(values)
    return jax.dtypes.canonicalize_dtype(values.dtype)


def tolerance(values: Values) -> float:
    """How far a row of probabilities may be from summing to one, by the input's type.

    4 units of rounding, and at least 2^-8: rows that a network computed in bfloat16 and
    that were converted afterwards are as inexact as that.
    """
    dtype = type_of(values)
    if not jnp.issubdtype(dtype, jnp.floating):
        return 2.0**-8
    return max(4 * float(jnp.finfo(dtype).eps), 2.0**-8)


def log_tolerance(log_probs: Values) -> float:
    """How far the log of a row's sum may be from 0: rounding grows with log K."""
    return tolerance(log_probs) * (1 + float(np.log(np.shape(log_probs)[-1])))


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
    given = {name: np.shape(x) for name, x in arrays.items() if x is not None}
    shapes = set(given.values())
    if len(shapes) > 1 or any(len(shape) != 1 or 0 in shape for shape in shapes):
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in given.items())
        raise ValueError(f"shapes must be [n], of one n of at least 1; got {listed}")


def check_batch(name: str, scores: jax.Array, **arrays: jax.Array) -> None:
    """Refuses scores of classes that are not [n, K], and arrays beside them not [n].

    Args:
      name: What the scores are called in the message.
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


def checked_temperature(temperature: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A temperature that is positive and finite.

    Args:
      temperature: f[].
      dtype: Type of the result.

    Returns:
      f[]; under `jit`, NaN where it is not positive and finite.

    Raises:
      ValueError: shows the temperature, where it is known.
    """
    if isinstance(temperature, jax.core.Tracer):
        is_fine = (temperature > 0) & jnp.isfinite(temperature)
        return jnp.where(is_fine, temperature, jnp.nan).astype(dtype)
    if not np.all((np.asarray(temperature) > 0) & np.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    return jnp.asarray(temperature, dtype)


def check_probs(probs: Values, *, mask: jax.Array | None = None) -> None:
    """Refuses rows that are no probabilities: negative, or not summing to one.

    Rows that hold NaN pass: their scores are NaN. See the module for `jit`.

    Args:
      probs: [..., K], as the caller gave them.
      mask: bool[...], the rows that count; None for all.

    Raises:
      ValueError: shows a row's sum, and what the values look like.
    """
    slack = tolerance(probs)

    def is_refused(probs: jax.Array) -> jax.Array:
        is_one = jnp.abs(probs.sum(-1) - 1) <= slack
        return ~(is_one & (probs.min(-1) >= -slack))

    def error(row: np.ndarray) -> ValueError:
        total, smallest = row.sum(), row.min()
        if smallest < -slack and row.max() <= 0:
            found, mistake = f"{smallest:g}", "log-probabilities; give jnp.exp of them"
        elif smallest < -slack:
            found, mistake = f"{smallest:g}", "logits; give jax.nn.softmax of them"
        elif 99 < total < 101:
            found, mistake = f"the sum {total:g}", "percentages; divide by 100"
        else:
            found = f"the sum {total:g}"
            mistake = "exp(logits) or scores of classes; divide each row by its sum"
        return ValueError(
            f"probs must be probabilities, but a row has {found}; they look like "
            f"{mistake}"
        )

    _refuse(probs, mask, is_refused, error)


def check_log_probs(log_probs: Values, *, mask: jax.Array | None = None) -> None:
    """Refuses rows that are no logarithms of probabilities; see `check_probs`.

    Args:
      log_probs: [..., K], as the caller gave them.
      mask: bool[...], the rows that count; None for all.

    Raises:
      ValueError: shows a row's sum, and what the values look like.
    """
    slack, slack_of_probs = log_tolerance(log_probs), tolerance(log_probs)

    def is_refused(log_probs: jax.Array) -> jax.Array:
        return ~(jnp.abs(jax.nn.logsumexp(log_probs, axis=-1)) <= slack)

    def error(row: np.ndarray) -> ValueError:
        if row.min() >= 0 and abs(row.sum() - 1) <= slack_of_probs:
            mistake = "probabilities; give jnp.log of them"
        else:
            mistake = "logits; give jax.nn.log_softmax of them"
        total = np.exp(np.minimum(row, 700)).sum()
        return ValueError(
            "log_probs must be logarithms of probabilities, but those of a row sum to "
            f"{total:g}; they look like {mistake}"
        )

    _refuse(log_probs, mask, is_refused, error)


def _refuse(
    values: Values,
    mask: jax.Array | None,
    is_refused: Callable[[jax.Array], jax.Array],
    error: Callable[[np.ndarray], ValueError],
) -> None:
    """Raises the error of the first row that is refused, has no NaN and counts.

    Args:
      values: [..., K].
      mask: bool[...], the rows that count; None for all.
      is_refused: Function of f[..., K] to bool[...].
      error: Function of the row, f64[K], to what is raised.
    """
    is_traced = any(isinstance(x, jax.core.Tracer) for x in (values, mask))
    if is_traced and not _UNDER_JIT.get():
        return
    is_concrete = isinstance(values, jax.Array) and not is_traced
    if is_concrete and not values.is_fully_addressable:
        return  # other processes have a part of it, which cannot be read here

    def first(values: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        found = is_refused(values) & ~jnp.isnan(values).any(-1)
        found = (found if mask is None else found & mask).reshape(-1)
        rows = values.reshape(-1, values.shape[-1])
        return found.any(), rows[found.argmax()]

    def raise_for(is_found: np.ndarray, row: np.ndarray) -> None:
        if is_found:
            raise error(np.asarray(row, np.float64))

    if is_traced:
        jax.debug.callback(raise_for, *first(widened(values), mask))
    elif np.size(values):
        raise_for(*jax.device_get(jax.jit(first)(widened(values), mask)))
