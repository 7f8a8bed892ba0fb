import os
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing.runtime import cpu, sharding

# Writes to new memory twice; what the second time costs in page faults.
SECOND_TIME = """
import resource, sys
from spatial_smoothing import cpu
if sys.argv[1] == "kept":
    cpu.keep_memory()
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**26
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


class TwoConvolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(3 * nn.Conv(8, (3, 3))(x) + 1)
        return x


def gradient(params, x):
    def loss(params):
        return jnp.square(TwoConvolutions().apply(params, x)).mean()

    return jax.grad(loss)(params)


def test_gradients_compiled_for_a_cpu_are_the_gradients():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 8)), jnp.float32)
    params = TwoConvolutions().init(jax.random.key(0), x)
    compiled = cpu.compile_gradients(
        jax.jit(gradient), params, x, mesh=sharding.mesh(1)
    )
    chex.assert_trees_all_close(
        compiled(params, x), gradient(params, x), rtol=1e-5, atol=1e-6
    )
    text = compiled.as_text()
    assert "ynn" not in text
    assert text.count(" opt-barrier(") == 3  # both inputs, and the gradient of one


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(cpu, "_OPTIONS", {"xla_no_such_option": "1"})
    compiled = cpu.compile_gradients(jax.jit(lambda x: x + 1), 1, mesh=sharding.mesh(1))
    assert compiled(1) == 2


def faults(how, *folders, platforms="cpu"):
    """Page faults of the second time, with modules in more folders."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": platforms,
    }
    command = [sys.executable, "-c", SECOND_TIME, how]
    return int(subprocess.check_output(command, env=environment))


def test_freed_memory_is_used_again():
    assert faults("kept") < 1000 < faults("returned")


@pytest.mark.parametrize("accelerator", ["a plugin", "libtpu"])
def test_memory_is_left_alone_where_there_is_an_accelerator(accelerator, tmp_path):
    if accelerator == "libtpu":
        path, text = tmp_path / "libtpu.py", "get_library_path = lambda: None"
    else:
        path = tmp_path / "plugin-1.0.dist-info" / "entry_points.txt"
        text = "[jax_plugins]\nplugin = plugin\n"
        path.parent.mkdir()
        (path.parent / "METADATA").write_text("Name: plugin\nVersion: 1.0\n")
    path.write_text(text)
    assert faults("kept", str(tmp_path), platforms="") > 1000
    assert faults("kept", str(tmp_path)) < 1000  # JAX is told to use the CPU
