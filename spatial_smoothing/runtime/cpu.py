"""What a CPU needs to be told, to run a training step at its speed.

Contract of this file: nothing here changes more than the rounding of results, and
nothing does anything on accelerators. docs/performance.md has the measurements.
"""

import ctypes
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

_OPTIONS = {
    # By default XLA gives convolutions to YNNPACK, whose gradients of kernels take
    # three times as long as Eigen's. Its sums over space, the other half of batch
    # normalisation, are the faster ones, and stay.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    # Otherwise barriers are gone before operations are fused.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of mallopt(3)


def compile_gradients(
    jitted: jax.stages.Wrapped, *args: Any, mesh: Mesh
) -> jax.stages.Compiled:
    """Compiles a function with gradients of convolutions, for the devices of `mesh`.

    Args:
      jitted: Of `jax.jit`, not called before.
      *args: To compile it for.
      mesh: Its devices.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return jitted.lower(*args).compile()
    with nn.intercept_methods(_keep_input):
        lowered = jitted.lower(*args)
    try:
        return lowered.compile(_OPTIONS)
    except jax.errors.JaxRuntimeError:  # an XLA that does not know an option
        return lowered.compile()


def _keep_input(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Has the gradient of a kernel read what the convolution has read.

    XLA transposes the input for it, and would compute it anew on the way, from all
    sums and norms since the last convolution, in an order that caches do not like.
    """
    if isinstance(context.module, nn.Conv) and context.method_name == "__call__":
        x, *others = args
        args = (jax.lax.optimization_barrier(x), *others)
    return method(*args, **kwargs)


def keep_memory() -> None:
    """Makes the process keep freed memory, for XLA to use again in the next step.

    Otherwise each step gets its buffers from the operating system, page by page. To be
    called before there are threads. Does nothing where JAX has an accelerator, and
    without the C library of GNU.
    """
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    # That of TPUs is no plugin: JAX looks for the module.
    if sys.platform != "linux" or plugins or importlib.util.find_spec("libtpu"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_ARENA_MAX, 1)  # others cannot grow as large as a step needs
