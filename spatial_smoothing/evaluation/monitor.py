"""The scores by which a training watches itself, at the end of an epoch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing import ensembles, metrics
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation.tallies import compile_tallies
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import processes, sharding


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
      splits: Name of a split, such as "test" -> its data set.
      prepare: Normalises u8[B, H, W, C].
      key: Key of the sample, which is the same in every epoch.
      batch_size: Number of examples at once, a multiple of the number of devices.
      mesh: The mesh of devices.
      members: Number of members; if more than one, the variables are those of a deep
        ensemble, stacked.
      should_stop: Asked before every batch of a process that is alone; where it is
        True, there are no scores. One of several processes evaluates to the end.

    Returns:
      A function of variables to scores such as `test_nll`. Of several members these are
      the means of their scores; the scores of their average are there too, such as
      `test_ensemble_nll`. None where it was told to stop.

    Raises:
      ValueError: if the devices cannot divide a batch.
    """
    sharding.check_batch_size(batch_size, mesh, name="eval_batch_size")
    tallies_of = compile_tallies(
        ensembles.predictor(
            model, prepare=prepare, num_members=members, dropout=model.has_dropout
        )
    )

    def until_told(data: Iterable[Batch]) -> Iterator[Batch]:
        for index, batch in enumerate(data):
            if index and processes.is_alone() and should_stop():
                return
            yield batch

    def scores(variables: dict[str, Any]) -> dict[str, float] | None:
        variables, record = sharding.replicate(variables, mesh), {}
        for split, dataset in splits.items():
            data = sharding.load_batches(dataset, batch_size, mesh)
            tallies = tallies_of(variables, key, until_told(data))
            if processes.is_alone() and should_stop():
                return None
            found = {
                name: metrics.summary(tally)
                for name, tally in ensembles.named(tallies).items()
            }
            record |= _record(split, found, members)
        # Shares of nothing are NaN, which is neither JSON nor a point of a curve.
        return {name: value for name, value in record.items() if not np.isnan(value)}

    return scores


def _record(
    split: str, found: Mapping[ensembles.Ensemble, Mapping[str, float]], members: int
) -> dict[str, float]:
    """The scores of a split, named as in `metrics.jsonl`."""
    each = [scores for name, scores in found.items() if not name.together]
    record = {
        f"{split}_{score}": float(np.mean([scores[score] for scores in each]))
        for score in each[0]
    }
    if members > 1:
        everybody = ensembles.Ensemble(tuple(range(members)), 1, together=True)
        average = found[everybody]
        record |= {f"{split}_ensemble_{k}": value for k, value in average.items()}
    return record
