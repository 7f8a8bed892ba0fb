"""The training step, traced for devices that need not be here."""

import jax
from flax import linen as nn

from spatial_smoothing.data.datasets import DatasetShape
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import input_pipeline
from spatial_smoothing.training.options import Hyperparameters, Placement
from spatial_smoothing.training.state import abstract_state, init_state
from spatial_smoothing.training.steps import step_program


def trace_step(
    model: nn.Module,
    dataset: DatasetShape,
    hyperparameters: Hyperparameters,
    placement: Placement,
) -> jax.stages.Traced:
    """Traces what `fit` compiles, and computes nothing.

    Args:
      model: The network.
      dataset: The shape of the training examples.
      hyperparameters: How the network learns.
      placement: The devices, and how they share the state.

    Returns:
      The traced function. Where the data set is in memory, it is the loop over steps,
      as accelerators have it; where the host decodes the images, a single step of one
      member of each group of devices.

    Raises:
      ValueError: if several members are to be trained on encoded examples.
    """
    members, seed = hyperparameters.members, hyperparameters.seed
    mesh = placement.mesh or sharding.mesh(members=members)
    optimizer = hyperparameters.optimizer
    state = abstract_state(
        lambda: init_state(
            model,
            optimizer,
            dataset.image_shape,
            seed=seed,
            members=members,
            averages=hyperparameters.step_options.ema > 0,
        ),
        mesh,
        sharded=placement.shard_state,
    )
    pipeline = input_pipeline.abstract(
        dataset, members=members, batch_size=hyperparameters.batch_size, mesh=mesh
    )
    program = step_program(
        model,
        optimizer,
        state,
        pipeline,
        prepare=hyperparameters.prepare,
        seed=seed,
        mesh=mesh,
        frozen=hyperparameters.frozen,
        options=hyperparameters.step_options,
    )
    return program.jitted.trace(*program.arguments)
