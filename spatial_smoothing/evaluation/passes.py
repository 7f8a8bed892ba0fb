"""Evaluation: predictions of all ensemble sizes to tallies, to rows.

Contract of this file: `predict(variables, key, images)` maps u8[B, H, W, C] to
log-probabilities f32[N, B, K], one set for each of N ensemble sizes; see
`mixtures.predictor`. Everything is streamed: memory does not depend on the number of
examples.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing import metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.metrics import Tally
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import processes, sharding

Predict = Callable[[dict[str, Any], jax.Array, jax.Array], jax.Array]
Row = dict[str, Any]


def compile_tally(
    predict: Predict, **options
) -> Callable[[dict[str, Any], jax.Array, Iterable[Batch]], Tally]:
    """Compiles `tally(variables, key, data)`, for any number of data sets.

    Args:
      predict: See the module.
      **options: `cutoffs` and `bins` of `metrics.tally`.

    Returns:
      A function to a `Tally` whose fields have a leading axis of N sizes. Batch i draws
      from `fold_in(key, i)`. It is compiled once for all batches of one shape.
    """

    @jax.jit
    def of_batch(variables, key, index, batch: Batch) -> Tally:
        log_probs = predict(variables, jax.random.fold_in(key, index), batch["image"])

        def of_size(log_probs: jax.Array) -> Tally:
            return metrics.tally(
                jnp.exp(log_probs),
                batch["label"],
                batch["mask"],
                log_probs=log_probs,
                **options,
            )

        return jax.vmap(of_size)(log_probs)

    def tally(variables, key, data: Iterable[Batch]) -> Tally:
        total = None
        for index, batch in enumerate(data):
            part = of_batch(variables, key, index, batch)
            # One batch computes while the next is fetched, and no more.
            total = part if index == 0 else jax.block_until_ready(total) + part
        if total is None:
            raise ValueError("there is nothing to evaluate: no batches")
        return sharding.gather(total)

    return tally


def evaluate(
    predict: Predict,
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    key: jax.Array,
    sizes: Sequence[int],
) -> list[Row]:
    """Evaluates one data set once; `compile_tally` and `rows` in one call.

    Args:
      predict: See the module.
      variables: Of the network.
      data: Its batches.
      key: Of the samples.
      sizes: The N ensemble sizes that `predict` returns.

    Returns:
      A row for each size.
    """
    return rows(compile_tally(predict)(variables, key, data), sizes=sizes)


def rows(tally: Tally, *, sizes: Sequence[int]) -> list[Row]:
    """Turns a tally of all sizes into one row of scores for each.

    Args:
      tally: With a leading axis of N sizes.
      sizes: The N ensemble sizes.

    Returns:
      Rows with `num_samples`, `num_examples`, the scores of `metrics.summary`, the same
      under "reference", and "reliability".
    """
    return [
        {"num_samples": int(size), "num_examples": int(part.count), **summaries(part)}
        for size, part in (
            (size, jax.tree.map(lambda leaf, i=index: leaf[i], tally))
            for index, size in enumerate(sizes)
        )
    ]


def summaries(tally: Tally) -> Row:
    """Scores of a tally without leading axes, in both definitions, and its bins."""
    return {
        **metrics.summary(tally),
        "reference": metrics.summary(tally, definition="reference"),
        "reliability": metrics.reliability(tally),
    }


def monitor(
    model: Network,
    splits: Mapping[str, AnyDataset],
    *,
    prepare: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    batch_size: int,
    mesh: Mesh,
    members: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
) -> Callable[[dict[str, Any]], dict[str, float] | None]:
    """Returns a function of variables to the scores of one prediction, for `fit`.

    As the reference does, a network with dropout is monitored by a single sample.

    Args:
      model: The network.
      splits: Name, such as "test" -> data set.
      prepare: Normalises.
      key: Of the sample; the same in every epoch.
      batch_size: Examples at once, a multiple of the mesh's devices.
      mesh: Devices.
      members: If more than one, of a deep ensemble whose variables are stacked.
      should_stop: Asked before every batch of a process that is alone; where True,
        there are no scores. One of several evaluates to the end.

    Returns:
      Variables -> scores such as `test_nll`; of several members the mean of theirs, and
      those of their average, such as `test_ensemble_nll`; None where told to stop.
    """
    sharding.check_batch_size(batch_size, mesh, name="eval_batch_size")
    predict = mixtures.predictor(
        model, prepare=prepare, num_members=members, dropout=model.rate > 0
    )
    compiled = compile_tally(lambda *inputs: predict(*inputs).log_probs())

    def until_told(data: Iterable[Batch]) -> Iterator[Batch]:
        for index, batch in enumerate(data):
            if index and processes.is_alone() and should_stop():
                return
            yield batch

    def scores(variables: dict[str, Any]) -> dict[str, float] | None:
        variables, record = sharding.replicate(variables, mesh), {}
        for split, dataset in splits.items():
            data = sharding.load_batches(dataset, batch_size, mesh)
            tally = compiled(variables, key, until_told(data))
            if processes.is_alone() and should_stop():
                return None
            found = [
                metrics.summary(jax.tree.map(lambda leaf, i=index: leaf[i], tally))
                for index in range(len(tally.count))
            ]
            each = found[-members:]  # as `mixtures.predictor` orders them
            record |= {
                f"{split}_{name}": float(np.mean([one[name] for one in each]))
                for name in each[0]
            }
            if members > 1:
                average = found[members - 1]
                record |= {f"{split}_ensemble_{k}": v for k, v in average.items()}
        return record

    return scores
