"""Out-of-distribution detection in the form of OpenOOD, for every ensemble size.

Contract of this file: `ood` is a suite, as `suites.settings` describes them. One pass
over each set of images gives the confidences of all ensembles; another one, without
dropout, gives those of features.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.evaluation import feature_confidences
from spatial_smoothing.evaluation.confidences import (
    AVERAGES,
    FEATURES,
    WRONG,
    Confidence,
)
from spatial_smoothing.evaluation.detection import (
    DISTANCES,
    Detected,
    curves,
    detect,
)
from spatial_smoothing.evaluation.features import last_layer
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.lineup import (
    SIZES,
    about_ensembles,
    checked_mesh,
    sizes_for,
)
from spatial_smoothing.evaluation.suites.ood_passes import (
    Values,
    of_features,
    of_predictions,
)
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    UnsuitableError,
    check_list,
    check_members,
)
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits

# "ddu" keeps a covariance for each class: gigabytes for a thousand classes.
_ON_REQUEST = ("ddu",)
ALL_CONFIDENCES = (*AVERAGES, *feature_confidences.NAMES)
CONFIDENCES = tuple(name for name in ALL_CONFIDENCES if name not in _ON_REQUEST)


def ood(
    runs: Sequence[Run],
    setting: Setting,
    *,
    confidences: tuple[str, ...] = CONFIDENCES,
    sizes: tuple[int, ...] = SIZES,
    num_images: int = 0,
) -> list[Row]:
    """Scores how well confidences tell the images of other data sets.

    Constants of confidences are the published ones, or, with a validation set, those
    with the highest AUROC between held-out images and that set. Features are those of
    passes without dropout; of a deep ensemble, the confidences of its members are
    averaged.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Settings of the evaluation, with `ood_sets`.
      confidences: Names of confidences, some of `ALL_CONFIDENCES`.
      sizes: Numbers of dropout samples N to score; of the default, those above
        `setting.num_samples` are left out.
      num_images: Number of training images that confidences of features are fitted to,
        drawn at random; 0 for all.

    Returns:
      For each ensemble and confidence a row for each set, with `ood`, its name, and
      `distance`, near or far; and a row of means for near and for far sets, without
      `ood`. `confidence` and `average` name the confidence, and `constant` what was
      chosen for it. Scores are those of `evaluation.detection`. Confidences of features
      have rows of one sample only. Rows of the fewest and of the most samples have
      `arrays`, the curves to draw.

    Raises:
      ValueError: as `check`.
    """
    check(runs, setting, confidences=confidences, num_images=num_images)
    sizes = sizes_for(runs, setting, sizes)
    key = random_bits.key(setting.seed)
    found: dict[Ensemble, dict[Confidence, Values]] = {}
    named = of_predictions(runs, setting, confidences, sizes=sizes, key=key)
    for name, values in named.items():
        found.setdefault(name, {}).update(values)
    named = of_features(runs, setting, confidences, num_images=num_images)
    for name, values in named.items():
        found.setdefault(name, {}).update(values)
    names = [
        name
        for name in ensembles.names_of(sizes, num_members=len(runs))
        if name in found
    ]
    about = about_ensembles(names, runs)
    drawn = {min(sizes), max(sizes)}
    # The same resamples for all, so that differences between rows are no chance.
    bootstrap_key = jax.random.fold_in(key, 1)
    rows = []
    total = sum(len(found[name]) for name in names)
    with progress.counted(total=total, name="Detection") as count:
        for name in names:
            for confidence in _ordered(found[name]):
                rows += _rows(
                    about[name] | _about(confidence, found[name][confidence]),
                    found[name][confidence],
                    setting,
                    key=bootstrap_key,
                    is_drawn=name.num_samples in drawn,
                )
                count()
    return rows


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    confidences: tuple[str, ...] = CONFIDENCES,
    sizes: tuple[int, ...] = SIZES,
    num_images: int = 0,
) -> None:
    """Raises ValueError for arguments that `ood` cannot use.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Settings of the evaluation, with `ood_sets`.
      confidences: Names of confidences, some of `ALL_CONFIDENCES`.
      sizes: Numbers of dropout samples N to score, each at least 1.
      num_images: Number of training images that features are compared with; 0 for all.

    Raises:
      UnsuitableError: if features are asked of a network that has none.
      ValueError: if there are no sets, the runs are not of one network and data set, a
        confidence is unknown, or there are no held-out images to choose constants on.
    """
    check_members(runs)
    checked_mesh(setting)
    check_list("--confidences", confidences)
    for name in confidences:
        lookup(dict.fromkeys(ALL_CONFIDENCES), name, "confidence")
    sizes_for(runs, setting, sizes)
    if setting.ood_sets is None or not setting.ood_sets.tested:
        raise ValueError("the suite ood needs sets of images: --ood=near:NAME,far:NAME")
    if setting.ood_sets.validation is not None and setting.held_out is None:
        raise ValueError(
            "--ood_validation chooses constants on held-out images, of which the run "
            "has none; train with --config.val_fraction=0.1, or leave it out"
        )
    if num_images < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {num_images}")
    if set(confidences) & set(feature_confidences.NAMES):
        run = runs[0]
        images = jax.ShapeDtypeStruct((1, *setting.dataset.image_shape), np.float32)
        try:
            last_layer(run.model, run.variables, images)
        except ValueError as error:
            raise UnsuitableError(f"the suite ood: {error}") from error


def _ordered(values: Mapping[Confidence, Values]) -> list[Confidence]:
    """Confidences in the order of reports: by average, then as in `CONFIDENCES`."""
    return sorted(
        (each for each in values if each.name != WRONG),
        key=lambda each: (
            each.average == FEATURES,
            each.average != "probabilities",
            ALL_CONFIDENCES.index(each.name),
        ),
    )


def _about(confidence: Confidence, values: Values) -> Row:
    """What rows of a confidence have in common."""
    return {
        "confidence": confidence.name,
        "average": confidence.average,
        "constant": values.constant,
    }


def _rows(
    about: Row,
    values: Values,
    setting: Setting,
    *,
    key: jax.Array,
    is_drawn: bool,
) -> list[Row]:
    """The rows of one confidence of one ensemble.

    Args:
      about: What the rows begin with.
      values: Confidences of all images.
      setting: Settings of the evaluation.
      key: Key of the bootstrap.
      is_drawn: Whether rows have arrays for figures.
    """
    sets = setting.ood_sets.tested
    singles, means = detect(
        key,
        values.inside,
        values.wrong,
        values.outside,
        distances=[each.distance for each in sets],
        num_replicates=setting.num_replicates,
    )
    about = {**about, "num_examples": len(values.inside)}
    rows = []
    for each, outside, found in zip(sets, values.outside, singles, strict=True):
        row = {**about, "ood": each.name, "distance": each.distance}
        row |= {"num_ood": len(outside), **_scores(found)}
        if is_drawn and (arrays := curves(values.inside, outside)):
            row["arrays"] = arrays
        rows.append(row)
    for distance in DISTANCES:
        if distance in means:
            count = sum(each.distance == distance for each in sets)
            row = {**about, "ood": None, "distance": distance, "num_sets": count}
            rows.append({**row, **_scores(means[distance])})
    return rows


def _scores(found: Detected) -> Row:
    row: Row = dict(found.scores)
    if found.intervals:
        row["intervals"] = found.intervals
    return row
