"""What JAX computes on, in words, and accelerators of the machine that it cannot use.

Contract of this file: nothing here is printed or logged; the commands do that.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

import jax

# The PCI vendor of TPUs. Google's virtual network cards and disks have it too.
_GOOGLE = "0x1ae0"


def description(devices: Sequence[jax.Device], *, processor: str) -> str:
    """Returns such as "4 x NVIDIA H200" or "1 CPU (AMD EPYC 7B13, 2 cores)".

    Args:
      devices: Devices of all processes.
      processor: What CPUs are called, because JAX calls all of them "cpu".
    """
    parts = []
    for (platform, kind), count in Counter(
        (device.platform, device.device_kind) for device in devices
    ).items():
        if platform != "cpu":
            parts.append(f"{count} x {kind}")
        else:
            parts.append(f"{count} CPU{'' if count == 1 else 's'} ({processor})")
    processes = len({device.process_index for device in devices})
    return ", ".join(parts) + (f", {processes} processes" if processes > 1 else "")


def processor(*, cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Returns the name of the processor and the number of cores of this process.

    Args:
      cpuinfo: Linux's description of the processors; it need not exist.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = cores or os.cpu_count() or 1
    plural = "" if cores == 1 else "s"
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [
        line.partition(":")[2].strip() for line in lines if line[:10] == "model name"
    ]
    return ", ".join([*names[:1], f"{cores} core{plural}"])


def unused_accelerator(
    platform: str,
    *,
    platforms_asked: str | None,
    plugins: Sequence[str] = (),
    root: pathlib.Path = pathlib.Path("/"),
) -> str | None:
    """Returns a warning where JAX computes on CPUs beside an accelerator.

    Args:
      platform: The platform that JAX computes on, such as "cpu".
      platforms_asked: The platforms that the user has asked JAX for, as in the
        environment variable JAX_PLATFORMS; None or "" if none.
      plugins: Names of the packages by which JAX would find accelerators, from
        `plugins`.
      root: Root of the file system, in which the device files are looked for.

    Returns:
      One line that names the device file and what to do; None if there is no
      accelerator, if JAX computes on it, or if the user has chosen the platform.
    """
    if platform != "cpu" or platforms_asked:
        return None
    for kind, word, extra, find in (
        ("an NVIDIA GPU", "cuda", "cuda13", _nvidia_file),
        ("a TPU", "tpu", "tpu", _tpu_file),
    ):
        if (found := find(root)) is None:
            continue
        installed = [name for name in plugins if word in name]
        return (
            f"this machine has {kind} (/{found.relative_to(root)}), and JAX computes "
            "on the CPU: "
            + (
                f"its plugin {installed[0]} is installed and does not work here"
                if installed
                else f"pip install 'jax[{extra}]'"
            )
            + "; JAX_PLATFORMS=cpu chooses the CPU without this warning"
        )
    return None


def plugins() -> list[str]:
    """Returns the names of installed packages by which JAX finds accelerators."""
    found = [each.name for each in importlib.metadata.entry_points(group="jax_plugins")]
    # JAX finds TPUs by the module `libtpu`, not by a plugin.
    return found + ["libtpu"] * (importlib.util.find_spec("libtpu") is not None)


def _nvidia_file(root: pathlib.Path) -> pathlib.Path | None:
    """Returns the device file of a GPU; containers may have the second one only."""
    files = [root / "dev" / name for name in ("nvidia0", "nvidiactl")]
    return next((file for file in files if file.exists()), None)


def _tpu_file(root: pathlib.Path) -> pathlib.Path | None:
    """Returns the device file of a TPU.

    The files alone do not tell: other machines have /dev/vfio/N for devices that they
    pass to guests, and /dev/accel/ for other accelerators.
    """
    files = sorted((root / "dev").glob("accel[0-9]*"))
    files += sorted((root / "dev" / "vfio").glob("[0-9]*"))
    vendors = (root / "sys/bus/pci/devices").glob("*/vendor")
    is_google = any(_text(file) == _GOOGLE for file in vendors)
    return files[0] if files and is_google else None


def _text(file: pathlib.Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # some of /sys is for root alone
        return ""
