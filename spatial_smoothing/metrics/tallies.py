"""Sums over examples from which most scores follow.

Contract of this file: `probs` are f[B, K], each row sums to one; `labels` are i32[B] in
[0, K); `mask` is bool[B], the examples that count (None for all). Likelihoods are in
nats. A `Tally` holds sums only: tallies of batches, devices and processes add, and
`summary` divides once, at the end.
"""

from collections.abc import Sequence

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.scores import brier, in_top, nll

CUTOFFS = (0.9,)
BINS = tuple(float(edge) for edge in np.linspace(0, 1, 11))


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
      class_count: [bins, K] examples by the probability of each class, whatever their
        label, in (low, high]; the first bin takes a probability of 0 too.
      class_probability: [bins, K] sum of these probabilities.
      class_labelled: [bins, K] examples of them with that label.
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
    class_count: jax.Array
    class_probability: jax.Array
    class_labelled: jax.Array
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
    class_count, class_probability, class_labelled = _by_bin_and_class(
        probs, labels, one, bins
    )
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
        class_count=class_count,
        class_probability=class_probability,
        class_labelled=class_labelled,
        cutoffs=tuple(float(cutoff) for cutoff in cutoffs),
        bins=tuple(float(edge) for edge in bins),
    )


def _row(confidence: jax.Array, edges: Sequence[float], compare) -> jax.Array:
    """Compares confidences [B] with edges [E], in the type of the former: [E, B]."""
    return compare(confidence[None], jnp.asarray(edges, confidence.dtype)[:, None])


def _by_bin_and_class(
    probs: jax.Array, labels: jax.Array, weights: jax.Array, bins: Sequence[float]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums for class-wise calibration, each [bins, K], of weights [B]."""
    numbers = jnp.arange(len(bins) - 1)
    edges = jnp.asarray(bins[1:-1], probs.dtype)
    index = (probs[None] > edges[:, None, None]).sum(0)
    inside = index[None] == numbers[:, None, None]  # never stored: XLA fuses it
    count = jnp.where(inside, weights[None, :, None], 0).sum(1)
    probability = jnp.where(inside, (probs * weights[:, None])[None], 0).sum(1)
    index_of_label = jnp.take_along_axis(index, labels[:, None], axis=-1)[:, 0]
    one_hot = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    labelled = jnp.where(index_of_label[None] == numbers[:, None], weights[None], 0)
    return count, probability, jnp.dot(labelled, one_hot, precision="highest")
