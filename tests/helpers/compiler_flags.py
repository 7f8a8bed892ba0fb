"""Flags of XLA under which the tests compile their programs for the CPU.

Most of the time of the tests is that of the compiler, and most of what it does there
makes programs faster that run once, for milliseconds, on small arrays. By default it
leaves this out: the whole suite then takes half the time. With `OPTIMIZED=1` in the
environment, as in `make test-all`, programs are compiled as those of users are.
"""

import os

QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def flags(*, num_devices: int) -> str:
    """Returns a value of XLA_FLAGS for processes of the tests.

    Args:
      num_devices: The number of virtual CPU devices.
    """
    devices = f"--xla_force_host_platform_device_count={num_devices}"
    return devices if os.environ.get("OPTIMIZED") == "1" else f"{devices} {QUICK}"
