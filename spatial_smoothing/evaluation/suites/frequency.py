"""Robustness to noise of one frequency as a suite.

Contract of this file: `frequency` is a suite, as `suites.settings` describes them.
Options and rows have frequencies in units of pi, the analysis in radians per pixel.
"""

import math
from collections.abc import Sequence

from spatial_smoothing.analysis import frequency as analysis
from spatial_smoothing.data import datasets
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import Setting, check_list
from spatial_smoothing.evaluation.suites.subjects import subject
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits, sharding

SCORES = ("num_samples", "num_examples", "nll", "accuracy", "top5", "brier", "ece")

FREQUENCIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def frequency(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 2000,
    frequencies: tuple[float, ...] = FREQUENCIES,
    epsilon: float = analysis.EPSILON,
    half_width: float = analysis.HALF_WIDTH,
) -> list[Row]:
    """Scores under noise that is limited to a ring of frequencies.

    Args:
      runs: One run; the suite refuses several.
      setting: Settings of the evaluation. A prediction averages its `num_samples`.
      num_images: Number of images of the split, drawn at random; 0 for all.
      frequencies: Frequencies of the noise, in units of pi, in (0, 1].
      epsilon: Amplitude of the noise before limitation, in units of normalised images.
      half_width: Half of the width of the rings, in radians per pixel.

    Returns:
      A row without noise, whose `frequency` is None, then one for each frequency, in
      units of pi, with the scores of `evaluation.tally_row`, and `epsilon` and
      `half_width`.

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    check(
        runs,
        setting,
        num_images=num_images,
        frequencies=frequencies,
        epsilon=epsilon,
        half_width=half_width,
    )
    network = subject(runs, setting, suite="frequency")
    dataset = datasets.some(setting.dataset, num_images, seed=setting.seed)
    options = {
        "num_images": num_images,
        "frequencies": frequencies,
        "epsilon": epsilon,
        "half_width": half_width,
    }
    partial = setting.partial("frequency", runs, options)
    done = {row["frequency"] for row in partial.rows}
    rows = analysis.robustness(
        network.model,
        network.variables,
        list(sharding.load_batches(dataset, setting.batch_size, network.mesh)),
        key=random_bits.key(setting.seed),
        prepare=network.normalize,
        frequencies=[math.pi * value for value in frequencies],
        half_width=half_width,
        epsilon=epsilon,
        num_samples=setting.num_samples if network.stochastic else 0,
        chunk=setting.chunk,
        done=done,
    )
    total = 1 + len(frequencies) - len(done)
    for row in progress.track(rows, total=total, name="Noise of one frequency"):
        partial.append(row)
    found = [
        {
            **network.about,
            "epsilon": epsilon,
            "half_width": half_width,
            "frequency": _in_units_of_pi(row["frequency"]),
            **{name: row[name] for name in SCORES},
            "num_samples": row["num_samples"] * network.model.num_predictions,
        }
        for row in partial.rows
    ]
    names = ("frequency", *SCORES)
    found[0]["arrays"] = analysis.arrays(
        [{name: row[name] for name in names} for row in found]
    )
    return found


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 2000,
    frequencies: tuple[float, ...] = FREQUENCIES,
    epsilon: float = analysis.EPSILON,
    half_width: float = analysis.HALF_WIDTH,
) -> None:
    """Raises ValueError for arguments that `frequency` cannot use.

    Args:
      runs: The run, as the only element.
      setting: Settings of the evaluation.
      num_images: Number of images; 0 for all.
      frequencies: Frequencies of the noise, in units of pi.
      epsilon: Amplitude of the noise.
      half_width: Half of the width of the rings, in radians per pixel.
    """
    subject(runs, setting, suite="frequency")
    check_list("frequencies", frequencies)
    if num_images < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {num_images}")
    if not math.isfinite(epsilon):
        raise ValueError(f"epsilon must be finite, got {epsilon}")
    size = setting.dataset.image_shape[0]
    for value in frequencies:
        if not 0 < value <= 1:
            raise ValueError(
                f"frequencies must be in (0, 1], in units of pi, got {value}"
            )
        analysis.ring(math.pi * value, size=size, half_width=half_width)


def _in_units_of_pi(frequency: float | None) -> float | None:
    """Converts radians per pixel; None is the row without noise."""
    return None if frequency is None else frequency / math.pi
