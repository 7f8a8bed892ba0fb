"""The loss landscape as a suite: scores of the training images on a grid of weights.

Contract of this file: `landscape` is a suite, as `suites.settings` describes them. The
row of each point is kept as it is found, so that a scan that was stopped continues.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from spatial_smoothing.analysis import directions
from spatial_smoothing.analysis import landscape as analysis
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import Setting
from spatial_smoothing.evaluation.suites.subjects import subject, training_images
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits


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
    """Scores training images along two random directions of the weights.

    Images are augmented as in training, but for those that training crops while it
    decodes them, such as ImageNet's. Networks with dropout make one prediction of each
    image, as in training. All points see the same images, augmentation and dropout
    masks.

    Args:
      runs: One run; the suite refuses several.
      setting: Settings of the evaluation. Images, directions, augmentation and dropout
        masks follow from its seed.
      num_images: Number of training images, drawn at random; 0 for all.
      grid_size: Number of points along each direction; odd, at least 3, so that the
        trained weights are one of the points.
      extent: The grid covers [-extent, extent] in both directions, where 1 is the norm
        of the weights; positive.
      normalization: How the directions are normalised: "filter" or "reference";
        `analysis.directions.normalize` describes them.
      recalibration: Number of training images from which the statistics of batch
        normalisation are estimated at each point; 0 to keep the trained statistics.

    Returns:
      One row: `augmented`, whether the images are; the scores at the trained weights,
      their means over the border of the grid as `border_nll` and `border_accuracy`, and
      `curvature` and `residual` of the NLL, which `analysis.landscape.curvature` finds;
      in "arrays" those of `analysis.landscape.surfaces`.

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    check(
        runs,
        setting,
        num_images=num_images,
        grid_size=grid_size,
        extent=extent,
        normalization=normalization,
        recalibration=recalibration,
    )
    points = _points(grid_size, extent)
    network = subject(runs, setting, suite="landscape")
    options = {
        "num_images": num_images,
        "grid_size": grid_size,
        "extent": extent,
        "normalization": normalization,
        "recalibration": recalibration,
    }
    keys = jax.random.split(random_bits.key(setting.seed))
    with progress.status("Loss landscape: drawing directions and training images"):
        shifts = directions.draw(
            keys[0], network.variables["params"], normalization=normalization
        )
        images = training_images(runs, setting, num_images, seed=setting.seed)
        about = {"images": images.checksum(), **options}
    recalibration_batches = ()
    if recalibration:
        # Another seed, so that few of these are among the images that are scored.
        seed = setting.seed + 1
        others = training_images(runs, setting, recalibration, seed=seed)
        recalibration_batches = others.batches(setting.batch_size)
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
        num_samples=1 if network.stochastic else 0,
        weight_decay=network.weight_decay,
        recalibration=recalibration_batches,
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
            "augmented": network.augments,
            "num_examples": images.num_examples,
            **options,
            **_summary(analysis.surfaces(partial.rows)),
        }
    ]


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 1024,
    grid_size: int = 21,
    extent: float = 0.1,
    normalization: str = "filter",
    recalibration: int = 0,
) -> None:
    """Raises ValueError for arguments that `landscape` cannot use.

    Args:
      runs: The run, as the only element.
      setting: Settings of the evaluation.
      num_images: Number of training images; 0 for all.
      grid_size: Number of points along each direction.
      extent: Half of the width of the grid.
      normalization: How the directions are normalised.
      recalibration: Number of training images for batch statistics; 0 for none.
    """
    subject(runs, setting, suite="landscape")
    _points(grid_size, extent)
    lookup(directions.NORMALIZATIONS, normalization, "normalization")
    if num_images < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {num_images}")
    if recalibration < 0:
        raise ValueError(f"recalibration must be at least 0, got {recalibration}")


def _points(grid_size: int, extent: float) -> list[tuple[float, float]]:
    """Returns the points of the grid, in units of the directions.

    Raises:
      ValueError: for an unusable size or extent.
    """
    if grid_size < 3 or grid_size % 2 == 0:
        raise ValueError(f"grid_size must be odd and at least 3, got {grid_size}")
    if not 0 < extent < np.inf:
        raise ValueError(f"extent must be positive and finite, got {extent}")
    axis = np.linspace(-extent, extent, grid_size)
    axis[grid_size // 2] = 0.0  # rounding would leave 1e-18, not the trained weights
    return analysis.grid(axis, axis)


def _summary(surfaces: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the scores of the row, and its arrays, given those of all points."""
    size = len(surfaces["a"])
    is_border = np.ones((size, size), bool)
    is_border[1:-1, 1:-1] = False
    center = size // 2, size // 2
    names = (*analysis.SCORES, "nll_l2", "nll_l2_reference")
    curvature, residual = analysis.curvature(
        surfaces["a"], surfaces["b"], surfaces["nll"]
    )
    return {
        **{name: float(surfaces[name][center]) for name in names},
        **{
            f"border_{name}": float(surfaces[name][is_border].mean())
            for name in ("nll", "accuracy")
        },
        "curvature": curvature,
        "residual": residual,
        "arrays": surfaces,
    }
