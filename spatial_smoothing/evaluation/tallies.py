"""Passes over data that return tallies: sums over examples, a few numbers each.

Contract of this file: everything is streamed, so that memory does not depend on the
number of examples. Batch number i draws from `fold_in(key, i)`. What a pass returns has
the structure of the mixtures that are predicted, with a `Tally` in place of each.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing import metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles import Predict, map_mixtures
from spatial_smoothing.ensembles.mixtures import Mixture
from spatial_smoothing.metrics import Tally
from spatial_smoothing.runtime import sharding


def compile_tallies(
    predict: Predict, **options
) -> Callable[[Any, jax.Array, Iterable[Batch]], Any]:
    """Compiles `tallies(variables, key, data)`, for any number of data sets.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`. Their
        extra scores are not used.
      **options: `cutoffs` and `bins` of `metrics.tally`.

    Returns:
      A function to tallies, in the structure of the predicted mixtures and with their
      leading axes. It is compiled once for all batches of one shape. It raises
      ValueError if there are no batches.
    """
    of_batch = jax.jit(batch_tallies(predict, **options))

    def tallies(variables: Any, key: jax.Array, data: Iterable[Batch]) -> Any:
        total = None
        for index, batch in enumerate(data):
            part = of_batch(variables, key, index, batch)
            # One batch computes while the next is fetched, and no more.
            total = part if index == 0 else add(jax.block_until_ready(total), part)
        if total is None:
            raise ValueError("there is nothing to evaluate: no batches")
        return sharding.gather(total)

    return tallies


def batch_tallies(predict: Predict, **options) -> Callable[..., Any]:
    """Returns a function of one batch, to be compiled, that `compile_tallies` calls.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`; see `ensembles`.
      **options: `cutoffs` and `bins` of `metrics.tally`.

    Returns:
      `(variables, key, index, batch)`, with the number of the batch, to tallies.
    """

    def of_batch(variables: Any, key: jax.Array, index: jax.Array, batch: Batch) -> Any:
        key = jax.random.fold_in(key, index)
        mixtures = predict(variables, key, batch["image"]).mixtures
        return map_mixtures(
            lambda mixture: tally_of(mixture, batch, **options), mixtures
        )

    return of_batch


def tally_of(mixture: Mixture, batch: Batch, **options) -> Tally:
    """Returns the tally of a mixture for a batch.

    Args:
      mixture: Predictions for the B images of the batch, without leading axes.
      batch: With `label` i32[B] and `mask` bool[B]; of segmentation, both [B, H, W].
      **options: `cutoffs` and `bins` of `metrics.tally`.
    """
    log_probs = mixture.log_probs()
    # The examples of segmentation are its pixels.
    log_probs = log_probs.reshape(-1, log_probs.shape[-1])
    return metrics.tally(
        jnp.exp(log_probs),
        batch["label"].reshape(-1),
        batch["mask"].reshape(-1),
        log_probs=log_probs,
        **options,
    )


def add(one: Any, other: Any) -> Any:
    """Adds two pytrees of tallies of one structure."""
    is_tally = lambda x: isinstance(x, Tally)
    return jax.tree.map(lambda a, b: a + b, one, other, is_leaf=is_tally)
