"""Ensembles: MC dropout, deep ones, both, over time; all sizes from one pass."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from spatial_smoothing import distributed, ensembles, logs, mixtures, recipes, scoring
from spatial_smoothing.data import augment, batches
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation import Row
from spatial_smoothing.suites.settings import Setting, check_members, label
from spatial_smoothing.suites.temporal import Window
from spatial_smoothing.suites.temporal import predictor as temporal_predictor
from spatial_smoothing.workdirs import Run

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)
TEMPORAL = " + temporal"


class Line(NamedTuple):
    """Which ensemble a row is of.

    Attributes:
      label: What it is called.
      run: The workdirs that take part.
      members: How many these are.
      samples: Of each, and of each frame.
    """

    label: str
    run: str
    members: int
    samples: int


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
      ValueError: if the runs differ in more than seed, or for unusable options.
    """
    check_members(runs)
    window = Window(past, decay, num_frames)
    if temporal == (0,) and window != Window():
        raise ValueError(
            "past, decay and num_frames are for temporal smoothing; give temporal=1 too"
        )
    stochastic = runs[0].model.rate > 0
    sizes = ensemble_sizes(setting.num_samples, sizes=sizes) if stochastic else (1,)
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
    model, config = runs[0].model, runs[0].config
    source = runs[0].source
    prepare = lambda images: augment.normalize(images, mean=source.mean, std=source.std)
    predictor = functools.partial(
        mixtures.predictor,
        model,
        prepare=prepare,
        num_members=len(runs),
        dropout=model.rate > 0,
        chunk=setting.chunk,
    )
    lines, smooth = lines_of(runs, sizes), lines_of(runs, frame_sizes)
    predict = predictor(sizes=sizes)
    if frame_sizes:
        predict = temporal_predictor(
            predict,
            predictor(sizes=frame_sizes),
            shared=[lines.index(line) for line in smooth],
            num_members=len(runs),
            window=window,
        )
    rows, seconds = _scored(runs, setting, predict)
    once = _seconds(model, runs[0].variables, prepare, setting) if model.rate else 0.0
    # Of each run: samples of the image itself, and of every frame before it.
    frames = window.num_frames - 1 if frame_sizes else 0
    work = Work(len(runs), 1 + frames, sizes[-1] + frames * max(frame_sizes, default=0))
    labels = [line.label for line in lines] + [
        f"{line.label}{TEMPORAL}" for line in smooth
    ]
    return [
        {
            "label": name,
            "model": config["model"],
            "dataset": source.name,
            "run": line.run,
            "num_members": line.members,
            "num_samples": line.members * line.samples,
            **row,
            **_milliseconds(line, work, seconds, once, setting.batch_size),
        }
        for name, line, row in zip(labels, [*lines, *smooth], rows, strict=True)
    ]


def _scored(
    runs: Sequence[Run], setting: Setting, predict: scoring.Predict
) -> tuple[list[Row], float | None]:
    """What the passes say of each ensemble, and the seconds of a batch."""
    mesh = distributed.mesh()
    distributed.check_batch_size(setting.batch_size, mesh)
    passes = scoring.compile_passes(predict)
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
    name = _label(runs[0], num_members=len(runs))
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


def ensemble_sizes(
    num_samples: int, *, sizes: tuple[int, ...] = SIZES
) -> tuple[int, ...]:
    """Returns increasing sizes from 1 to `num_samples`, both included.

    Raises:
      ValueError: for sizes that are not the default and out of this range.
    """
    if sizes != SIZES and not all(0 < size <= num_samples for size in sizes):
        raise ValueError(
            f"sizes must be between 1 and num_samples, {num_samples}, got "
            f"{','.join(map(str, sizes))}"
        )
    return tuple(sorted({1, num_samples, *(s for s in sizes if s <= num_samples)}))


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
    config = {**run.config, "mc_stages": parts}
    return run._replace(config=config, model=recipes.build_model(config))


def lines_of(runs: Sequence[Run], sizes: Sequence[int]) -> list[Line]:
    """What the ensembles of `mixtures.predictor` are, in its order."""
    if not sizes:
        return []
    paths = [run.name for run in runs]
    alone = [Line(_label(runs[0]), path, 1, size) for path in paths for size in sizes]
    if len(runs) == 1:
        return alone
    deep = _label(runs[0], num_members=len(runs))
    shapes = [(m, 1) for m in range(1, len(runs))]
    shapes += [(len(runs), size) for size in sizes]
    return [Line(deep, ", ".join(paths), *shape) for shape in shapes] + alone


def _label(run: Run, **options) -> str:
    return label(run.config["model"], mc_stages=run.config.get("mc_stages"), **options)


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
