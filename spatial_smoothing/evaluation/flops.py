"""The floating-point operations of a prediction, as the compiler counts them.

Contract of this file: nothing is computed. The forward pass of one image is lowered for
a CPU, whatever the devices are, so that the number is the same everywhere. Dropout
masks are left out: their bits are drawn by operations on integers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from spatial_smoothing.ensembles import ApplyFunction, Ensemble, Variables


class PassFlops(NamedTuple):
    """The floating-point operations of one network for one image.

    Attributes:
      shared: Those of what comes before the first dropout, which all samples share.
      of_sample: Those of the rest, once for each sample.
    """

    shared: float
    of_sample: float


def pass_flops(
    network: ApplyFunction, variables: Variables, *, image_shape: tuple[int, ...]
) -> PassFlops | None:
    """Returns the floating-point operations of a forward pass of one image.

    A network whose single pass makes the predictions of several members, such as
    BatchEnsemble, counts with the whole pass: its `of_sample` is that of all members,
    and one sample of it is one prediction of the ensemble.

    Args:
      network: The network.
      variables: Variables of one member, or their shapes and types.
      image_shape: (H, W, C) of an image.

    Returns:
      The operations, and None in a process that may not use the CPU, as with
      JAX_PLATFORMS=cuda.
    """
    try:
        everywhere = SingleDeviceSharding(jax.devices("cpu")[0])
    except RuntimeError:
        return None

    def on_cpu(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    variables = jax.tree.map(on_cpu, variables)
    images = on_cpu(jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    if network.deterministic_part is None:
        whole = lambda variables, images: network.apply(variables, images, None)
        return PassFlops(0.0, _counted(whole, variables, images))
    features = jax.eval_shape(network.deterministic_part, variables, images)
    rest = lambda variables, x: network.stochastic_part(variables, x, None)
    return PassFlops(
        _counted(network.deterministic_part, variables, images),
        _counted(rest, variables, on_cpu(features)),
    )


def _counted(function, *arguments) -> float:
    """Returns what the compiler counts in a function, before it optimises."""
    counted = jax.jit(function).lower(*arguments).cost_analysis()
    # A part of a network may do nothing, such as what is before a first layer.
    return float((counted or {}).get("flops", 0.0))


def gflops(name: Ensemble, flops: PassFlops) -> float:
    """Returns the operations of a prediction by an ensemble, in 10^9.

    In a stream they are those of one frame: what earlier frames were predicted to be is
    known by then.

    Args:
      name: The ensemble.
      flops: The operations of each of its members.
    """
    of_member = flops.shared + name.num_samples * flops.of_sample
    return len(name.members) * of_member / 1e9
