"""What a step minimises beyond the plain cross-entropy, and the pieces that it takes.

Contract of this file: pure functions. With the options that are the default, nothing is
computed here, so that a step has the bits that it always had.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from spatial_smoothing.data.batches import Batch
from spatial_smoothing.lookup import lookup

SAMPLES_LOSSES = ("mean", "of_mean")


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step departs from the paper's; the defaults do not.

    Attributes:
      label_smoothing: Probability s, in [0, 1), that the targets move from the label to
        all K classes alike: they are 1 - s + s / K for the label, s / K for the others.
      mixup: Parameter alpha >= 0 of the distribution Beta(alpha, alpha) that draws the
        weights of two mixed images; 0 for no mixup.
      train_samples: R >= 1, how many times each example is in a step, each time with
        dropout masks of its own.
      train_samples_loss: "mean" is the mean of the R losses of an example, "of_mean" is
        the loss of its mean prediction.
      ema: Decay, in [0, 1), of the exponential moving average of the variables that
        evaluation uses; 0 for none.

    Raises:
      ValueError: for a number out of its range, or an unknown loss.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    train_samples: int = 1
    train_samples_loss: str = "mean"
    ema: float = 0.0

    def __post_init__(self):
        for field in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(
                    f"{field} must be in [0, 1), got {getattr(self, field)}"
                )
        for field, least in (("mixup", 0), ("train_samples", 1)):
            if not getattr(self, field) >= least:
                raise ValueError(
                    f"{field} must be at least {least}, got {getattr(self, field)}"
                )
        lookup(
            dict.fromkeys(SAMPLES_LOSSES), self.train_samples_loss, "train_samples_loss"
        )

    @property
    def is_of_mean(self) -> bool:
        """Whether the loss is that of the mean prediction of several samples."""
        return self.train_samples > 1 and self.train_samples_loss == "of_mean"


PLAIN = StepOptions()  # the paper's


def examples_of_step(batch_size: int, train_samples: int) -> int:
    """Returns the number of different examples of a step.

    Args:
      batch_size: Forward passes of a step, at least 1: each example counts R times.
      train_samples: R, at least 1.

    Raises:
      ValueError: if R does not divide the batch size.

    Source: uncertainty-baselines, whose batches have 1 / R of the examples, so that a
    step costs the same for every R.
    """
    examples, rest = divmod(batch_size, train_samples)
    if rest or not examples:
        below = max(batch_size - rest, train_samples)
        raise ValueError(
            f"batch_size {batch_size} must be a multiple of train_samples "
            f"{train_samples}, whose samples of one example count in it; take {below}"
        )
    return examples


def mixed(key: jax.Array, batch: Batch, *, alpha: float) -> Batch:
    """Mixes each image of a batch with another one; padding is mixed with padding.

    Args:
      key: PRNG key of the weight and of the pairs.
      batch: `image` f32[B, H, W, C], `label` i32[B], `mask` bool[B].
      alpha: Parameter > 0 of Beta(alpha, alpha).

    Returns:
      The batch with images w x + (1 - w) x', where x' is the image of another example,
      and with `other_label` i32[B], the label of x', and `share` f32[B], w. One w is
      drawn for the whole batch.

    Raises:
      ValueError: if images have several labels each, as in segmentation.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    image, label, mask = batch["image"], batch["label"], batch["mask"]
    if label.ndim != 1:
        raise ValueError(
            f"mixup is for images with one label each, got labels {label.shape}; "
            "take mixup=0"
        )
    of_weight, of_pairs = jax.random.split(key)
    # Types are said because under JAX_ENABLE_X64 the default is float64.
    alpha = jnp.float32(alpha)
    weight = jax.random.beta(of_weight, alpha, alpha, dtype=jnp.float32)
    drawn = jax.random.uniform(of_pairs, label.shape, jnp.float32)
    # Examples first, in their order and in a random one; behind both comes the padding.
    in_order = jnp.argsort(~mask, stable=True)
    shuffled = jnp.argsort(jnp.where(mask, drawn, 2), stable=True)
    partner = jnp.zeros_like(in_order).at[in_order].set(shuffled)
    return {
        **batch,
        "image": weight * image + (1 - weight) * image[partner],
        "other_label": label[partner],
        "share": jnp.full(label.shape, weight),
    }


def repeated(batch: Batch, times: int) -> Batch:
    """Returns a batch with each example several times in a row.

    Args:
      batch: Arrays with a leading axis of B examples.
      times: R, at least 1.

    Returns:
      Arrays with a leading axis of B R; for R = 1 the batch itself. The copies of an
      example are neighbours, so that each device repeats what it has.
    """
    if times == 1:
        return batch
    return {name: jnp.repeat(value, times, axis=0) for name, value in batch.items()}


def mean_prediction(logits: jax.Array, times: int) -> jax.Array:
    """Returns the mean prediction of each example of a repeated batch.

    Args:
      logits: f32[B R, ..., K].
      times: R, at least 1.

    Returns:
      f32[B, ..., K]: logarithms of the mean probabilities; for R = 1 the logits.
    """
    if times == 1:
        return logits
    log_probs = jax.nn.log_softmax(logits)
    log_probs = log_probs.reshape(-1, times, *logits.shape[1:])
    return jax.nn.logsumexp(log_probs, axis=1) - jnp.log(times).astype(logits.dtype)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Returns the cross-entropy of each prediction and its smoothed label, in nats.

    Args:
      logits: f32[..., K].
      labels: i32[...], in [0, K).
      label_smoothing: s; see `StepOptions`.

    Returns:
      f32[...].
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not label_smoothing:
        return losses
    of_all_classes = -jax.nn.log_softmax(logits).mean(-1)
    return (1 - label_smoothing) * losses + label_smoothing * of_all_classes


def moving_average(
    average: dict, variables: dict, *, step: jax.Array, decay: float
) -> dict:
    """Moves an average of variables towards those after a step.

    Args:
      average: The average before the step.
      variables: The variables after the step, of the same structure.
      step: i32[], number of the step, from 0.
      decay: Largest weight of the average, in (0, 1). In the first steps its weight is
        (1 + step) / (10 + step), so that the initial values are soon forgotten.

    Returns:
      The average after the step.
    """
    step = step.astype(jnp.float32)
    weight = jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))
    return jax.tree.map(
        lambda old, new: old + ((1 - weight) * (new - old)).astype(old.dtype),
        average,
        variables,
    )
