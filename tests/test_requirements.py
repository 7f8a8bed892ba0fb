"""What is installed: the bounds of setup.cfg, and the locks."""

import ast
import configparser
import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pins(name):
    """Returns the package -> version of a lock, and its other lines."""
    lines = (ROOT / name).read_text().splitlines()
    found = [line.split("==") for line in lines if "==" in line]
    names = [canonicalize_name(name) for name, _ in found]
    assert len(set(names)) == len(names)
    others = [line for line in lines if "==" not in line]
    return dict(zip(names, (version for _, version in found), strict=True)), others


def bounds(*extras):
    """Returns the requirements of setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    texts = settings["options"]["install_requires"].split("\n")
    for extra in extras:
        texts += settings["options.extras_require"][extra].split("\n")
    return [Requirement(text) for text in texts if text]


LOCK, OTHERS = pins("requirements.lock")
GPU_LOCK, GPU_OTHERS = pins("requirements-gpu.lock")
DOCS_LOCK, DOCS_OTHERS = pins("requirements-docs.lock")


def test_the_lock_is_within_the_bounds():
    assert OTHERS == []
    for bound in bounds("test"):
        version = LOCK[canonicalize_name(bound.name)]
        assert bound.specifier.contains(version), f"{bound}: {version} is locked"


def test_the_lock_for_gpus_is_the_other_one_and_what_cuda_needs():
    assert GPU_OTHERS == ["--requirement requirements.lock"]
    # A package in both might have two versions.
    assert not LOCK.keys() & GPU_LOCK.keys()
    # JAX and its plugin are of one version.
    for name in ("jax-cuda13-pjrt", "jax-cuda13-plugin"):
        assert GPU_LOCK[name] == LOCK["jaxlib"] == LOCK["jax"]
    assert all(re.match("jax-cuda13|nvidia-", name) for name in GPU_LOCK)
    assert {"nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-nccl-cu13"} <= GPU_LOCK.keys()


def test_the_lock_for_the_site_is_the_other_one_and_what_sphinx_needs():
    assert DOCS_OTHERS == ["--requirement requirements.lock"]
    assert not LOCK.keys() & DOCS_LOCK.keys()
    for bound in bounds("docs"):
        if bound not in bounds():
            version = DOCS_LOCK[canonicalize_name(bound.name)]
            assert bound.specifier.contains(version), f"{bound}: {version} is locked"


def test_setup_cfg_names_every_library_that_is_imported():
    extras = ("tpu", "hf", "safetensors", "torch", "test", "benchmarks")
    named = {canonicalize_name(bound.name) for bound in bounds(*extras)}
    distributions = importlib.metadata.packages_distributions()
    folders = ("spatial_smoothing", "benchmarks", "examples", "configs")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    own = {*sys.stdlib_module_names, *folders, "tests", *(p.stem for p in paths)}
    assert {"jax", "psutil", "PIL"} <= found - own
    for name in found - own:
        packages = set(map(canonicalize_name, distributions.get(name, [name])))
        assert packages & named, f"{name} is in no list of setup.cfg"


def test_extras_ask_for_the_jax_that_the_package_asks_for():
    own = {bound.name: bound.specifier for bound in bounds()}
    assert {(b.name, b.specifier) for b in bounds("gpu", "tpu") if b.name == "jax"} == {
        ("jax", own["jax"])
    }


@pytest.mark.parametrize(
    ("arguments", "lock"),
    [
        (["install"], "requirements.lock"),
        (["GPU=1", "install"], "requirements-gpu.lock"),
        # Nobody should find out on the GPU that the CPU has worked.
        (["gpu"], "requirements-gpu.lock"),
    ],
)
def test_make_installs_the_lock_that_is_asked_for(arguments, lock, tmp_path):
    command = ["make", "--dry-run", f"VENV={tmp_path / 'venv'}", *arguments]
    # `make GPU=1 test` tells its commands so.
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"pip install --quiet --requirement {lock}\n" in done.stdout
