"""The index of evaluations: name -> function of runs -> rows.

Contract of this file: a suite takes the members of an ensemble (most often one run) and
options, and returns rows for `report`; see `evaluation.rows`.
"""

from collections.abc import Mapping, Sequence

import jax

from spatial_smoothing import distributed, ensembles, evaluation, logs
from spatial_smoothing.data import augment, batches, sources
from spatial_smoothing.evaluation import Row
from spatial_smoothing.models import zoo
from spatial_smoothing.workdirs import Run

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)


def ensemble(
    runs: Sequence[Run],
    dataset: sources.Dataset,
    *,
    num_samples: int = 50,
    batch_size: int = 128,
    chunk: int | None = None,
    seed: int = 0,
) -> list[Row]:
    """Scores every ensemble size from one pass of `num_samples` samples.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      dataset: The examples.
      num_samples: Monte Carlo dropout samples of each member, at least 1; a network
        without dropout makes one prediction whatever this says.
      batch_size: Examples at once.
      chunk: Samples at once; None for what suits the device.
      seed: Of the dropout masks.

    Returns:
      A row for each ensemble size.

    Raises:
      ValueError: if `num_samples` is less than 1, or the runs differ in more than seed.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    first = runs[0]
    _check_members(runs)
    stochastic = first.model.rate > 0
    sizes = ensemble_sizes(len(runs), num_samples if stochastic else 1)
    source = sources.source(first.config["dataset"])
    mesh = distributed.mesh()
    distributed.check_batch_size(batch_size, mesh)
    predict = ensembles.predictor(
        first.model,
        prepare=lambda images: augment.normalize(
            images, mean=source.mean, std=source.std
        ),
        sizes=sizes,
        num_members=len(runs),
        num_samples=num_samples if stochastic else 0,
        chunk=chunk,
    )
    name = label(first.config["model"], num_members=len(runs))
    variables = [run.variables for run in runs]
    rows = evaluation.evaluate(
        predict,
        variables[0] if len(runs) == 1 else ensembles.stack(variables),
        logs.track(
            distributed.split_batches(
                batches.sequential(*dataset, batch_size=batch_size), mesh
            ),
            total=batches.num_batches(len(dataset.labels), batch_size),
            name=name,
        ),
        key=jax.random.key(seed),
        sizes=sizes,
    )
    about = {
        "label": name,
        "model": first.config["model"],
        "dataset": first.config["dataset"],
        "num_members": len(runs),
    }
    return [{**about, **row} for row in rows]


SUITES = {"ensemble": ensemble}


def ensemble_sizes(num_members: int, num_samples: int) -> tuple[int, ...]:
    """Returns the sizes reported for M members with S samples each.

    Every number of members up to M at one sample each, then M times the paper's sizes
    up to S, and M S itself.
    """
    per_member = {size for size in (*SIZES, num_samples) if size <= num_samples}
    sizes = {num_members * size for size in per_member} | {*range(1, num_members)}
    return tuple(sorted(sizes))


def label(name: str, *, num_members: int = 1) -> str:
    """Returns what a method is called in reports, such as "MC dropout + smoothing"."""
    arguments = zoo.spec(name).arguments
    method = "MC dropout" if arguments["rate"] else "Deterministic"
    if num_members > 1:
        method = "Deep ensemble" + (" of MC dropout" if arguments["rate"] else "")
    return method + (" + smoothing" if any(arguments["smoothing"]) else "")


def distinct_labels(groups: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Joins the rows of several workdirs, telling apart those of one label.

    Args:
      groups: Workdir -> its rows.

    Returns:
      All rows; where two workdirs share a label, it is followed by the workdir's name.
    """
    owners: dict[str, set[str]] = {}
    for workdir, rows in groups.items():
        for row in rows:
            owners.setdefault(row["label"], set()).add(workdir)
    return [
        row
        if len(owners[row["label"]]) == 1
        else {**row, "label": f"{row['label']} ({workdir})"}
        for workdir, rows in groups.items()
        for row in rows
    ]


def _check_members(runs: Sequence[Run]) -> None:
    """Members of an ensemble may differ in seed, and in nothing that shapes them."""
    for run in runs[1:]:
        different = [
            f"{name} ({runs[0].config.get(name)!r} and {run.config.get(name)!r})"
            for name in sorted({*runs[0].config, *run.config} - {"seed"})
            if runs[0].config.get(name) != run.config.get(name)
        ]
        if run.model != runs[0].model:
            raise ValueError(
                f"{runs[0].path} and {run.path} cannot be one ensemble: they differ in "
                f"{', '.join(different)}"
            )
