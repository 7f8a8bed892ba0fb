"""Sums over examples from which most scores follow.

Contract of this file: `probs` are [n, K], each row sums to one; `labels` are i32[n] in
[0, K); `mask` is bool[n], the examples that count (None for all). Likelihoods are in
nats. A `Tally` holds sums only: tallies of batches, devices and processes add, and
`summary` divides once, at the end.

Numbers of examples are uint32, which is exact below 2^32 (float32 stops counting at
2^24). Other sums are float32, and float64 where x64 is on and `probs` have it: they are
precise to about 1e-7 times the root of the number of batches. To add up more than a
million batches, do so on the host: jax.tree.map(np.float64, tally).
"""

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.bins import (
    BINS,
    CUTOFFS,
    above,
    checked_bins,
    checked_cutoffs,
    inside,
    inside_reference,
)
from spatial_smoothing.metrics.inputs import (
    Values,
    check_batch,
    check_log_probs,
    check_probs,
    class_labels,
    clipped,
    clipped_logs,
)
from spatial_smoothing.metrics.scores import (
    in_top,
    losses,
    of_label,
    squared_errors,
)

__all__ = ["BINS", "CUTOFFS", "Tally", "tally"]

# Rows that are summed up at once: their number is exact in float32, with room to spare.
_ROWS = 2**20


@flax.struct.dataclass
class Tally:
    """Sums over examples; every field may carry leading axes, as under `vmap`.

    Attributes:
      count: u32, examples.
      nll: f32, sum of -log of the probability of the label.
      batch_nll: f32, sum over batches of their mean NLL, for the reference's
        definition.
      batches: u32, batches with at least one example.
      brier: f32, sum over examples and classes of (probability - one-hot)^2.
      top5: u32, examples whose label is among the five most probable classes.
      true: u32[cutoffs + 1, K], correct examples by class. The first row is of all
        examples, the others are of those whose confidence is above each cut-off.
      labelled: u32[cutoffs + 1, K], examples by label, in the same rows.
      predicted: u32[cutoffs + 1, K], examples by predicted class, in the same rows.
      bin_count: u32[bins], examples by confidence in (low, high].
      bin_correct: u32[bins], correct ones of them.
      bin_confidence: f32[bins], sum of their confidences.
      bin_confidence_reference: f32[bins], sum of the confidences in [low, high).
      class_count: u32[bins, K], examples by the probability of each class, whatever
        their label, in (low, high]; the first bin takes a probability of 0 too.
      class_probability: f32[bins, K], sum of these probabilities.
      class_labelled: u32[bins, K], examples of them with that label.
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
        """Adds the sums of two tallies of the same cut-offs and bins.

        Raises:
          ValueError: for tallies of different cut-offs or bins.
        """
        if (self.cutoffs, self.bins) != (other.cutoffs, other.bins):
            raise ValueError(
                f"tallies differ: cutoffs {self.cutoffs} and {other.cutoffs}, "
                f"bins {self.bins} and {other.bins}"
            )
        return jax.tree.map(lambda a, b: a + b, self, other)


def tally(
    probs: Values,
    labels: Values,
    mask: Values | None = None,
    *,
    log_probs: Values | None = None,
    cutoffs: Sequence[float] = CUTOFFS,
    bins: Sequence[float] = BINS,
) -> Tally:
    """Sums up one batch. The batch counts as one in the reference's NLL.

    Args:
      probs: f[n, K], of any type; sums have at least float32.
      labels: i32[n].
      mask: bool[n], the examples that count; None for all. Masked rows may hold
        anything.
      log_probs: f[n, K], log of `probs` where the caller has it without underflow; the
        NLL then stays finite when a probability is too small for its type.
      cutoffs: Confidences above which a prediction counts as certain, in (0, 1).
      bins: Edges of the calibration bins, increasing from 0 to 1.

    Returns:
      The sums.

    Raises:
      ValueError: for shapes that do not fit, unusable bins or cut-offs, and, outside of
        `jit`, rows that are no probabilities (see `inputs` for inside).
    """
    probs = probs if isinstance(probs, jax.Array) else np.asarray(probs)
    labels = class_labels(labels)
    if mask is None:
        mask = jnp.ones(labels.shape, bool)
    mask = jnp.asarray(mask).astype(bool)
    check_batch("probs", probs, labels=labels, mask=mask)
    check_probs(probs, mask=mask)
    if log_probs is None:
        loss = losses(probs, labels)
    else:
        if np.shape(log_probs) != probs.shape:
            raise ValueError(
                f"log_probs must have the shape of probs, {list(probs.shape)}, got "
                f"{list(np.shape(log_probs))}"
            )
        check_log_probs(log_probs, mask=mask)
        loss = -of_label(clipped_logs(log_probs), labels)
    # Masked rows may hold NaN, which no product with 0 would remove.
    probs = jnp.where(mask[:, None], clipped(probs), 0)
    add_up = functools.partial(
        _sums, cutoffs=checked_cutoffs(cutoffs), bins=checked_bins(bins)
    )
    parts = [
        add_up(*(x[start : start + _ROWS] for x in (probs, labels, mask, loss)))
        for start in range(0, max(len(labels), 1), _ROWS)
    ]
    total = functools.reduce(lambda a, b: a + b, parts)
    count = jnp.maximum(total.count, 1).astype(total.nll.dtype)
    return total.replace(
        batch_nll=total.nll / count, batches=mask.any().astype(jnp.uint32)
    )


def _sums(
    probs: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    loss: jax.Array,
    *,
    cutoffs: tuple[float, ...],
    bins: tuple[float, ...],
) -> Tally:
    """The tally of at most `_ROWS` rows; `probs` are 0 in masked ones."""
    dtype = probs.dtype
    num_classes = probs.shape[-1]
    confidence, predicted = probs.max(-1), probs.argmax(-1)
    correct = (predicted == labels) & mask
    certain = jnp.stack([mask, *(above(confidence, cutoffs) & mask[None])])

    def by_class(counted: jax.Array, classes: jax.Array) -> jax.Array:
        # A product of matrices in floating point is many times faster than one of
        # integers, and exact here.
        one_hot = jax.nn.one_hot(classes, num_classes, dtype=dtype)
        counts = jnp.dot(counted.astype(dtype), one_hot, precision="highest")
        return counts.astype(jnp.uint32)

    def number(chosen: jax.Array) -> jax.Array:
        return chosen.sum(-1, dtype=jnp.uint32)

    def where_sum(chosen: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.where(chosen, values, 0).sum(-1)

    in_bin = inside(confidence, bins) & mask[None]
    in_bin_reference = inside_reference(confidence, bins) & mask[None]
    class_count, class_probability, in_bin_of_label = _by_bin_and_class(
        probs, labels, mask, bins
    )
    return Tally(
        count=number(mask),
        nll=where_sum(mask, loss.astype(dtype)),
        batch_nll=jnp.zeros((), dtype),  # of whole batches, see `tally`
        batches=jnp.zeros((), jnp.uint32),
        brier=where_sum(mask, squared_errors(probs, labels)),
        top5=number(in_top(probs, labels, 5) & mask),
        true=by_class(certain & correct[None], labels),
        labelled=by_class(certain, labels),
        predicted=by_class(certain, predicted),
        bin_count=number(in_bin),
        bin_correct=number(in_bin & correct[None]),
        bin_confidence=where_sum(in_bin, confidence[None]),
        bin_confidence_reference=where_sum(in_bin_reference, confidence[None]),
        class_count=class_count,
        class_probability=class_probability,
        class_labelled=by_class(in_bin_of_label, labels),
        cutoffs=cutoffs,
        bins=bins,
    )


def _by_bin_and_class(
    probs: jax.Array, labels: jax.Array, mask: jax.Array, bins: Sequence[float]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums for class-wise calibration.

    Args:
      probs: f[n, K], 0 where masked.
      labels: i32[n].
      mask: bool[n].
      bins: Edges, increasing from 0 to 1.

    Returns:
      u32[bins, K] examples by bin of each class's probability, f[bins, K] sums of these
      probabilities, and bool[bins, n], in which bin the probability of the label is.
    """
    numbers = jnp.arange(len(bins) - 1)
    index = above(probs, bins[1:-1]).sum(0, dtype=jnp.int32)  # [n, K]
    in_bin = index[None] == numbers[:, None, None]  # never stored: XLA fuses it
    count = (in_bin & mask[None, :, None]).sum(1, dtype=jnp.uint32)
    probability = jnp.where(in_bin, probs[None], 0).sum(1)
    index_of_label = jnp.take_along_axis(index, labels[:, None], axis=-1)[:, 0]
    in_bin_of_label = (index_of_label[None] == numbers[:, None]) & mask[None]
    return count, probability, in_bin_of_label
