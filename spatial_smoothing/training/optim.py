"""The reference's optimiser: SGD with momentum and coupled weight decay, in steps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def warmup_multistep(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    warmup_epochs: int = 1,
    milestones: Sequence[int] = (60, 120, 160),
    factor: float = 0.2,
) -> optax.Schedule:
    """Linear warm-up from 0, then a factor at each milestone.

    The warm-up epochs come on top of the others, which milestones count. In warm-up,
    step i has the rate `learning_rate * i / (warmup_epochs * steps_per_epoch)`, so that
    of the very first step is 0.

    Args:
      learning_rate: Rate after warm-up.
      steps_per_epoch: Steps of one epoch.
      warmup_epochs: Epochs of warm-up.
      milestones: Epochs after warm-up at which the rate is multiplied.
      factor: By how much.

    Returns:
      A function from step to rate.
    """
    warmup = warmup_epochs * steps_per_epoch
    boundaries = [warmup + epoch * steps_per_epoch for epoch in milestones]

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step)
        passed = sum((step >= boundary).astype(jnp.int32) for boundary in boundaries)
        rate = learning_rate * jnp.asarray(factor, float) ** passed
        return jnp.where(step < warmup, learning_rate * step / max(warmup, 1), rate)

    return schedule


def sgd(
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """SGD as PyTorch's: decay is added to the gradient of every parameter.

    Args:
      schedule: Learning rate, or a function from step to rate.
      momentum: Of the accumulated gradients; no dampening, no Nesterov.
      weight_decay: Coupled L2, biases and normalisation included.

    Returns:
      An optax transformation.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale_by_learning_rate(schedule),
    )
