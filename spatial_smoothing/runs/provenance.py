"""Where numbers come from: code, libraries, device, time."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

from spatial_smoothing.runtime.devices import processor

# Settings of JAX that change which numbers are drawn, or how exactly they are computed.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    """Returns what this process computes with, and when; values that JSON can hold.

    Returns:
      `commit` of this package's checkout, None elsewhere; versions of `libraries` and
      `python`; `settings` of JAX that change numbers; `device` and `num_devices` of all
      `num_processes`; `machine`; `processor`, the name of the CPU and the number of
      cores of this process; `time`, in UTC.
    """
    devices = jax.devices()
    return {
        "commit": _commit(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "settings": {name: getattr(jax.config, name) for name in _SETTINGS},
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "processor": processor(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def device_name(about: Mapping[str, Any]) -> str:
    """Returns how many devices of which kind there were, such as "8 x NVIDIA H100".

    Args:
      about: What `provenance` has returned. That of older versions does not say which
        processor a CPU was.
    """
    name = f"{about['num_devices']} x {about['device']}"
    if about["device"] == "cpu" and "processor" in about:
        name += f" ({about['processor']})"
    return name


def _commit() -> str | None:
    """Returns the commit of this package, with `-dirty` if files have changed since.

    A package that is installed somewhere inside another project's repository, as in its
    virtual environment, is not part of it: None, as where there is no repository.
    """
    file = pathlib.Path(__file__)

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", *arguments],
            cwd=file.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # fails if it is not tracked
        return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
