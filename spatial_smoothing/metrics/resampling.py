"""The bootstrap: how scores vary with the examples that happened to be in a test set.

Contract of this file: a statistic maps `weights` f32[n], how often each example counts,
to a pytree of scalars f[]. It is a pure function of the weights, and works under
`vmap`. Replicate i depends on (key, i) alone, neither on the number of replicates nor
on `chunk`. The bootstrap says nothing about what varies between trainings.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.inputs import widened

Statistic = Callable[[jax.Array], Any]


def resample(key: jax.Array, num_examples: int) -> jax.Array:
    """Draws n of n examples with replacement.

    Args:
      key: PRNG key of the draw.
      num_examples: n, the number of examples.

    Returns:
      f32[n], how often each example was drawn; the sum is n.
    """
    drawn = jax.random.randint(key, (num_examples,), 0, num_examples)
    return jnp.zeros(num_examples).at[drawn].add(1)


def bootstrap(
    key: jax.Array,
    statistic: Statistic,
    num_examples: int,
    *,
    num_replicates: int = 1000,
    chunk: int = 50,
) -> Any:
    """Values of a statistic for resampled examples.

    The scores of a table, for instance, with their intervals:

        scores = functools.partial(table, examples, num_classes=100)
        interval(bootstrap(key, scores, len(examples.label)))

    Every call is compiled anew. For many sets of examples of one size, call it inside a
    `jit` of which the examples are an argument.

    Args:
      key: PRNG key of the resamples.
      statistic: Function of weights f32[n] to a pytree of f[]. What does not depend on
        the weights, such as a sort, is computed once for each chunk.
      num_examples: n, the number of examples.
      num_replicates: R, the number of resamples.
      chunk: Number of replicates computed at once; memory grows with chunk times n.

    Returns:
      The pytree of the statistic, each leaf f[R]. Source: Efron 1979.

    Raises:
      ValueError: if a number is less than 1.
    """
    numbers = {
        "num_examples": num_examples,
        "num_replicates": num_replicates,
        "chunk": chunk,
    }
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    fold_in = functools.partial(jax.random.fold_in, key)
    keys = jax.vmap(fold_in)(jnp.arange(num_replicates))

    def replicate(key: jax.Array) -> Any:
        return statistic(resample(key, num_examples))

    return jax.lax.map(replicate, keys, batch_size=min(chunk, num_replicates))


def paired(
    key: jax.Array,
    first: Statistic,
    second: Statistic,
    num_examples: int,
    *,
    num_replicates: int = 1000,
    chunk: int = 50,
) -> Any:
    """Values of `first - second`, of two models on the same resampled examples.

    What makes examples hard for both models cancels, so that the interval of the
    difference is narrower than the intervals of the two suggest.

    Args:
      key: PRNG key of the resamples.
      first: Statistic of one model; see the module.
      second: Statistic of the other model, which gives the same pytree.
      num_examples: n, the same examples in the same order for both.
      num_replicates: R, the number of resamples.
      chunk: Number of replicates computed at once; memory grows with chunk times n.

    Returns:
      The pytree of the differences, each leaf f[R].

    Raises:
      ValueError: if a number is less than 1.
    """

    def difference(weights: jax.Array) -> Any:
        # Widened, because a difference of unsigned statistics would wrap.
        both = (jax.tree.map(widened, f(weights)) for f in (first, second))
        return jax.tree.map(jnp.subtract, *both)

    return bootstrap(
        key, difference, num_examples, num_replicates=num_replicates, chunk=chunk
    )


def interval(replicates: Any, *, level: float = 0.95) -> Any:
    """Percentile intervals of bootstrap replicates.

    Args:
      replicates: Pytree of arrays [R], one value for each resample.
      level: Share of the replicates inside, in (0, 1).

    Returns:
      The pytree, each leaf f[2], the lower and the upper end. Both are NaN where a
      replicate is NaN: an interval of a score that some resamples leave undefined, such
      as `accuracy_90` of a handful of certain predictions, would claim too much.
      Source: Efron & Tibshirani 1993, section 13.3.

    Raises:
      ValueError: if `level` lies outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    ends = jnp.array([(1 - level) / 2, (1 + level) / 2])

    def quantiles(values: jax.Array) -> jax.Array:
        values = widened(values)
        return jnp.quantile(values, ends.astype(values.dtype), axis=0)

    return jax.tree.map(quantiles, replicates)
