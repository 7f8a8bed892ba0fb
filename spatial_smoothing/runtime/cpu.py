"""Options that make a training step fast on CPUs.

Contract of this file: nothing here changes more than the rounding of results, and
nothing has an effect on accelerators. docs/performance.md has the measurements.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from spatial_smoothing.runtime import devices

_OPTIONS = {
    # By default XLA gives convolutions to the library YNNPACK, whose gradients of
    # kernels take three times as long as Eigen's. Its sums over space, which are most
    # of batch normalisation, are faster than Eigen's, and stay.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    # This pass removes the barriers of `_keep_input` before operations are fused.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of mallopt(3)


def compile_gradients(
    jitted: jax.stages.Wrapped, *args: Any, mesh: Mesh
) -> jax.stages.Compiled:
    """Compiles a function that computes gradients of convolutions.

    Args:
      jitted: Function of `jax.jit`, not called before: it would be compiled already.
      *args: Arguments to compile it for, or their shapes.
      mesh: Devices that it runs on.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return jitted.lower(*args).compile()
    with nn.intercept_methods(_keep_input):
        lowered = jitted.lower(*args)
    try:
        return lowered.compile(_OPTIONS)
    except jax.errors.JaxRuntimeError:
        # This version of XLA does not know one of the options, which are experimental.
        return lowered.compile()


def _keep_input(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Makes the gradient of a kernel read the array that the convolution has read.

    For this gradient XLA transposes the input of the convolution. Without a barrier it
    fuses the transposition with the operations that made the input, and computes them
    again in the order of the transposed array, which misses the caches.
    """
    if isinstance(context.module, nn.Conv) and context.method_name == "__call__":
        x, *others = args
        args = (jax.lax.optimization_barrier(x), *others)
    return method(*args, **kwargs)


def keep_memory() -> None:
    """Makes the process keep freed memory, so that XLA uses it again in the next step.

    Otherwise each step gets its buffers from the operating system, page by page. Call
    it before the process has threads. It has no effect where JAX may have an
    accelerator, which is unless JAX_PLATFORMS is cpu, or without the C library of GNU.
    """
    # Asking JAX for its devices would start threads.
    may_have_another = jax.config.jax_platforms != "cpu" and devices.plugins()
    if sys.platform != "linux" or may_have_another:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, not from the system
        mallopt(_TRIM_THRESHOLD, -1)  # the end of the heap is never given back
        mallopt(_ARENA_MAX, 1)  # further heaps cannot grow as large as a step needs
