"""Robustness to corruptions: all scores of every corruption, severity and ensemble.

Contract of this file: a suite, as those of `suites`. One compiled step serves all sets
of images, whose batches are made or read while the device computes.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from spatial_smoothing import distributed, evaluation, logs
from spatial_smoothing.data import corrupted_sets, datasets
from spatial_smoothing.data.baselines import CLEAN
from spatial_smoothing.data.corrupted_sets import CorruptedSet
from spatial_smoothing.data.corruptions import NAMES, SEVERITIES
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation import Row
from spatial_smoothing.suites import normalizers
from spatial_smoothing.suites.ensemble import SIZES
from spatial_smoothing.suites.lineup import Lineup, lineup
from spatial_smoothing.suites.settings import Setting
from spatial_smoothing.workdirs import Run

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
      setting: Its images are the clean ones, and those to corrupt.
      corruptions: Names in `data.corruptions`; the means are over those not extra.
      severities: From 1 to 5.
      corrupted_dir: Folder for `corrupted_sets.read`; None to make the images.
      normalizer: By what the means are divided; see `normalizers.load`.
      sizes: Samples N of dropout, as for `ensemble`.
      num_images: Of each set, chosen at random, the same of all; 0 for all.

    Returns:
      For each ensemble a row of the clean images, with `corruption` "clean" and
      `severity` 0, and one for each corruption and severity, with the scores of
      `evaluation.rows`; and, unless all corruptions are extra, a row without these two
      that has the means of `normalizers.aggregate` and the name of the `normalizer`.
      The first row has `arrays`, the first image of every corruption by severity.

    Raises:
      ValueError: Unknown names; data or a normaliser are absent or damaged.
    """
    images = _images(runs, setting, corrupted_dir)
    asked = [(name, severity) for name in corruptions for severity in severities]
    for pair in asked:
        images.check(*pair)
    num_examples = datasets.some(images.load(*asked[0]), num_images).num_examples
    scope = normalizers.Scope(
        runs[0].source.name,
        images.data,
        [name for name in corruptions if name in NAMES],
        severities,
        num_examples,
    )
    baseline = normalizers.load(normalizer, scope)
    members = lineup(runs, setting, sizes=sizes)
    partial = setting.partial(
        "corruption",
        runs,
        {
            "data": images.data,
            "folder": corrupted_dir,
            "num_images": num_images,
            "sizes": sizes,
        },
    )
    done = {(found["corruption"], found["severity"]) for found in partial.rows}
    left = [pair for pair in (CLEAN, *asked) if pair not in done]
    scores_of = _compiled(members, setting)
    for pair in logs.track(left, total=len(left), name="Corruptions"):
        dataset = setting.dataset if pair == CLEAN else images.load(*pair)
        rows = scores_of(datasets.some(dataset, num_images))
        partial.append({"corruption": pair[0], "severity": pair[1], "rows": rows})
    scores = {(f["corruption"], f["severity"]): f["rows"] for f in partial.rows}
    about = [{**row, "data": images.data} for row in members.about]
    rows = [
        {**about[i], **_named(images, pair), **scores[pair][i]}
        for pair in (CLEAN, *asked)
        for i in range(len(about))
    ]
    if scope.corruptions:
        rows += [
            {
                **about[i],
                "num_examples": num_examples,
                "num_corruptions": len(scope.corruptions),
                "severities": ", ".join(map(str, severities)),
                "normalizer": baseline.name if baseline else normalizers.NONE,
                **normalizers.aggregate(
                    {pair: found[i] for pair, found in scores.items()}, scope, baseline
                ),
            }
            for i in range(len(about))
        ]
    rows[0]["arrays"] = _sheet(images, corruptions, severities, setting.batch_size)
    return rows


def _images(runs: Sequence[Run], setting: Setting, folder: str | None) -> CorruptedSet:
    if folder is None:
        return corrupted_sets.generated(setting.dataset)
    return corrupted_sets.read(folder, runs[0].source)


def _compiled(members: Lineup, setting: Setting) -> Callable[[AnyDataset], list[Row]]:
    """Returns a function of a data set to the scores of each ensemble."""
    tally = evaluation.compile_tally(members.predict)
    key = jax.random.key(setting.seed)

    def scores(dataset: AnyDataset) -> list[Row]:
        data = distributed.load_batches(dataset, setting.batch_size, members.mesh)
        rows = evaluation.rows(
            tally(members.variables, key, data),
            sizes=[row["num_samples"] for row in members.about],
        )
        for row in rows:
            del row["num_samples"], row["reliability"]
        return rows

    return scores


def _named(images: CorruptedSet, pair: Pair) -> dict[str, str | int]:
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
    batch_size: int,
) -> Mapping[str, np.ndarray]:
    """Corruption -> u8[S, H, W, 3], the first image at every severity."""

    def first(name: str, severity: int) -> np.ndarray:
        dataset = images.load(name, severity).subset(np.arange(1))
        # A batch of the size that is compiled already.
        return np.asarray(next(iter(dataset.batches(batch_size)))["image"][0])

    return {
        name: np.stack([first(name, severity) for severity in severities])
        for name in corruptions
    }
