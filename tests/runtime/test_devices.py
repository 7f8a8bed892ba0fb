"""What is said of devices, with real files in the place of /dev, /sys and /proc."""

import logging
import os
import subprocess
import sys
import types

import jax
import pytest

from spatial_smoothing.cli import devices as announced
from spatial_smoothing.runtime import devices


def device(kind, *, platform="gpu", process_index=0):
    return types.SimpleNamespace(
        platform=platform, device_kind=kind, process_index=process_index
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([device("NVIDIA H200")], "1 x NVIDIA H200"),
        ([device("NVIDIA H200")] * 4, "4 x NVIDIA H200"),
        (
            [
                device("TPU v5 lite", platform="tpu", process_index=i // 4)
                for i in range(8)
            ],
            "8 x TPU v5 lite, 2 processes",
        ),
        ([device("cpu", platform="cpu")], "1 CPU (EPYC, 2 cores)"),
        ([device("cpu", platform="cpu")] * 8, "8 CPUs (EPYC, 2 cores)"),
    ],
)
def test_devices_are_counted_and_named(found, text):
    assert devices.description(found, processor="EPYC, 2 cores") == text


def test_the_processor_is_named_where_linux_says_it(tmp_path):
    cores = len(os.sched_getaffinity(0))
    text = f"{cores} core{'s' if cores > 1 else ''}"
    file = tmp_path / "cpuinfo"
    assert devices.processor(cpuinfo=file) == text
    file.write_text("vendor_id\t: GenuineIntel\nmodel name\t: Xeon(R) 8481C\n" * 2)
    assert devices.processor(cpuinfo=file) == f"Xeon(R) 8481C, {text}"


def machine(root, *, files=(), vendors=()):
    """Makes device files, and PCI devices of some vendors."""
    for number, vendor in enumerate(vendors):
        files = {
            **dict.fromkeys(files, ""),
            f"sys/bus/pci/devices/{number}/vendor": vendor,
        }
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(files[file] if isinstance(files, dict) else "")
    return root


GOOGLE = ["0x8086\n", "0x1ae0\n"]


@pytest.mark.parametrize(
    ("files", "vendors", "named"),
    [
        (["dev/nvidia0"], [], ("/dev/nvidia0", "jax[cuda13]")),
        (["dev/nvidiactl"], [], ("/dev/nvidiactl", "jax[cuda13]")),
        (["dev/accel0", "dev/accel1"], GOOGLE, ("/dev/accel0", "jax[tpu]")),
        (["dev/vfio/vfio", "dev/vfio/3"], GOOGLE, ("/dev/vfio/3", "jax[tpu]")),
        # Virtual machines of Google without a TPU, a host that passes devices to
        # guests, and a laptop with an accelerator for which there is no extra.
        (["dev/vfio/vfio"], GOOGLE, None),
        (["dev/vfio/vfio", "dev/vfio/3"], ["0x8086\n"], None),
        (["dev/accel/accel0"], ["0x8086\n"], None),
        ([], [], None),
    ],
)
def test_an_accelerator_that_is_not_used_is_told_with_its_extra(
    files, vendors, named, tmp_path
):
    root = machine(tmp_path, files=files, vendors=vendors)
    warning = devices.unused_accelerator("cpu", platforms_asked=None, root=root)
    if named is None:
        assert warning is None
    else:
        assert all(name in warning for name in named)
        assert "\n" not in warning
    for platform, asked in [("cpu", "cpu"), ("gpu", None), ("tpu", "")]:
        assert (
            devices.unused_accelerator(platform, platforms_asked=asked, root=root)
            is None
        )


@pytest.mark.parametrize(
    ("file", "plugin"), [("dev/nvidia0", "xla_cuda13"), ("dev/accel0", "libtpu")]
)
def test_what_is_installed_is_not_to_be_installed(file, plugin, tmp_path):
    root = machine(tmp_path, files=[file], vendors=GOOGLE)
    for plugins, text in [([plugin], f"{plugin} is installed"), (["metal"], "pip")]:
        warning = devices.unused_accelerator(
            "cpu", platforms_asked="", plugins=plugins, root=root
        )
        assert text in warning
        assert ("pip" in warning) == (text == "pip")


def test_a_command_prints_the_devices_and_the_warning(capsys, caplog, monkeypatch):
    monkeypatch.setattr(devices, "unused_accelerator", lambda *a, **b: f"{a}, {b}")
    monkeypatch.setattr(logging.getLogger("spatial_smoothing"), "propagate", True)
    announced.announce()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"devices: {jax.device_count()} CPUs (")
    # pytest may note a record twice, where a logger has handlers of its own.
    (text,) = {record.getMessage() for record in caplog.records}
    # The tests ask for CPUs.
    assert text.startswith("('cpu',), {'platforms_asked': 'cpu'")


# A process, because JAX asks its plugins once. What JAX says of an accelerator that is
# not used has no name of an extra, and is left to the warning of this package.
BROKEN = """
import logging
from spatial_smoothing.cli import devices
from spatial_smoothing.runtime import messages
messages.quiet()
devices.announce()
logging.getLogger("jax._src.xla_bridge").warning(
    "An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not"
)
"""


def test_a_plugin_that_fails_is_told_in_one_line(tmp_path):
    (tmp_path / "broken_cuda.py").write_text(
        "def initialize():\n    raise RuntimeError('cuDNN\\nnot found')\n"
    )
    info = tmp_path / "broken_cuda-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: broken_cuda\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jax_plugins]\nbroken = broken_cuda\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", BROKEN],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("devices: ")
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: JAX: ")
    assert "broken_cuda" in line
    assert line.endswith(": cuDNN not found")
