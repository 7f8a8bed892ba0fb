"""The suite of ensembles: MC dropout, deep ensembles, both, and over time.

Contract of this file: `ensemble` is a suite, as `suites.settings` describes them. All
ensembles, of all sizes, are scored from one pass over the images.
"""

from collections.abc import Sequence

from spatial_smoothing import ensembles
from spatial_smoothing.ensembles.mixtures import single_with_logits
from spatial_smoothing.evaluation.flops import gflops, pass_flops
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.lineup import (
    SIZES,
    about_ensembles,
    checked_mesh,
    predictor,
    preparation,
    scores_of,
    sizes_for,
    stacked,
)
from spatial_smoothing.evaluation.suites.settings import Setting, check_members, label
from spatial_smoothing.evaluation.suites.temporal import Window
from spatial_smoothing.evaluation.suites.temporal import predictor as temporal_predictor
from spatial_smoothing.evaluation.times import Work, milliseconds, shared_seconds
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import sharding


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
      setting: Settings of the evaluation.
      sizes: Numbers of dropout samples N to score. 1 and `setting.num_samples` are
        added; of the default, those above `setting.num_samples` are left out.
      mc_stages: Parts of the network that have dropout in a second pass of the same
        weights, such as "4" or "3,4,head"; None for no second pass.
      temporal: Numbers of dropout samples of each frame to smooth over time with, each
        one of `sizes`; 1 is added; (0,) for no temporal smoothing.
      past: Number of frames before the present one that temporal smoothing averages
        over, at least 0.
      decay: Temporal smoothing weighs a frame t frames ago by exp(-decay t).
      num_frames: Number of frames of the sequences that are made of the images, at
        least past + 1.

    Returns:
      A row for each ensemble: for several runs first deep ensembles, then each run
      alone; then the ensembles that are smoothed over time, from the same pass. Its
      `gflops` are those of a prediction for one image, or in a stream for one frame.

    Raises:
      ValueError: if the runs are not of one network and data set, or for unusable
        options.
    """
    check(
        runs,
        setting,
        sizes=sizes,
        mc_stages=mc_stages,
        temporal=temporal,
        past=past,
        decay=decay,
        num_frames=num_frames,
    )
    window = Window(past, decay, num_frames)
    stochastic = runs[0].model.has_dropout
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


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    sizes: tuple[int, ...] = SIZES,
    mc_stages: str | None = None,
    temporal: tuple[int, ...] = (0,),
    past: int = 5,
    decay: float = 0.8,
    num_frames: int = 8,
) -> None:
    """Raises ValueError for arguments that `ensemble` cannot use.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Settings of the evaluation.
      sizes: Numbers of dropout samples N to score.
      mc_stages: Parts of the network that have dropout in a second pass.
      temporal: Numbers of dropout samples of each frame to smooth over time with.
      past: Number of frames before the present one.
      decay: Decay of the weights per frame.
      num_frames: Number of frames of the sequences.
    """
    check_members(runs)
    checked_mesh(setting)
    window = Window(past, decay, num_frames)
    if temporal == (0,) and window != Window():
        raise ValueError(
            "past, decay and num_frames are for temporal smoothing; give temporal=1 too"
        )
    sizes = sizes_for(runs, setting, sizes)
    _frame_sizes(temporal, sizes, stochastic=runs[0].model.has_dropout)
    if mc_stages is not None:
        for run in runs:
            _with_dropout_in(run, mc_stages)


def _rows(
    runs: Sequence[Run],
    setting: Setting,
    sizes: Sequence[int],
    frame_sizes: Sequence[int],
    window: Window,
) -> list[Row]:
    """Returns the rows of one pass.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation.
      sizes: Increasing numbers of dropout samples N.
      frame_sizes: Those that are smoothed over time too; () for none.
      window: Length and weights of temporal smoothing.
    """
    names = ensembles.names_of(sizes, num_members=len(runs))
    predict = predictor(runs, setting, sizes, of_sample=single_with_logits)
    if frame_sizes:
        names += ensembles.names_of(frame_sizes, num_members=len(runs), temporal=True)
        predict = temporal_predictor(
            predict,
            predictor(runs, setting, frame_sizes, of_sample=single_with_logits),
            sizes=frame_sizes,
            num_members=len(runs),
            window=window,
        )
    model = runs[0].model
    rows, seconds = scores_of(
        predict,
        stacked(runs),
        setting,
        num_classes=model.num_classes,
        name=label(model, num_members=len(runs)),
    )
    # What each run computes: samples of the image itself, and of every frame before.
    frames = window.num_frames - 1 if frame_sizes else 0
    work = Work(
        members=len(runs),
        samples=sizes[-1] + frames * max(frame_sizes, default=0),
        frames=1 + frames,
    )
    about = about_ensembles(names, runs)
    found = [{**about[name], **rows[name]} for name in names]
    flops = pass_flops(
        ensembles.as_apply(model),
        runs[0].variables,
        image_shape=setting.dataset.image_shape,
    )
    if flops is not None:
        for name, row in zip(names, found, strict=True):
            row["gflops"] = gflops(name, flops)
    if seconds is not None:
        shared = _shared_seconds(runs[0], setting)
        for name, row in zip(names, found, strict=True):
            row["milliseconds"] = milliseconds(
                name, work, seconds, shared=shared, batch_size=setting.batch_size
            )
    return found


def _shared_seconds(run: Run, setting: Setting) -> float:
    """Returns the seconds a batch takes for what its samples share; 0 if no dropout."""
    if not run.model.has_dropout:
        return 0.0
    mesh = checked_mesh(setting)
    data = sharding.load_batches(setting.dataset, setting.batch_size, mesh)
    return shared_seconds(
        ensembles.as_apply(run.model),
        run.variables,
        next(data)["image"],
        prepare=preparation(run),
    )


def _frame_sizes(
    temporal: tuple[int, ...], sizes: Sequence[int], *, stochastic: bool
) -> tuple[int, ...]:
    """Returns the numbers of samples that are smoothed over time, some of `sizes`."""
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
    """Returns a run with dropout in some parts only, as its config could have said."""
    if not run.model.has_dropout:
        raise ValueError(f"mc_stages is for networks with dropout; {run.path} has none")
    if run.model.ensemble == "masksembles":
        raise ValueError(
            f"mc_stages would take masks away that {run.path} was trained with: those "
            "of the ensemble 'masksembles' are in the places of dropout"
        )
    parts = [int(part) if part.isdigit() else part for part in text.split(",")]
    config = {**run.config, "mc_stages": list(dict.fromkeys(parts))}
    model = recipes.build_model(config)
    if set(model.mc_stages) == set(run.model.mc_stages or ()):
        raise ValueError(
            f"{run.path} has dropout in {text} as it was trained; leave out mc_stages, "
            "or give other parts"
        )
    return run._replace(config=config, model=model)
