"""The suite of segmentation: MC dropout at every N, frame by frame and over time.

Contract of this file: `segmentation` is a suite, as `suites.settings` describes them.
Every frame of the videos is given to the network once; all numbers of samples, with and
without temporal smoothing, are scored from this pass. Sets of single images have no
temporal smoothing.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.ensembles import temporal as temporal_lib
from spatial_smoothing.evaluation import frame_times, video_pictures, videos
from spatial_smoothing.evaluation.pixel_rows import pixel_row
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.lineup import (
    SIZES,
    TEMPORAL,
    checked_mesh,
    preparation,
    sizes_for,
)
from spatial_smoothing.evaluation.suites.settings import (
    SMOOTHED,
    Setting,
    label,
    recipe,
)
from spatial_smoothing.evaluation.video_pictures import Window
from spatial_smoothing.evaluation.videos import Method, Step
from spatial_smoothing.lookup import unknown
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits, sharding

TASK = "segmentation"
FORMS = ("stream", "window")
# What the network of MC dropout without its dropout is called.
MEAN_NETWORK = "Mean network"
_STRIP = 7  # frames before the last one in pictures over time
_PAST = 5  # frames of a window before the labelled one, by default


@dataclasses.dataclass(frozen=True)
class _Time:
    """How predictions are smoothed over time.

    Attributes:
      form: "stream" for all frames so far, one pass a frame; "window" for the frames of
        a window.
      past: Number of frames of a window before the present one.
      decay: A frame t frames ago weighs exp(-decay t).
    """

    form: str
    past: int
    decay: float

    def __post_init__(self):
        if self.form not in FORMS:
            raise unknown("form", self.form, FORMS)
        # It raises ValueError if one of the two is out of range.
        temporal_lib.importance(past=self.past, decay=self.decay)
        if self.form == "stream" and self.past != _PAST:
            raise ValueError(
                f"past {self.past} is for form=window; a stream smooths over all "
                "frames so far"
            )


def segmentation(
    runs: Sequence[Run],
    setting: Setting,
    *,
    sizes: tuple[int, ...] = SIZES,
    form: str = "stream",
    past: int = _PAST,
    decay: float = 0.8,
    num_pictures: int = 3,
    speed: bool = True,
) -> list[Row]:
    """Scores the pixels of videos, or of single images.

    Args:
      runs: One run of a network for segmentation.
      setting: Settings of the evaluation; `batch_size` is the number of videos that are
        segmented at once.
      sizes: Numbers of dropout samples N to score; of the default, those above
        `setting.num_samples` are left out.
      form: "stream" or "window". A stream smooths over all frames so far, and gives
        each frame to the network once. A window smooths over `past` frames before each
        labelled one.
      past: Number of frames of a window before the labelled one, at least 0.
      decay: Temporal smoothing weighs a frame t frames ago by exp(-decay t).
      num_pictures: Number of frames that are drawn, at least 0.
      speed: Whether the number of frames in a second is measured.

    Returns:
      A row for the network without dropout, and one for every number of samples; then
      the same with temporal smoothing, if there are videos.

    Raises:
      ValueError: for more than one run, a network or a data set of another task, or
        unusable options.
    """
    run = _checked_run(runs)
    time = _Time(form, past, decay)
    if num_pictures < 0:
        raise ValueError(f"num_pictures must be at least 0, got {num_pictures}")
    sizes = sizes_for(runs, setting, sizes)
    found = _scores(run, setting, sizes, time)
    key = random_bits.key(setting.seed)
    rows = {
        method: {
            **_about(run, method, time),
            **pixel_row(scored, key=key, num_replicates=setting.num_replicates),
        }
        for method, scored in found.items()
    }
    if speed:
        for method, value in _speeds(run, setting, list(rows)):
            rows[method]["frames_per_second"] = value
    windows = _windows(run, setting, sizes[-1], time, num_pictures)
    for is_temporal in (False, True):
        drawn = Method(run.model.rate > 0, sizes[-1], is_temporal)
        if windows and drawn in rows:
            rows[drawn]["arrays"] = _arrays(windows, run, is_temporal)
    return list(rows.values())


def _checked_run(runs: Sequence[Run]) -> Run:
    """The run, if it is one, and of a network for segmentation."""
    if len(runs) != 1:
        raise ValueError(
            f"the suite segmentation takes one run, got {len(runs)}; evaluate one by "
            "one, then --compare them"
        )
    if runs[0].model.task != TASK:
        raise ValueError(
            "the suite segmentation needs a network for segmentation, such as "
            f"unet_mcdo; {runs[0].path} has {runs[0].config['model']}"
        )
    return runs[0]


def _scores(
    run: Run, setting: Setting, sizes: Sequence[int], time: _Time
) -> dict[Method, videos.Scored]:
    """The sums over all pixels, by method."""
    mesh = checked_mesh(setting)
    scores_of = videos.compile_scores(
        ensembles.as_apply(run.model),
        prepare=preparation(run),
        sizes=sizes,
        dropout=run.model.rate > 0,
        smooths=has_videos(setting.dataset),
        decay=time.decay,
        chunk=setting.chunk,
    )
    if time.form == "stream":
        steps = videos.stream_steps(setting.dataset, setting.batch_size)
    else:
        steps = videos.window_steps(setting.dataset, setting.batch_size, past=time.past)
    counted = _counted(steps, setting.dataset.num_examples)
    data = sharding.split_batches(counted, mesh)
    return scores_of(run.variables, random_bits.key(setting.seed), data)


def _counted(steps: Iterable[Step], total: int) -> Iterator[Step]:
    """Yields steps under a bar of the frames that are scored."""
    with progress.task("Frames", total=total) as under_way:
        for step in steps:
            yield step
            under_way.update(under_way.done + int(np.sum(step.scored)))


def has_videos(dataset: Any) -> bool:
    """Returns whether some example follows another frame.

    Args:
      dataset: A `SegmentationDataset`.
    """
    sequences = np.asarray(dataset.frames.sequences)
    return bool((sequences[1:] == sequences[:-1]).any())


def _about(run: Run, method: Method, time: _Time) -> Row:
    """What the row of a method begins with."""
    model, source = run.model, run.source
    text = label(model)
    if model.rate and not method.dropout:
        text = MEAN_NETWORK + (SMOOTHED if any(model.smoothing) else "")
    return {
        "label": text + (TEMPORAL if method.temporal else ""),
        "model": run.config["model"],
        "smoothed": any(model.smoothing),
        "temporal": method.temporal,
        "form": time.form,
        "recipe": recipe(run.config, smoothing=False),
        "dataset": source.name,
        "run": run.name,
        "num_samples": method.num_samples,
        "class_names": list(source.class_names),
    }


def _speeds(
    run: Run, setting: Setting, methods: Sequence[Method]
) -> Iterator[tuple[Method, float]]:
    """Yields each method and its number of frames in a second."""
    speed_of = frame_times.compile_times(
        ensembles.as_apply(run.model), prepare=preparation(run)
    )
    frame = next(setting.dataset.batches(1))["image"]
    variables = jax.device_put(run.variables, jax.local_devices()[0])
    for method in progress.track(methods, total=len(methods), name="Frames a second"):
        samples = method.num_samples if method.dropout else 0
        yield method, speed_of(variables, frame, samples, method.temporal)


def _windows(
    run: Run, setting: Setting, num_samples: int, time: _Time, count: int
) -> list[Window]:
    """Windows that end in some examples, evenly spread over the data set."""
    if not count:
        return []
    dataset = setting.dataset
    window_of = video_pictures.compile_windows(
        ensembles.as_apply(run.model),
        prepare=preparation(run),
        num_samples=num_samples,
        dropout=run.model.rate > 0,
        decay=time.decay,
        chunk=setting.chunk,
    )
    key = random_bits.key(setting.seed)
    variables = jax.device_put(run.variables, jax.local_devices()[0])
    places = (np.arange(count) + 0.7) * dataset.num_examples / count
    positions = sorted({int(place) for place in places})
    past = _STRIP if has_videos(dataset) else 0
    return [
        window_of(variables, key, dataset, position, past)
        for position in progress.track(positions, total=len(positions), name="Pictures")
    ]


def _arrays(
    windows: Sequence[Window], run: Run, is_temporal: bool
) -> dict[str, np.ndarray]:
    """What is drawn of one method: see `report.chapters.segmentation_pictures`.

    Args:
      windows: P windows; the first one is drawn over time.
      run: The run, for the colours of its classes.
      is_temporal: Whether predictions are smoothed over time.
    """
    strip = windows[0]
    return {
        "palette": np.uint8(run.source.palette),
        "images": np.stack([window.images[-1] for window in windows]),
        "labels": np.stack([window.label for window in windows]),
        "classes": np.stack([window.classes[is_temporal][-1] for window in windows]),
        "entropy": np.stack([window.entropy[is_temporal] for window in windows]),
        "strip_images": strip.images,
        "strip_classes": strip.single[is_temporal],
    }
