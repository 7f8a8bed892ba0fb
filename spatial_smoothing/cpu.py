"""What a CPU needs to be told, to run a training step at its speed.

Contract of this file: nothing here changes more than the rounding of results, and
nothing does anything on accelerators. docs/performance.md has the measurements.
"""

import ctypes
import importlib.metadata
import sys

import jax
from jax.sharding import Mesh

# By default XLA gives convolutions to YNNPACK, whose gradients of kernels take three
# times as long as Eigen's. Its sums over space, the other half of batch normalisation,
# are the faster ones, and stay.
_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of mallopt(3)


def compile_gradients(lowered: jax.stages.Lowered, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles a function with gradients of convolutions, for the devices of `mesh`."""
    if mesh.devices.flat[0].platform == "cpu":
        try:
            return lowered.compile(_OPTIONS)
        except jax.errors.JaxRuntimeError:  # an XLA that does not know the option
            pass
    return lowered.compile()


def keep_memory() -> None:
    """Makes the process keep freed memory, for XLA to use again in the next step.

    Otherwise each step gets its buffers from the operating system, page by page. To be
    called before there are threads. Does nothing where JAX has an accelerator, and
    without the C library of GNU.
    """
    if sys.platform != "linux" or importlib.metadata.entry_points(group="jax_plugins"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_ARENA_MAX, 1)  # others cannot grow as large as a step needs
