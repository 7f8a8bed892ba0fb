"""Accelerators that are not here: devices to compile for, and not to run on.

Contract of this file: the compilers of TPUs (libtpu) and of NVIDIA's GPUs (JAX's CUDA
plugin) run on any x86-64 machine. Nothing is asked of a network, and an accelerator
that this machine has is not used. The environment of the process is changed before one
of the libraries is loaded, and in no other way.
"""

import importlib.util
import math
import os
import pathlib
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from spatial_smoothing.lookup import unknown
from spatial_smoothing.runtime.chips import CHIPS, Chip

_SPECS = pathlib.Path(__file__).with_name("gpu_specs")
# Platform -> the modules of which one must be there, and the extra that installs one.
_MODULES = {
    "tpu": ("libtpu",),
    "cuda": ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"),
}
_EXTRAS = {"tpu": "tpu", "cuda": "gpu"}
_LIBRARIES = {"tpu": "libtpu", "cuda": "JAX's CUDA plugin"}

# TPU -> the number of axes of its torus, and the most chips of a slice.
_TPUS = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 6144), "v6e": (2, 256)}
_CHIPS_OF_A_HOST = (2, 2, 1)
_MAX_GPUS = 8  # cards of one machine
_TPU_EXAMPLES = "v5e:1x1, v5e:2x2, v5e:16x16, v6e:16x16, v5p:2x2x2"

# Without these, libtpu asks the network for the machine that it is on, and refuses to
# be loaded by two processes, as if both wanted the same TPU.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Topology(NamedTuple):
    """Accelerators that are connected to each other.

    Attributes:
      name: Name of the topology, as it was given.
      chip: What each of the chips has.
      devices: Devices that programs can be compiled for. None of them computes.
    """

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...]


def topology(name: str) -> Topology:
    """Returns the devices of a topology.

    Args:
      name: A TPU slice as JAX names it, such as "v5e:16x16", or "v5e:1x1" for one chip;
        a GPU, such as "h200", or "h200:8" for eight of one machine; or the path of a
        file with XLA's `GpuTargetConfigProto` of another GPU, in text form, with or
        without such a number.

    Raises:
      ValueError: There is no such topology, or the compiler for it is not installed.
      OSError: The file cannot be read.
    """
    head, _, shape = name.partition(":")
    if head in _TPUS:
        return Topology(name, CHIPS[head], _tpus(name, head, shape))
    path, _, count = name.rpartition(":")
    if not (path and count.isdigit()):
        path, count = name, "1"
    if not 1 <= int(count) <= _MAX_GPUS:
        raise ValueError(
            f"{name} has {count} GPUs; choose 1 to {_MAX_GPUS}, those of one machine"
        )
    spec = _SPECS / f"{path}.txtpb"
    if path in CHIPS and spec.exists():
        return Topology(name, CHIPS[path], _gpus(spec.read_text(), int(count)))
    if not pathlib.Path(path).expanduser().is_file():
        names = [*_TPUS, *sorted(spec.stem for spec in _SPECS.glob("*.txtpb"))]
        examples = f"examples: {_TPU_EXAMPLES}, h200, h200:8, or the path of a GPU spec"
        raise ValueError(f"{unknown('topology', head, names)}; {examples}")
    text = pathlib.Path(path).expanduser().read_text()
    return Topology(name, _chip_of_spec(path, text), _gpus(text, int(count)))


def is_available(platform: str) -> bool:
    """Returns whether the compiler of a platform is installed, without loading it.

    Args:
      platform: "tpu" or "cuda".
    """

    def is_there(module: str) -> bool:
        try:
            return importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # the package that it would be in is not there
            return False

    return any(is_there(module) for module in _MODULES[platform])


def _check_available(platform: str) -> None:
    """Raises ValueError if the compiler of a platform is not installed."""
    if not is_available(platform):
        raise ValueError(
            f"compiling for {_EXTRAS[platform].upper()}s needs {_LIBRARIES[platform]}, "
            "which is not installed: "
            f"pip install 'spatial-smoothing[{_EXTRAS[platform]}]'"
        )


def _tpus(name: str, kind: str, shape: str) -> tuple[jax.Device, ...]:
    """Returns the devices of a slice of TPUs.

    Args:
      name: Name of the slice, for messages.
      kind: Key of `_TPUS`.
      shape: Its sizes, such as "4x4".
    """
    axes, most = _TPUS[kind]
    like = "x".join(["2"] * axes)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise ValueError(f"{name} has no shape of a slice; write it as {kind}:{like}")
    sizes = [int(size) for size in shape.split("x")]
    if len(sizes) != axes:
        raise ValueError(
            f"a slice of {kind} has {axes} axes, as in {kind}:{like}, got {name}"
        )
    count = math.prod(sizes)
    # A slice is made of whole hosts, or it is a single chip.
    hosts = zip(sizes, _CHIPS_OF_A_HOST, strict=False)
    whole = all(size % chips == 0 for size, chips in hosts)
    if count > most or not (whole or count == 1):
        raise ValueError(
            f"there is no slice {name}: the first two sizes are even, or all are 1, "
            f"and {kind} has at most {most} chips"
        )
    _check_available("tpu")
    for variable, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device
    found = topologies.get_topology_desc(f"{kind}:{shape}", platform="tpu", **options)
    return tuple(found.devices)


def _gpus(spec: str, count: int) -> tuple[jax.Device, ...]:
    """Returns some GPUs of one machine; `spec` is a `GpuTargetConfigProto` in text."""
    _check_available("cuda")
    # There is no GPU on which XLA could try which kernels are fastest.
    _add_xla_flag("xla_gpu_autotune_level", "0")
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    if os.path.isdir(home):
        # Where the compiler's last stage, ptxas, is. JAX finds it by itself if it was
        # installed with pip.
        _add_xla_flag("xla_gpu_cuda_data_dir", home)
    try:
        found = topologies.get_topology_desc(
            "gpu", platform="cuda", topology=f"1x1x{count}", target_config=spec
        )
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"XLA cannot read the GPU spec: {error}") from None
    _check_tools(found.devices[0])
    return tuple(found.devices)


def _check_tools(gpu: jax.Device) -> None:
    """Raises ValueError if the parts of CUDA that make programs are not found.

    Where they may be is known to XLA alone, which is asked for a small program.

    Args:
      gpu: A GPU that is not here.
    """
    place = jax.sharding.SingleDeviceSharding(gpu)
    x = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=place)
    try:
        jax.jit(jnp.tanh).lower(x).compile()  # a tanh is code of libdevice
    except jax.errors.JaxRuntimeError as error:
        if not re.search(r"ptxas|libdevice", str(error)):
            raise
        raise ValueError(
            "compiling for GPUs needs ptxas and libdevice of CUDA, which are not "
            "found: pip install 'spatial-smoothing[gpu]', or set CUDA_HOME to the "
            "folder of a CUDA toolkit"
        ) from None


def _add_xla_flag(name: str, value: str) -> None:
    """Adds a flag to $XLA_FLAGS, unless it is there."""
    given = os.environ.get("XLA_FLAGS", "")
    if f"--{name}=" not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{name}={value}".strip()


def _chip_of_spec(path: str, text: str) -> Chip:
    """Returns what a `GpuTargetConfigProto` says of its GPU; peaks are not in it."""

    def number(field: str) -> float:
        found = re.search(rf"\b{field}:\s*(\d+)", text)
        if found is None:
            raise ValueError(f"{path} is no spec of a GPU: it has no field {field}")
        return float(found[1])

    described = re.search(r'device_description_str:\s*"(.*?)"', text)
    return Chip(
        name=described[1] if described else pathlib.Path(path).stem,
        memory=number("device_memory_size"),
        bandwidth=number("memory_bandwidth"),
        peak_bf16=None,
        peak_f32=None,
        source=path,
    )
