"""Where numbers come from: code, libraries, device, time."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    """Returns the commit, library versions, devices, machine and time; JSON-able."""
    devices = jax.devices()
    return {
        "commit": _commit(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of the checkout this file lies in, `-dirty` if changed since."""
    here = pathlib.Path(__file__).parent
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
