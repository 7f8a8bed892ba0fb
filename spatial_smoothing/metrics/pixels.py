"""Scores of segmentation: every pixel is an example, with a mask.

Contract of this file: `log_probs` are f[B, H, W, K], logarithms of class probabilities;
`labels` are i32[B, H, W] in [0, K); `mask` is bool[B, H, W], the pixels that count:
those that are void, and all of an image that is padding, do not. Sums are kept for each
image, because the images, and not the pixels, are what a test set is a sample of.
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics import formulas
from spatial_smoothing.metrics.formulas import Sums
from spatial_smoothing.metrics.histograms import histogram, ranked_scores
from spatial_smoothing.metrics.summaries import summary
from spatial_smoothing.metrics.tallies import Tally, tally

WINDOW = 16  # pixels
# Certain windows are more uncertain than this on average, where uncertainty is one
# minus the largest probability.
_UNCERTAIN = 0.5


@flax.struct.dataclass
class PixelSums:
    """Sums over the pixels of images; those of several sets of images join.

    Attributes:
      tally: Sums over the pixels of each image; its fields have a leading axis B.
      histogram: u32[4096, 2], wrong and right pixels of all images by confidence.
      good_windows: u32[B], windows of an image that are accurate and certain, or
        inaccurate and uncertain.
      windows: u32[B], all windows of an image that have a pixel that counts.
    """

    tally: Tally
    histogram: jax.Array
    good_windows: jax.Array
    windows: jax.Array


def pixel_sums(
    log_probs: jax.Array, labels: jax.Array, mask: jax.Array, **options
) -> PixelSums:
    """Sums up the pixels of images.

    Args:
      log_probs: f[B, H, W, K].
      labels: i32[B, H, W].
      mask: bool[B, H, W].
      **options: `cutoffs` and `bins` of `metrics.tally`.

    Returns:
      The sums, B of each.

    Raises:
      ValueError: for shapes that do not fit, and as `metrics.tally`.
    """
    if log_probs.ndim != 4 or not labels.shape == mask.shape == log_probs.shape[:3]:
        raise ValueError(
            "log_probs, labels and mask must be [B, H, W, K], [B, H, W] and [B, H, W], "
            f"got {list(log_probs.shape)}, {list(labels.shape)} and {list(mask.shape)}"
        )

    def of_image(log_probs, labels, mask) -> Tally:
        rows = log_probs.reshape(-1, log_probs.shape[-1])
        return tally(
            jnp.exp(rows),
            labels.reshape(-1),
            mask.reshape(-1),
            log_probs=rows,
            **options,
        )

    log_confidence = log_probs.max(-1)
    correct = log_probs.argmax(-1) == labels
    good, windows = window_counts(jnp.exp(log_confidence), correct, mask)
    return PixelSums(
        tally=jax.vmap(of_image)(log_probs, labels, mask),
        histogram=histogram(log_confidence, correct, mask),
        good_windows=good,
        windows=windows,
    )


def window_counts(
    confidence: jax.Array, correct: jax.Array, mask: jax.Array, *, size: int = WINDOW
) -> tuple[jax.Array, jax.Array]:
    """Counts the windows whose certainty fits their accuracy.

    The windows do not overlap; those at the lower and right edges may be cut. A window
    is accurate if more than half of its pixels are right, and uncertain if the mean of
    one minus the confidence is above one half.

    Args:
      confidence: f[B, H, W], the largest probabilities.
      correct: bool[B, H, W], whether the predictions are right.
      mask: bool[B, H, W]; a window without a pixel in it does not count.
      size: Height and width of a window in pixels, at least 1.

    Returns:
      u32[B], windows that are accurate and certain, or inaccurate and uncertain; and
      u32[B], all windows. The share of the former is PAvPU.
      Source: Mukhoti & Gal 2018, section 3.
    """
    height, width = mask.shape[1:]
    edges = ((0, 0), (0, -height % size), (0, -width % size))

    def by_window(values: jax.Array) -> jax.Array:
        counted = jnp.where(mask, values, 0).astype(jnp.float32)
        blocks = jnp.pad(counted, edges)
        _, high, wide = blocks.shape
        blocks = blocks.reshape(-1, high // size, size, wide // size, size)
        return blocks.sum((2, 4))

    count = by_window(mask)
    is_accurate = 2 * by_window(correct) > count
    is_uncertain = by_window(1 - confidence) > _UNCERTAIN * count
    is_window = count > 0
    good = is_window & (is_accurate != is_uncertain)
    number = lambda chosen: chosen.sum((1, 2), dtype=jnp.uint32)
    return number(good), number(is_window)


def agreement(
    classes: jax.Array, previous: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Counts the pixels whose class is that of the frame before.

    Args:
      classes: int[B, H, W], the most probable classes of a frame.
      previous: int[B, H, W], those of the frame before.
      mask: bool[B, H, W], the pixels that are compared.

    Returns:
      u32[B], pixels of the same class, and u32[B], pixels compared. The share is the
      consistency of Park & Kim, ICML 2022, equation 34, over pixels.
    """
    same = (classes == previous) & mask
    return same.sum((1, 2), dtype=jnp.uint32), mask.sum((1, 2), dtype=jnp.uint32)


def pixel_scores(
    total: Tally, counts: np.ndarray
) -> dict[str, float | list[float | None]]:
    """All scores of the pixels of a set of images.

    Args:
      total: Sums over all pixels; no leading axes.
      counts: int[4096, 2], the histogram of all pixels.

    Returns:
      The scores of `metrics.summary` but `top5`, and of `histograms.ranked_scores`.

    Raises:
      ValueError: if there is no pixel, or a probability is NaN.
    """
    found = {name: v for name, v in summary(total).items() if name != "top5"}
    return {**found, **ranked_scores(counts)}


def class_iou(total: Tally) -> list[float]:
    """Intersection over union of each class, over all pixels.

    Args:
      total: Sums over all pixels; no leading axes.

    Returns:
      K numbers in [0, 1]; NaN for a class that no pixel has.
    """
    true, labelled, predicted = (
        np.float64(x[0]) for x in (total.true, total.labelled, total.predicted)
    )
    union = labelled + predicted - true
    found = formulas.ratio(true, union, xp=np, empty=np.nan)
    return np.where(labelled > 0, found, np.nan).tolist()


def image_scores(
    tallies: Tally,
    shares: Mapping[str, tuple[jax.Array, jax.Array]],
    weights: jax.Array,
) -> dict[str, jax.Array]:
    """Scores of all pixels of images, each of which counts by its weight.

    It is what `bootstrap` resamples: a statistic of how often each image counts.

    Args:
      tallies: Sums over the pixels of each image, with a leading axis n.
      shares: Name of a share -> f[n] and f[n], its numerator and its denominator.
      weights: f[n], how often each image counts.

    Returns:
      Name -> f[]: the scores of `metrics.summary` from `nll` to `mce`, and the shares.
    """

    def weighted(values: jax.Array) -> jax.Array:
        return jnp.tensordot(weights, values.astype(weights.dtype), axes=1)

    sums = Sums(
        count=weighted(tallies.count),
        nll=weighted(tallies.nll),
        top5=weighted(tallies.top5),
        brier=weighted(tallies.brier),
        true=weighted(tallies.true),
        labelled=weighted(tallies.labelled),
        predicted=weighted(tallies.predicted),
        bin_count=weighted(tallies.bin_count),
        bin_gap=weighted(tallies.bin_confidence - tallies.bin_correct),
    )
    found = formulas.scores(sums, cutoffs=tallies.cutoffs, xp=jnp)
    del found["top5"]
    for name, (part, whole) in shares.items():
        found[name] = formulas.ratio(
            weighted(part), weighted(whole), xp=jnp, empty=jnp.nan
        )
    return found
