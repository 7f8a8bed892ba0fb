"""Robustness to corruptions: all scores of every corruption, severity and ensemble.

Contract of this file: `corruption` is a suite, as `suites.settings` describes them. All
sets of images share one compiled step; their batches are made or read while the device
computes.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.data import datasets
from spatial_smoothing.data.corruption import corrupted_sets
from spatial_smoothing.data.corruption.baselines import CLEAN, Baseline
from spatial_smoothing.data.corruption.corrupted_sets import CorruptedSet
from spatial_smoothing.data.corruption.transforms import NAMES, SEVERITIES
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.evaluation.rows import Row, tally_row
from spatial_smoothing.evaluation.suites import normalizers
from spatial_smoothing.evaluation.suites.lineup import (
    SIZES,
    Contest,
    contest,
    sizes_for,
)
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    check_list,
    check_members,
)
from spatial_smoothing.evaluation.tallies import compile_tallies
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits, sharding

Pair = tuple[str, int]  # corruption and severity


def corruption(
    runs: Sequence[Run],
    setting: Setting,
    *,
    corruptions: tuple[str, ...] = NAMES,
    severities: tuple[int, ...] = SEVERITIES,
    corrupted_dir: str | None = None,
    normalizer: str = normalizers.NONE,
    sizes: tuple[int, ...] = SIZES,
    num_images: int = 0,
) -> list[Row]:
    """Scores clean and corrupted images, and the means over corruptions.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Settings of the evaluation. Its images are the clean ones, and those to
        corrupt; the images of a folder must have been made of them.
      corruptions: Names of corruptions of `data.corruption.transforms`. The means leave
        out the extra ones, which are not part of the benchmark.
      severities: Severities, each an int from 1 to 5.
      corrupted_dir: Folder that `corrupted_sets.read` reads; None to make the images.
      normalizer: What the means are divided by: "none", "alexnet", "imagenet" or a
        workdir; `normalizers.load` describes them.
      sizes: Numbers of dropout samples N to score; of the default, those above
        `setting.num_samples` are left out.
      num_images: Number of images of each set, drawn at random, the same ones of all
        sets; 0 for all.

    Returns:
      For each ensemble a row of the clean images, with `corruption` "clean" and
      `severity` 0, and one for each corruption and severity, with the scores of
      `evaluation.tally_row`; and, unless all corruptions are extra, a row without these
      two, with the means of `normalizers.aggregate` and the name of the `normalizer`.
      The first row has `arrays`, the first image of every corruption by severity.

    Raises:
      ValueError: Unknown names; data or a normaliser are absent or damaged.
    """
    check(
        runs,
        setting,
        corruptions=corruptions,
        severities=severities,
        corrupted_dir=corrupted_dir,
        normalizer=normalizer,
        sizes=sizes,
        num_images=num_images,
    )
    images = _images(runs, setting, corrupted_dir)
    asked = [(name, severity) for name in corruptions for severity in severities]
    clean = _clean(images, setting, asked[0], num_images, corrupted_dir)
    scope = _scope(runs, setting, images, clean, asked)
    baseline = normalizers.load(normalizer, scope)
    members = contest(runs, setting, sizes=sizes)
    options = {"folder": corrupted_dir, "num_images": num_images, "sizes": sizes}
    partial = setting.partial("corruption", runs, {"images": images.data, **options})
    done = {(found["corruption"], found["severity"]) for found in partial.rows}
    missing = [pair for pair in (CLEAN, *asked) if pair not in done]
    scores_of = _compiled(members, setting)
    for pair in progress.track(missing, total=len(missing), name="Corruptions"):
        if pair == CLEAN:
            dataset = clean
        else:
            dataset = datasets.some(images.load(*pair), num_images)
        rows = scores_of(dataset)
        partial.append({"corruption": pair[0], "severity": pair[1], "rows": rows})
    # (corruption, severity) -> the scores of each ensemble, in the order of `about`.
    scores = {(f["corruption"], f["severity"]): f["rows"] for f in partial.rows}
    about = [{**row, "data": images.data} for row in members.about.values()]
    rows = [
        {**of_ensemble, **_named(images, pair), **found}
        for pair in (CLEAN, *asked)
        for of_ensemble, found in zip(about, scores[pair], strict=True)
    ]
    if scope.corruptions:
        rows += _means(about, scores, scope, baseline)
    with progress.status("Corruptions: images to show"):
        rows[0]["arrays"] = _sheet(images, corruptions, severities, setting)
    return rows


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    corruptions: tuple[str, ...] = NAMES,
    severities: tuple[int, ...] = SEVERITIES,
    corrupted_dir: str | None = None,
    normalizer: str = normalizers.NONE,
    sizes: tuple[int, ...] = SIZES,
    num_images: int = 0,
) -> None:
    """Raises ValueError for arguments that `corruption` cannot use.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation.
      corruptions: Names of corruptions.
      severities: Severities, each an int from 1 to 5.
      corrupted_dir: Folder of the corrupted images; None to make them.
      normalizer: What the means are divided by.
      sizes: Numbers of dropout samples N to score.
      num_images: Number of images of each set; 0 for all.
    """
    check_members(runs)
    sizes_for(runs, setting, sizes)
    check_list("corruptions", corruptions)
    check_list("severities", severities)
    images = _images(runs, setting, corrupted_dir)
    asked = [(name, severity) for name in corruptions for severity in severities]
    for pair in asked:
        images.check(*pair)
    with progress.status("Corruptions: comparing with the clean images"):
        clean = _clean(images, setting, asked[0], num_images, corrupted_dir)
    normalizers.load(normalizer, _scope(runs, setting, images, clean, asked))


def _scope(
    runs: Sequence[Run],
    setting: Setting,
    images: CorruptedSet,
    clean: AnyDataset,
    asked: Sequence[Pair],
) -> normalizers.Scope:
    """Returns what the means are over: the corruptions that are no extra ones."""
    return normalizers.Scope(
        runs[0].source.name,
        images.data,
        [name for name in dict.fromkeys(name for name, _ in asked) if name in NAMES],
        list(dict.fromkeys(severity for _, severity in asked)),
        clean.num_examples,
        setting.split,
    )


def _images(runs: Sequence[Run], setting: Setting, folder: str | None) -> CorruptedSet:
    """Returns the corrupted images: those of a folder, or made of the clean ones."""
    if folder is None:
        return corrupted_sets.generated(setting.dataset)
    return corrupted_sets.read(folder, runs[0].source)


def _clean(
    images: CorruptedSet,
    setting: Setting,
    first: Pair,
    num_images: int,
    folder: str | None,
) -> AnyDataset:
    """Returns the clean images: the same ones that are scored of each corrupted set.

    With others, the difference between errors of corrupted and clean images would not
    be an effect of the corruption alone.

    Args:
      images: The corrupted sets.
      setting: Settings of the evaluation.
      first: One of the corrupted sets, whose labels are compared.
      num_images: Number of images of each set, drawn at random; 0 for all.
      folder: Folder of the corrupted images; None if they are made.

    Raises:
      ValueError: if the folder has other images, as far as their labels tell.
    """
    every = images.originals(setting.dataset)
    clean = datasets.some(every, num_images)
    if folder is None:
        return clean
    corrupted = images.load(*first)
    counts = [data.num_examples for data in (corrupted, every)]
    remedy = "give the --split that was corrupted, or make the folder with corrupt.py"
    if counts[0] != counts[1]:
        raise ValueError(
            f"{folder} has {counts[0]} images of each corruption, but the split "
            f"{setting.split} has {counts[1]}; {remedy}"
        )
    if clean.num_examples < counts[0]:
        others = datasets.some(corrupted, num_images)
        if not np.array_equal(clean.labels, others.labels):
            raise ValueError(
                f"{folder} has images in another order than the split "
                f"{setting.split}, so that --num_images={num_images} is not the same "
                "of both; take all with --num_images=0"
            )
    elif not _same_classes(clean, corrupted):
        raise ValueError(
            f"{folder} has images of other classes than the split {setting.split}; "
            f"{remedy}"
        )
    return clean


def _same_classes(one: AnyDataset, other: AnyDataset) -> bool:
    """Whether two data sets have as many images of each class, in any order.

    Published corrupted sets are not in the order of the clean one, so that labels can
    only be counted. It is True where labels are not in memory: to know them, all files
    would have to be read.
    """
    if not (isinstance(one, Dataset) and isinstance(other, Dataset)):
        return True
    return np.array_equal(np.sort(one.labels), np.sort(other.labels))


def _means(
    about: Sequence[Row],
    scores: Mapping[Pair, Sequence[Row]],
    scope: normalizers.Scope,
    baseline: Baseline | None,
) -> list[Row]:
    """Returns a row of means over corruptions for each ensemble.

    Args:
      about: What the rows of each ensemble begin with.
      scores: (corruption, severity) -> scores of each ensemble, in the order of
        `about`.
      scope: What the means are over.
      baseline: What the means are divided by; None for plain means alone.
    """
    return [
        {
            **of_ensemble,
            "num_examples": scope.num_examples,
            "num_corruptions": len(scope.corruptions),
            "severities": ", ".join(map(str, scope.severities)),
            "normalizer": baseline.name if baseline else normalizers.NONE,
            **normalizers.aggregate(
                {pair: found[i] for pair, found in scores.items()}, scope, baseline
            ),
        }
        for i, of_ensemble in enumerate(about)
    ]


def _compiled(members: Contest, setting: Setting) -> Callable[[AnyDataset], list[Row]]:
    """Returns a function of a data set to the scores of each ensemble."""
    tallies_of = compile_tallies(members.predict)
    key = random_bits.key(setting.seed)

    def scores(dataset: AnyDataset) -> list[Row]:
        data = sharding.load_batches(dataset, setting.batch_size, members.mesh)
        tallies = ensembles.named(tallies_of(members.variables, key, data))
        rows = [tally_row(tallies[name]) for name in members.about]
        for row in rows:
            del row["reliability"]  # a table in each of hundreds of rows
        return rows

    return scores


def _named(images: CorruptedSet, pair: Pair) -> dict[str, str | int]:
    """Returns the fields of a row that say which set it is of."""
    name, severity = pair
    deviation = images.deviations.get(name)
    return {
        "corruption": name,
        "severity": severity,
        **({"deviation": deviation} if deviation else {}),
    }


def _sheet(
    images: CorruptedSet,
    corruptions: Sequence[str],
    severities: Sequence[int],
    setting: Setting,
) -> Mapping[str, np.ndarray]:
    """Corruption -> u8[S, H, W, 3], the first image at every severity.

    Where it is known which image was corrupted, "clean" is that one, u8[1, H, W, 3].
    """

    def first(dataset: AnyDataset) -> np.ndarray:
        one = dataset.subset(np.arange(1))
        # A batch of the size that is compiled already.
        return np.asarray(next(iter(one.batches(setting.batch_size)))["image"][0])

    clean = {}
    if images.data == corrupted_sets.GENERATED:
        clean["clean"] = first(images.originals(setting.dataset))[None]
    return clean | {
        name: np.stack([first(images.load(name, severity)) for severity in severities])
        for name in corruptions
    }
