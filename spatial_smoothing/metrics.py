"""Scores of predicted class probabilities.

Contract of this file: `probs` are f[B, K], each row sums to one; `labels` are i32[B] in
[0, K); `mask` is bool[B], the examples that count (None for all). Likelihoods are in
nats, all rates are fractions. A `Tally` holds sums only: tallies of batches, devices
and processes add, and `summary` divides once, at the end.

Two definitions exist where the paper's code has a defect:
- "fixed" (default): NLL is the mean over examples; a calibration bin (low, high] takes
  the confidences of the examples it counts, those of exactly 1 included.
- "reference": NLL is the unweighted mean of the means of batches; a bin counts
  low < confidence <= high but sums confidences with low <= confidence < high, so that
  a confidence of exactly 1 is counted and never summed; divisors carry 1e-7.
"""

from collections.abc import Sequence

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.lookup import unknown

CUTOFFS = (0.9,)
BINS = tuple(float(edge) for edge in np.linspace(0, 1, 11))
DEFINITIONS = ("fixed", "reference")
_EPSILON = 1e-7  # of the reference


@flax.struct.dataclass
class Tally:
    """Sums over examples; every field may carry leading axes, as under `vmap`.

    Attributes:
      count: Examples.
      nll: Sum of -log of the probability of the label.
      batch_nll: Sum over batches of their mean NLL, for the reference's definition.
      batches: Batches with at least one example.
      brier: Sum over examples and classes of (probability - one-hot)^2.
      top5: Examples whose label is among the five most probable classes.
      true: [cutoffs + 1, K] correct examples by class, confidence above each cut-off;
        the first row is the cut-off 0, all examples.
      labelled: [cutoffs + 1, K] examples by label, likewise.
      predicted: [cutoffs + 1, K] examples by predicted class, likewise.
      bin_count: [bins] examples by confidence in (low, high].
      bin_correct: [bins] correct ones of them.
      bin_confidence: [bins] sum of their confidences.
      bin_confidence_reference: [bins] sum of the confidences in [low, high).
      cutoffs: Confidences above which a prediction counts as certain.
      bins: Edges of the calibration bins.
    """

    count: jax.Array
    nll: jax.Array
    batch_nll: jax.Array
    batches: jax.Array
    brier: jax.Array
    top5: jax.Array
    true: jax.Array
    labelled: jax.Array
    predicted: jax.Array
    bin_count: jax.Array
    bin_correct: jax.Array
    bin_confidence: jax.Array
    bin_confidence_reference: jax.Array
    cutoffs: tuple[float, ...] = flax.struct.field(pytree_node=False)
    bins: tuple[float, ...] = flax.struct.field(pytree_node=False)

    def __add__(self, other: "Tally") -> "Tally":
        """Adds the sums of two tallies of the same cut-offs and bins."""
        if (self.cutoffs, self.bins) != (other.cutoffs, other.bins):
            raise ValueError(
                f"tallies differ: cutoffs {self.cutoffs} and {other.cutoffs}, "
                f"bins {self.bins} and {other.bins}"
            )
        return jax.tree.map(lambda a, b: a + b, self, other)


def nll(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of each example, in nats; infinite where it was 0.

    Args:
      probs: f[B, K].
      labels: i32[B].

    Returns:
      f[B].
    """
    return -jnp.log(jnp.take_along_axis(probs, labels[:, None], axis=-1)[:, 0])


def brier(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Brier score of each example, in [0, 2]: sum over classes of (p - one-hot)^2.

    Arguments and result as `nll`. Source: Brier 1950.
    """
    one_hot = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    return jnp.square(probs - one_hot).sum(-1)


def in_top(probs: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether the label is among the k most probable classes; bool[B].

    Of equal probabilities the higher class goes first; the reference leaves it open.
    """
    of_label = jnp.take_along_axis(probs, labels[:, None], axis=-1)
    later = jnp.arange(probs.shape[-1])[None] > labels[:, None]
    ahead = (probs > of_label) | ((probs == of_label) & later)
    return ahead.sum(-1) < k


def tally(
    probs: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    log_probs: jax.Array | None = None,
    cutoffs: Sequence[float] = CUTOFFS,
    bins: Sequence[float] = BINS,
) -> Tally:
    """Sums up one batch. The batch counts as one in the reference's NLL.

    Args:
      probs: f[B, K].
      labels: i32[B].
      mask: bool[B], the examples that count; None for all. Masked rows may hold
        anything.
      log_probs: f[B, K], log of `probs` where the caller has it without underflow; the
        NLL then stays finite when a probability is too small for its type.
      cutoffs: Confidences above which a prediction counts as certain, in (0, 1).
      bins: Increasing edges of the calibration bins, from 0 to 1.

    Returns:
      The sums, in the type of `probs`.
    """
    chex.assert_rank([probs, labels], [2, 1])
    chex.assert_equal_shape_prefix([probs, labels], 1)
    weight = jnp.ones_like(labels, bool) if mask is None else mask
    chex.assert_equal_shape([weight, labels])
    one = weight.astype(probs.dtype)
    probs = jnp.where(weight[:, None], probs, 0)
    labels = jnp.where(labels < 0, probs.shape[-1], labels)  # -1 is not the last class
    if log_probs is None:
        loss = nll(probs, labels)
    else:
        loss = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    loss_sum = jnp.where(weight, loss, 0).sum()
    confidence, predicted = probs.max(-1), probs.argmax(-1)
    correct = predicted == labels
    certain = _row(confidence, (0.0, *cutoffs), jnp.greater) * one[None]

    def by_class(values: jax.Array, index: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(index, probs.shape[-1], dtype=probs.dtype)
        return jnp.dot(values, one_hot, precision="highest")

    low, high = bins[:-1], bins[1:]
    inside = (
        _row(confidence, low, jnp.greater) & _row(confidence, high, jnp.less_equal)
    ) * one[None]
    inside_reference = (
        _row(confidence, low, jnp.greater_equal) & _row(confidence, high, jnp.less)
    ) * one[None]
    return Tally(
        count=one.sum(),
        nll=loss_sum,
        batch_nll=loss_sum / jnp.maximum(one.sum(), 1),
        batches=weight.any().astype(probs.dtype),
        brier=(brier(probs, labels) * one).sum(),
        top5=(in_top(probs, labels, 5) * one).sum(),
        true=by_class(certain * correct[None], labels),
        labelled=by_class(certain, labels),
        predicted=by_class(certain, predicted),
        bin_count=inside.sum(-1),
        bin_correct=(inside * correct[None]).sum(-1),
        bin_confidence=(inside * confidence[None]).sum(-1),
        bin_confidence_reference=(inside_reference * confidence[None]).sum(-1),
        cutoffs=tuple(float(cutoff) for cutoff in cutoffs),
        bins=tuple(float(edge) for edge in bins),
    )


def _row(confidence: jax.Array, edges: Sequence[float], compare) -> jax.Array:
    """Compares confidences [B] with edges [E], in the type of the former: [E, B]."""
    return compare(confidence[None], jnp.asarray(edges, confidence.dtype)[:, None])


def summary(result: Tally, *, definition: str = "fixed") -> dict[str, float]:
    """Turns sums into scores.

    Args:
      result: A tally without leading axes, of at least one example.
      definition: "fixed" or "reference"; see the module.

    Returns:
      `nll` (nats), `accuracy`, `top5`, `brier`, `iou` (mean over classes), `ece`,
      `signed_ece` (positive when overconfident), and for each cut-off, 90 standing for
      0.9: `accuracy_90` and `iou_90` of the certain predictions, `unconfidence_90` (the
      share of wrong predictions that are uncertain), `frequency_90` (the share of
      certain ones). A share of nothing is 0.

    Raises:
      ValueError: for an unknown definition, a tally of no examples, or NaN.
    """
    if definition not in DEFINITIONS:
        raise unknown("definition", definition, DEFINITIONS)
    t = jax.tree.map(lambda value: np.asarray(value, np.float64), result)
    if t.count.ndim or t.count == 0:
        raise ValueError(
            f"summary takes one tally of at least one example, got counts {t.count}"
        )
    if np.isnan(t.nll + t.brier):
        raise ValueError("probabilities hold NaN, or labels lie outside [0, K)")
    epsilon = _EPSILON if definition == "reference" else 0.0
    gap = _calibration_gap(t, definition)
    scores = {
        "nll": t.nll / t.count if definition == "fixed" else t.batch_nll / t.batches,
        "accuracy": t.true[0].sum() / t.count,
        "top5": t.top5 / t.count,
        "brier": t.brier / t.count,
        "iou": _mean_iou(t, 0),
        "ece": np.abs(gap).sum(),
        "signed_ece": gap.sum(),
    }
    wrong = t.count - t.true[0].sum()
    for row, cutoff in enumerate(t.cutoffs, 1):
        certain, right = t.labelled[row].sum(), t.true[row].sum()
        tag = f"{100 * cutoff:g}"
        scores[f"accuracy_{tag}"] = _share(right, certain)
        scores[f"iou_{tag}"] = _mean_iou(t, row)
        scores[f"unconfidence_{tag}"] = _share(
            wrong - (certain - right), wrong + epsilon
        )
        scores[f"frequency_{tag}"] = certain / (t.count + epsilon)
    return {name: float(score) for name, score in scores.items()}


def reliability(result: Tally) -> dict[str, list[float]]:
    """Returns the calibration bins of a tally, for diagrams and histograms.

    Args:
      result: A tally without leading axes.

    Returns:
      `edges` [bins + 1], and per bin `count`, `accuracy` and mean `confidence`; the
      last two are 0 in empty bins.
    """
    count, correct, confidence = (
        np.asarray(value, np.float64)
        for value in (result.bin_count, result.bin_correct, result.bin_confidence)
    )
    return {
        "edges": list(result.bins),
        "count": count.tolist(),
        "accuracy": _share(correct, count).tolist(),
        "confidence": _share(confidence, count).tolist(),
    }


def _calibration_gap(t: Tally, definition: str) -> np.ndarray:
    """(Confidence - accuracy) of each bin times its share of the examples."""
    if definition == "fixed":
        return (t.bin_confidence - t.bin_correct) / t.count
    confidence = t.bin_confidence_reference / (t.bin_count + _EPSILON)
    gap = confidence - _share(t.bin_correct, t.bin_count)
    return gap * t.bin_count / (t.bin_count.sum() + _EPSILON)


def _mean_iou(t: Tally, row: int) -> np.ndarray:
    """Intersection over union, averaged over the classes that have examples."""
    true, labelled, predicted = t.true[row], t.labelled[row], t.predicted[row]
    present = labelled > 0
    iou = _share(true, labelled + predicted - true)
    return _share(iou[present].sum(), present.sum())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where both are 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)
