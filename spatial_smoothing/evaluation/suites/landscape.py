"""The loss landscape as a suite: scores of the training images on a grid of weights."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from spatial_smoothing.analysis import directions
from spatial_smoothing.analysis import landscape as analysis
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import Setting
from spatial_smoothing.evaluation.suites.subjects import subject, training_images
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress


def landscape(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 1024,
    grid_size: int = 21,
    extent: float = 0.1,
    normalization: str = "filter",
    recalibration: int = 0,
) -> list[Row]:
    """Scores augmented training images along two random directions of the weights.

    Networks with dropout make one prediction of each image, as in training. All points
    see the same images, augmentation and dropout masks.

    Args:
      runs: One run.
      setting: Its seed is that of images, directions, augmentation and masks.
      num_images: Training images, drawn at random; 0 for all.
      grid_size: Points along each direction, odd, so that the trained weights are one.
      extent: The grid covers [-extent, extent] in both directions, where 1 is the norm
        of the weights.
      normalization: Of the directions: "filter" or "reference".
      recalibration: Training images from which the statistics of batch normalisation
        are estimated anew at each point; 0 to keep the trained ones.

    Returns:
      One row: the scores at the trained weights, their means over the border of the
      grid as `border_nll` and `border_accuracy`, and `curvature` and `residual` of the
      NLL (see `analysis.landscape.curvature`); in "arrays" those of
      `analysis.landscape.surfaces`.

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    points = _points(grid_size, extent)
    network = subject(runs, setting, suite="landscape")
    options = {
        "num_images": num_images,
        "grid_size": grid_size,
        "extent": extent,
        "normalization": normalization,
        "recalibration": recalibration,
    }
    keys = jax.random.split(jax.random.key(setting.seed))
    shifts = directions.draw(
        keys[0], network.variables["params"], normalization=normalization
    )
    images = training_images(runs, setting, num_images, seed=setting.seed)
    others = ()
    if recalibration:
        seed = setting.seed + 1
        others = training_images(runs, setting, recalibration, seed=seed)
        others = others.batches(setting.batch_size)
    about = {"images": images.checksum(), **options}
    partial = setting.partial("landscape", runs, about)
    done = {(row["a"], row["b"]) for row in partial.rows}
    rows = analysis.scan(
        network.model,
        network.variables,
        shifts,
        points,
        images.batches(setting.batch_size),
        key=keys[1],
        prepare=network.prepare,
        num_samples=int(network.stochastic),
        weight_decay=network.weight_decay,
        recalibration=others,
        mesh=network.mesh,
        done=done,
    )
    for row in progress.track(
        rows, total=len(points) - len(done), name="Loss landscape"
    ):
        partial.append(row)
    return [
        {
            **network.about,
            "split": "train",
            "num_examples": images.num_examples,
            **options,
            **_summary(analysis.surfaces(partial.rows)),
        }
    ]


def _points(grid_size: int, extent: float) -> list[tuple[float, float]]:
    """The points of the grid, in units of the directions; one is exactly zero."""
    if grid_size < 3 or grid_size % 2 == 0:
        raise ValueError(f"grid_size must be odd and at least 3, got {grid_size}")
    if not 0 < extent < np.inf:
        raise ValueError(f"extent must be positive and finite, got {extent}")
    axis = np.linspace(-extent, extent, grid_size)
    axis[grid_size // 2] = 0.0
    return analysis.grid(axis, axis)


def _summary(surfaces: dict[str, np.ndarray]) -> dict[str, Any]:
    """The scores of a row, and its arrays."""
    size = len(surfaces["a"])
    border = np.ones((size, size), bool)
    border[1:-1, 1:-1] = False
    center = size // 2, size // 2
    names = (*analysis.SCORES, "nll_l2", "nll_l2_reference")
    bend, residual = analysis.curvature(*(surfaces[name] for name in ("a", "b", "nll")))
    return {
        **{name: float(surfaces[name][center]) for name in names},
        **{
            f"border_{name}": float(surfaces[name][border].mean())
            for name in ("nll", "accuracy")
        },
        "curvature": bend,
        "residual": residual,
        "arrays": surfaces,
    }
