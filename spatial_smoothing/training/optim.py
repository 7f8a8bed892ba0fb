"""The optimisers of the paper: SGD with momentum, Adam, and their learning rates."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from spatial_smoothing.training import freezing

Optimizer = optax.GradientTransformation
# Names of the optimisers below that a config may choose.
NAMES = ("sgd", "adam")


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
    boundaries = [warmup + epoch * steps_per_epoch for epoch in milestones]

    def schedule(step: jax.Array) -> jax.Array:
        # `step` may be traced: no Python `if`.
        step = jnp.asarray(step)
        # The number of milestones that are passed is the power of the factor.
        passed = sum((step >= boundary).astype(jnp.int32) for boundary in boundaries)
        rate = learning_rate * jnp.asarray(factor, float) ** passed
        # Without warm-up, the first branch is never taken, but computed: no 0 / 0.
        return jnp.where(step < warmup, learning_rate * step / max(warmup, 1), rate)

    return schedule


def sgd(
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """Returns PyTorch's SGD: weight decay is added to the gradients, before momentum.

    Args:
      schedule: Learning rate, or a function from step to learning rate.
      momentum: Factor of the accumulated gradients in each step, in [0, 1); without
        dampening, and without Nesterov's correction.
      weight_decay: Factor of the parameters in the gradient, at least 0. It applies to
        all parameters, also to biases and those of batch normalisation.
    """
    # The order matters: the accumulated gradients contain the decay, and are multiplied
    # by the rate of the step in which they are used.
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale_by_learning_rate(schedule),
    )


def adam(
    schedule: optax.ScalarOrSchedule, *, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Returns PyTorch's Adam: weight decay is added to the gradients, before moments.

    Args:
      schedule: Learning rate, or a function from step to learning rate.
      weight_decay: Factor of the parameters in the gradient, at least 0.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
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
