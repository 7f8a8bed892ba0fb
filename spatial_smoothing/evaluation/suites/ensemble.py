"""Ensembles: MC dropout, deep ones, both, over time; all sizes from one pass."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from spatial_smoothing.data import batches
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation import scoring
from spatial_smoothing.evaluation.passes import Row
from spatial_smoothing.evaluation.suites.lineup import (
    SIZES,
    Line,
    about_line,
    checked_mesh,
    lines_of,
    predictor,
    preparation,
    sizes_for,
    stacked,
)
from spatial_smoothing.evaluation.suites.settings import Setting, check_members, label
from spatial_smoothing.evaluation.suites.temporal import Window
from spatial_smoothing.evaluation.suites.temporal import predictor as temporal_predictor
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, sharding

TEMPORAL = " + temporal"


class Work(NamedTuple):
    """What a pass does for an image: frames and samples are those of each run."""

    runs: int
    frames: int
    samples: int


def ensemble(
    runs: Sequence[Run],
    setting: Setting,
    *,
    sizes: tuple[int, ...] = SIZES,
    mc_stages: str | None = None,
    temporal: tuple[int, ...] = (0,),
    past: int = 5,
    decay: float = 0.8,
    num_frames: int = 8,
) -> list[Row]:
    """Scores ensembles of every size from one pass of all samples over the images.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: See there.
      sizes: Samples N of dropout; those above `setting.num_samples` are left out of the
        default, and this is one of them.
      mc_stages: Where to have dropout in a further pass of the same weights, such as
        "4" or "3,4,head"; None for no such pass.
      temporal: Samples of each frame to smooth over time with, 1 being one of them; 0
        for no temporal smoothing.
      past: Frames before the present one that smoothing takes in.
      decay: A frame t frames ago weighs exp(-decay t).
      num_frames: Length of the sequences, at least past + 1.

    Returns:
      A row for each ensemble; of several runs first deep ensembles, then each alone;
      and those smoothed over time, from the same pass.

    Raises:
      ValueError: if the runs are not of one network and data set, or for unusable
        options.
    """
    check_members(runs)
    window = Window(past, decay, num_frames)
    if temporal == (0,) and window != Window():
        raise ValueError(
            "past, decay and num_frames are for temporal smoothing; give temporal=1 too"
        )
    stochastic = runs[0].model.rate > 0
    sizes = sizes_for(runs, setting, sizes)
    frame_sizes = _frame_sizes(temporal, sizes, stochastic=stochastic)
    passes = [runs]
    if mc_stages is not None:
        passes.append([_with_dropout_in(run, mc_stages) for run in runs])
    return [
        row
        for group in passes
        for row in _rows(group, setting, sizes, frame_sizes, window)
    ]


def _rows(
    runs: Sequence[Run],
    setting: Setting,
    sizes: Sequence[int],
    frame_sizes: Sequence[int],
    window: Window,
) -> list[Row]:
    """The rows of one pass; `frame_sizes` are those smoothed over time."""
    lines, smooth = lines_of(runs, sizes), lines_of(runs, frame_sizes)
    predict = predictor(runs, setting, sizes)
    if frame_sizes:
        predict = temporal_predictor(
            predict,
            predictor(runs, setting, frame_sizes),
            shared=[lines.index(line) for line in smooth],
            num_members=len(runs),
            window=window,
        )
    rows, seconds = _scored(runs, setting, predict)
    once = 0.0
    if runs[0].model.rate:
        once = _seconds(runs[0], preparation(runs[0]), setting)
    # Of each run: samples of the image itself, and of every frame before it.
    frames = window.num_frames - 1 if frame_sizes else 0
    work = Work(len(runs), 1 + frames, sizes[-1] + frames * max(frame_sizes, default=0))
    about = [about_line(line, runs) for line in [*lines, *smooth]]
    for row in about[len(lines) :]:
        row["label"] += TEMPORAL
    return [
        {
            **first,
            **row,
            **_milliseconds(line, work, seconds, once, setting.batch_size),
        }
        for first, line, row in zip(about, [*lines, *smooth], rows, strict=True)
    ]


def _scored(
    runs: Sequence[Run], setting: Setting, predict: scoring.Predict
) -> tuple[list[Row], float | None]:
    """What the passes say of each ensemble, and the seconds of a batch."""
    mesh = checked_mesh(setting)
    passes = scoring.compile_passes(predict)
    variables = stacked(runs)
    keys = jax.random.split(jax.random.key(setting.seed), 4)

    def data(dataset: AnyDataset, name: str):
        return progress.track(
            sharding.load_batches(dataset, setting.batch_size, mesh),
            total=batches.num_batches(dataset.num_examples, setting.batch_size),
            name=name,
        )

    temperatures = None
    if setting.held_out is not None:
        held_out = data(setting.held_out, "Held-out images")
        temperatures = passes.temperatures(variables, keys[1], held_out)
    name = label(runs[0].model, num_members=len(runs))
    scores = passes.scores(
        variables, keys[0], data(setting.dataset, name), temperatures
    )
    ood = None
    if setting.ood is not None:
        ood = passes.scores(variables, keys[2], data(setting.ood[1], setting.ood[0]))
    rows = scoring.rows(
        scores,
        num_classes=runs[0].model.num_classes,
        temperatures=temperatures,
        ood=ood and (setting.ood[0], ood.examples),
        key=keys[3],
        num_replicates=setting.num_replicates,
    )
    return rows, scores.seconds


def _frame_sizes(
    temporal: tuple[int, ...], sizes: Sequence[int], *, stochastic: bool
) -> tuple[int, ...]:
    """The samples of a frame that are smoothed over time, some of `sizes`."""
    if temporal == (0,):
        return ()
    unusable = [size for size in temporal if size not in sizes] if stochastic else []
    if unusable:
        raise ValueError(
            f"temporal must be some of the sizes {','.join(map(str, sizes))}, got "
            f"{','.join(map(str, temporal))}"
        )
    return tuple(sorted({1, *temporal})) if stochastic else (1,)


def _with_dropout_in(run: Run, text: str) -> Run:
    """The run with dropout in some parts only, as its config could have said."""
    if not run.model.rate:
        raise ValueError(f"mc_stages is for networks with dropout; {run.path} has none")
    parts = [int(part) if part.isdigit() else part for part in text.split(",")]
    config = {**run.config, "mc_stages": list(dict.fromkeys(parts))}
    model = recipes.build_model(config)
    if set(model.mc_stages) == set(run.model.mc_stages or ()):
        raise ValueError(
            f"{run.path} has dropout in {text} as it was trained; leave out mc_stages, "
            "or give other parts"
        )
    return run._replace(config=config, model=model)


def _seconds(
    run: Run, prepare: Callable, setting: Setting, *, repeats: int = 3
) -> float:
    """Seconds a batch of what all samples share: the median of some calls.

    The batch lies on the devices as those of the pass do.
    """
    data = sharding.load_batches(setting.dataset, setting.batch_size, sharding.mesh())
    images = next(data)["image"]
    fixed = jax.jit(lambda v, x: run.model.apply(v, prepare(x), half="fixed"))
    jax.block_until_ready(fixed(run.variables, images))
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(fixed(run.variables, images))
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _milliseconds(
    line: Line, work: Work, seconds: float | None, once: float, batch_size: int
) -> dict[str, float]:
    """Time of an image or, in a stream, of a frame, from that of a batch of the pass.

    A frame takes `once` for what its samples share, and the same for every sample.
    """
    if seconds is None:
        return {}
    each = max(seconds / work.runs - work.frames * once, 0.0) / work.samples
    batch = line.members * (once + line.samples * each)
    return {"milliseconds": 1000 * batch / batch_size}
