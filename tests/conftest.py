"""Strict settings of all tests: eight virtual CPU devices, no rank promotion."""

import os
import subprocess

import compiler_flags

# Read when jax is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), compiler_flags.flags(num_devices=8))
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# The files that take longest. They begin first, so that no process of `make test` is
# left alone with one of them while the others have nothing more to do.
LONGEST = (
    *("test_chaos", "test_scripts", "test_training", "test_topologies"),
    *("test_benchmarks", "test_examples", "test_evaluate", "test_input_pipeline"),
    *("test_pages", "test_analysis_suites", "test_suites", "test_own_models"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first, and leaves all others in order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def x64():
    """Computes in float64 for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Drops compiled programs after each file; a whole run would take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own, of 8 MiB; skipped where none can be made.

    Permissions do not bind root, who runs the tests in containers; this does.
    """
    path = tmp_path / "disk"
    path.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path)
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(("umount", "--lazy", path), check=True)
