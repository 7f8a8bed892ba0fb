"""The optimiser of the paper's code, SGD with momentum, and others; learning rates."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spatial_smoothing.lookup import lookup
from spatial_smoothing.training import freezing, objectives

SCHEDULES = {
    "multistep": "falls at the milestones",
    "cosine": "falls with every step",
}
OPTIMIZERS = {
    "sgd": "SGD with momentum",
    "adam": "Adam with coupled weight decay",
    "adamw": "Adam with decoupled weight decay",
}


def of_config(
    config: Mapping[str, Any], *, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the optimiser that a config describes, and its learning rate.

    Args:
      config: A config with all fields of `configs/common.py`.
      steps_per_epoch: Steps of one epoch, at least 1.

    Returns:
      The optimiser, without what `by_part` adds, and the function from step to learning
      rate that it uses.

    Raises:
      ValueError: for an unknown schedule or optimiser.
    """
    lookup(SCHEDULES, config["schedule"], "schedule")
    lookup(OPTIMIZERS, config["optimizer"], "optimizer")
    rate = config["learning_rate"]
    if config["learning_rate_batch"] is not None:
        examples = objectives.examples_of_step(
            config["batch_size"], config["train_samples"]
        )
        rate *= examples / config["learning_rate_batch"]
    shared = {
        "steps_per_epoch": steps_per_epoch,
        "warmup_epochs": config["warmup_epochs"],
    }
    if config["schedule"] == "cosine":
        schedule = warmup_cosine(rate, epochs=config["epochs"], **shared)
    else:
        schedule = warmup_multistep(
            rate, milestones=config["milestones"], factor=config["factor"], **shared
        )
    options = {
        "weight_decay": config["weight_decay"],
        "nesterov": config["nesterov"],
    }
    if config["optimizer"] == "adam":
        return adam(schedule, beta1=config["momentum"], **options), schedule
    if config["optimizer"] == "adamw":
        return adamw(schedule, beta1=config["momentum"], **options), schedule
    return sgd(schedule, momentum=config["momentum"], **options), schedule


def warmup_multistep(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    warmup_epochs: int = 1,
    milestones: Sequence[int] = (60, 120, 160),
    factor: float = 0.2,
) -> optax.Schedule:
    """Returns a schedule that rises linearly from 0, then falls at each milestone.

    The epochs of warm-up come before those that the milestones count. In warm-up, step
    i has the rate `learning_rate * i / (warmup_epochs * steps_per_epoch)`: the very
    first step of a run has the rate 0.

    Args:
      learning_rate: Rate after warm-up, at least 0.
      steps_per_epoch: Steps of one epoch, at least 1.
      warmup_epochs: Epochs of warm-up, at least 0.
      milestones: Epochs after warm-up at which the rate is multiplied.
      factor: What it is multiplied by, at least 0.

    Returns:
      A function from step, i32[], to learning rate, f32[].

    Source: the authors' code, `WarmUpLR` and `MultiStepLR`.
    """
    warmup = warmup_epochs * steps_per_epoch
    # Steps are int32, also those that a run never makes: 2^31 - 1 is such a one.
    last = np.iinfo(np.int32).max
    boundaries = [min(warmup + epoch * steps_per_epoch, last) for epoch in milestones]

    def schedule(step: jax.Array) -> jax.Array:
        # `step` may be traced: no Python `if`.
        step = jnp.asarray(step)
        # The number of milestones that are passed is the power of the factor.
        passed = sum((step >= boundary).astype(jnp.int32) for boundary in boundaries)
        rate = learning_rate * jnp.asarray(factor, float) ** passed
        # Without warm-up, the first branch is never taken, but computed: no 0 / 0.
        return jnp.where(step < warmup, learning_rate * step / max(warmup, 1), rate)

    return schedule


def warmup_cosine(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: int = 1,
) -> optax.Schedule:
    """Returns a schedule that rises linearly from 0, then falls along half a cosine.

    After warm-up, step i of n has the rate `learning_rate (1 + cos(pi i / n)) / 2`. It
    changes with every step, and would be 0 in the step after the last one.

    Args:
      learning_rate: Rate after warm-up, at least 0.
      steps_per_epoch: Steps of one epoch, at least 1.
      epochs: Epochs after warm-up, at least 1.
      warmup_epochs: Epochs of warm-up, at least 0; see `warmup_multistep`.

    Returns:
      A function from step, i32[], to learning rate, f32[].

    Source: Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5, without restarts.
    """
    warmup, steps = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step)
        passed = jnp.clip((step - warmup) / steps, 0, 1)
        rate = learning_rate * (1 + jnp.cos(jnp.pi * passed)) / 2
        return jnp.where(step < warmup, learning_rate * step / max(warmup, 1), rate)

    return schedule


def adamw(
    schedule: optax.ScalarOrSchedule,
    *,
    beta1: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Returns AdamW: weight decay is decoupled from the gradients.

    Each step multiplies the parameters by 1 - (learning rate) (weight decay). The other
    constants are the usual ones: beta2 is 0.999, epsilon is 1e-8.

    Args:
      schedule: Learning rate, or a function from step to learning rate.
      beta1: Decay of the mean of the gradients, in [0, 1).
      weight_decay: At least 0. It applies to all parameters, as that of `sgd` does.
      nesterov: Whether the mean looks a step ahead, as in NAdam.

    Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """
    return optax.adamw(schedule, b1=beta1, weight_decay=weight_decay, nesterov=nesterov)


def sgd(
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Returns PyTorch's SGD: weight decay is added to the gradients, before momentum.

    Args:
      schedule: Learning rate, or a function from step to learning rate.
      momentum: Factor of the accumulated gradients in each step, in [0, 1); without
        dampening.
      weight_decay: Factor of the parameters in the gradient, at least 0. It applies to
        all parameters, also to biases and those of batch normalisation.
      nesterov: Whether the gradient is added once more to the accumulated ones before
        they are used, as in PyTorch.
    """
    # The order matters: the accumulated gradients contain the decay, and are multiplied
    # by the rate of the step in which they are used.
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(schedule),
    )


def adam(
    schedule: optax.ScalarOrSchedule,
    *,
    beta1: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Returns PyTorch's Adam: weight decay is added to the gradients, before moments.

    Args:
      schedule: Learning rate, or a function from step to learning rate.
      beta1: Decay of the mean of the gradients, in [0, 1).
      weight_decay: Factor of the parameters in the gradient, at least 0.
      nesterov: Whether the mean looks a step ahead, as in NAdam.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=beta1, nesterov=nesterov),
        optax.scale_by_learning_rate(schedule),
    )


def by_part(
    optimizer: optax.GradientTransformation,
    *,
    frozen: Sequence[str] = (),
    backbone_factor: float = 1.0,
) -> optax.GradientTransformation:
    """Returns an optimiser with other learning rates for some parts of a network.

    Args:
      optimizer: The optimiser of the head, and of the rest but for the factor.
      frozen: Names of the parts that are not changed, such as "stem" and "stage1". They
        have no optimiser state.
      backbone_factor: Factor, at least 0, of the learning rate of all parts but the
        head.
    """
    if not frozen and backbone_factor == 1:
        return optimizer  # its state is that of earlier checkpoints

    def group(part: str) -> str:
        if part in frozen:
            return "frozen"
        return "head" if part == "head" else "backbone"

    return optax.multi_transform(
        {
            "head": optimizer,
            "backbone": optax.chain(optimizer, optax.scale(backbone_factor)),
            "frozen": optax.set_to_zero(),
        },
        lambda params: freezing.label(params, group),
    )
