import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import cpu, distributed

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


def gradient(kernel, x):
    def loss(kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.square(y).mean()

    return jax.grad(loss)(kernel)


def test_gradients_compiled_for_a_cpu_are_the_gradients():
    rng = np.random.default_rng(0)
    kernel, x = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((3, 3, 8, 8), (4, 6, 6, 8))
    )
    lowered = jax.jit(gradient).lower(kernel, x)
    compiled = cpu.compile_gradients(lowered, distributed.mesh(1))
    np.testing.assert_allclose(
        compiled(kernel, x), gradient(kernel, x), rtol=1e-5, atol=1e-7
    )
    assert "ynn" not in compiled.as_text()


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(cpu, "_OPTIONS", {"xla_no_such_option": "1"})
    lowered = jax.jit(lambda x: x + 1).lower(1)
    assert cpu.compile_gradients(lowered, distributed.mesh(1))(1) == 2


def test_freed_memory_is_used_again():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", SECOND_TIME, how]))
        for how in ("kept", "returned")
    }
    assert faults["kept"] < 1000 < faults["returned"]
