"""Rows of segmentation: what a report shows of one way to segment frames."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.videos import Scored
from spatial_smoothing.metrics import Tally, pixels


def pixel_row(scored: Scored, *, key: jax.Array, num_replicates: int = 1000) -> Row:
    """Turns the sums of a pass into a row.

    Args:
      scored: Sums over the pixels of n images, by one method.
      key: Key of the bootstrap, which resamples images.
      num_replicates: Number of replicates of the bootstrap; 0 for no intervals.

    Returns:
      `num_examples`, the number of images, and `num_pixels`; the scores of
      `pixels.pixel_scores`, `pavpu` and `consistency`; `class_iou` of each class; the
      calibration bins under "reliability"; and where asked for `intervals`.
    """
    images = scored.images
    row = {
        "num_examples": len(images.count),
        "num_pixels": int(scored.total.count),
        **pixels.pixel_scores(scored.total, scored.histogram),
        **{name: _share(*counts) for name, counts in scored.shares.items()},
        "class_iou": pixels.class_iou(scored.total),
        "reliability": metrics.reliability(scored.total),
    }
    if num_replicates:
        shares = jax.tree.map(jnp.float32, scored.shares)
        ends = _intervals(key, images, shares, num_replicates=num_replicates)
        row["intervals"] = {
            name: end.tolist() for name, end in jax.device_get(ends).items()
        }
    return row


@functools.partial(jax.jit, static_argnames="num_replicates")
def _intervals(
    key: jax.Array,
    images: Tally,
    shares: Mapping[str, tuple[jax.Array, jax.Array]],
    *,
    num_replicates: int,
) -> dict[str, jax.Array]:
    """95 % intervals of the scores that follow from sums over images."""
    statistic = functools.partial(pixels.image_scores, images, shares)
    count = len(images.count)
    replicates = metrics.bootstrap(key, statistic, count, num_replicates=num_replicates)
    return metrics.interval(replicates)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    """The share of all images together; NaN of nothing."""
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")
