"""What is evaluated: all ensembles that some runs make, predicting in one pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from spatial_smoothing import distributed, ensembles, mixtures
from spatial_smoothing.data import augment
from spatial_smoothing.evaluation import Predict, Row
from spatial_smoothing.suites.ensemble import ensemble_sizes, lines_of
from spatial_smoothing.suites.settings import Setting, check_members
from spatial_smoothing.workdirs import Run


class Lineup(NamedTuple):
    """R ensembles of some runs.

    Attributes:
      about: What the rows of each begin with.
      predict: `(variables, key, images) -> log-probabilities f32[R, B, K]`.
      variables: Of the runs, as `predict` takes them.
      mesh: Of all devices.
    """

    about: list[Row]
    predict: Predict
    variables: dict[str, Any]
    mesh: Mesh


def lineup(runs: Sequence[Run], setting: Setting, *, sizes: tuple[int, ...]) -> Lineup:
    """Returns the ensembles that the suite `ensemble` scores.

    Raises:
      ValueError: if the runs differ in more than seed, or for an unusable batch size
        or sizes.
    """
    check_members(runs)
    model, config = runs[0].model, runs[0].config
    stochastic = model.rate > 0
    sizes = ensemble_sizes(setting.num_samples, sizes=sizes) if stochastic else (1,)
    source = runs[0].source
    mesh = distributed.mesh()
    distributed.check_batch_size(setting.batch_size, mesh)
    predict = mixtures.predictor(
        model,
        prepare=lambda x: augment.normalize(x, mean=source.mean, std=source.std),
        sizes=sizes,
        num_members=len(runs),
        dropout=stochastic,
        chunk=setting.chunk,
    )
    variables = [run.variables for run in runs]
    about = [
        {
            "label": line.label,
            "model": config["model"],
            "dataset": source.name,
            "run": line.run,
            "num_members": line.members,
            "num_samples": line.members * line.samples,
        }
        for line in lines_of(runs, sizes)
    ]

    def log_probs(variables, key, images) -> jax.Array:
        return predict(variables, key, images).log_probs()

    stacked = variables[0] if len(runs) == 1 else ensembles.stack(variables)
    return Lineup(about, log_probs, stacked, mesh)
