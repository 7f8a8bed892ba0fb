"""Canonical ensembles: MC dropout, deep ensembles and both, all sizes from one pass."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from spatial_smoothing import distributed, ensembles, logs, mixtures, scoring
from spatial_smoothing.data import augment, batches
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation import Row
from spatial_smoothing.suites.settings import Setting, check_members, label
from spatial_smoothing.workdirs import Run

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)


class Line(NamedTuple):
    """Which ensemble a row is of.

    Attributes:
      label: What it is called.
      run: The workdirs that take part.
      members: How many these are.
      samples: Of each.
    """

    label: str
    run: str
    members: int
    samples: int


def ensemble(runs: Sequence[Run], setting: Setting) -> list[Row]:
    """Scores every ensemble size from one pass of all samples over the test images.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: See there.

    Returns:
      A row for each ensemble; of several runs first deep ensembles, then each alone.

    Raises:
      ValueError: if the runs differ in more than seed.
    """
    check_members(runs)
    model, config = runs[0].model, runs[0].config
    stochastic = model.rate > 0
    sizes = ensemble_sizes(setting.num_samples if stochastic else 1)
    source = runs[0].source
    prepare = lambda images: augment.normalize(images, mean=source.mean, std=source.std)
    mesh = distributed.mesh()
    distributed.check_batch_size(setting.batch_size, mesh)
    passes = scoring.compile_passes(
        mixtures.predictor(
            model,
            prepare=prepare,
            sizes=sizes,
            num_members=len(runs),
            dropout=stochastic,
            chunk=setting.chunk,
        )
    )
    variables = [run.variables for run in runs]
    variables = variables[0] if len(runs) == 1 else ensembles.stack(variables)
    keys = jax.random.split(jax.random.key(setting.seed), 4)

    def data(dataset: AnyDataset, name: str):
        return logs.track(
            distributed.load_batches(dataset, setting.batch_size, mesh),
            total=batches.num_batches(dataset.num_examples, setting.batch_size),
            name=name,
        )

    temperatures = None
    if setting.held_out is not None:
        held_out = data(setting.held_out, "Held-out images")
        temperatures = passes.temperatures(variables, keys[1], held_out)
    lines = _lines(runs, sizes)
    name = label(config["model"], num_members=len(runs))
    scores = passes.scores(
        variables, keys[0], data(setting.dataset, name), temperatures
    )
    ood = None
    if setting.ood is not None:
        ood = passes.scores(variables, keys[2], data(setting.ood[1], setting.ood[0]))
    rows = scoring.rows(
        scores,
        num_classes=source.num_classes,
        temperatures=temperatures,
        ood=ood and (setting.ood[0], ood.examples),
        key=keys[3],
        num_replicates=setting.num_replicates,
    )
    once = _seconds(model, runs[0].variables, prepare, setting) if stochastic else 0.0
    return [
        {
            "label": line.label,
            "model": config["model"],
            "dataset": source.name,
            "run": line.run,
            "num_members": line.members,
            "num_samples": line.members * line.samples,
            **row,
            **_milliseconds(line, scores.seconds, once, len(runs), sizes[-1], setting),
        }
        for line, row in zip(lines, rows, strict=True)
    ]


def ensemble_sizes(num_samples: int) -> tuple[int, ...]:
    """Returns the paper's sizes up to `num_samples`, and this."""
    return tuple(sorted({s for s in (*SIZES, num_samples) if s <= num_samples}))


def _lines(runs: Sequence[Run], sizes: Sequence[int]) -> list[Line]:
    """What the ensembles of `mixtures.predictor` are, in its order."""
    name, paths = runs[0].config["model"], [str(run.path) for run in runs]
    alone = [Line(label(name), path, 1, size) for path in paths for size in sizes]
    if len(runs) == 1:
        return alone
    deep = label(name, num_members=len(runs))
    shapes = [(m, 1) for m in range(1, len(runs))]
    shapes += [(len(runs), size) for size in sizes]
    return [Line(deep, ", ".join(paths), *shape) for shape in shapes] + alone


def _seconds(
    model, variables: Any, prepare: Callable, setting: Setting, *, repeats: int = 3
) -> float:
    """Seconds a batch of what all samples share: the median of some calls."""
    images = next(setting.dataset.batches(setting.batch_size))["image"]
    fixed = jax.jit(lambda v, x: model.apply(v, prepare(x), half="fixed"))
    jax.block_until_ready(fixed(variables, images))
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(fixed(variables, images))
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _milliseconds(
    line: Line,
    seconds: float | None,
    once: float,
    num_runs: int,
    num_samples: int,
    setting: Setting,
) -> dict[str, float]:
    """Time per image of an ensemble, from that of a batch with all runs and samples.

    A run takes `once` for what its samples share, and the same for every sample.
    """
    if seconds is None:
        return {}
    each = max(seconds / num_runs - once, 0.0) / num_samples
    batch = line.members * (once + line.samples * each)
    return {"milliseconds": 1000 * batch / setting.batch_size}
