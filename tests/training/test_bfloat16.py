"""A step in bfloat16 is that in float32, but for rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spatial_smoothing import models
from spatial_smoothing.training import steps

# A value of bfloat16 has 8 bits: a rounding is off by 2**-9 of it at most, and by
# 2**-9 / sqrt(3) in the mean square. On the longest way through the network, the
# kernels, results, norms and smoothed maps of five convolutions are rounded.
FORWARD = 2**-9 * (5 * 4 / 3) ** 0.5
# A value that is closer to zero than it is off passes a ReLU in one type alone. Values
# behind a norm have the density 0.4 at zero, and half of them pass. Each of five ReLUs
# changes that share of the gradients, all of them together in the mean square.
GATES = (5 * (0.8 * FORWARD * 0.4) / 0.5) ** 0.5


def after_a_step(dtype):
    """Loss, gradients and statistics of one step of a narrow network."""
    model = models.build(
        "resnet_mcdo_smoothing_18",
        num_classes=4,
        stem="cifar",
        width=8,
        stages=(1, 1),
        smoothing=(1, 1),
        dtype=dtype,
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.standard_normal((32, 8, 8, 3), np.float32),
        "label": rng.integers(0, 4, 32).astype(np.int32),
        "mask": np.arange(32) < 30,
    }
    optimizer = optax.sgd(1.0)  # changes are the gradients

    def step():
        state = steps.init_state(model, optimizer, (8, 8, 3), seed=0)
        after = steps.train_step(
            state,
            batch,
            model=model,
            optimizer=optimizer,
            dropout_key=jax.random.key(1),
        )
        changes = jax.tree.map(jnp.subtract, after.variables, state.variables)
        return after.sums, changes

    return jax.device_get(jax.jit(step)())


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def test_a_step_in_bfloat16_is_that_in_float32_but_for_rounding():
    sums, changes = after_a_step("bfloat16")
    expected_sums, expected = after_a_step("float32")
    assert sums.count == expected_sums.count == 30
    np.testing.assert_allclose(sums.loss, expected_sums.loss, rtol=2 * FORWARD)
    limits = {"batch_stats": 2 * FORWARD, "params": 1.5 * GATES}
    for collection, limit in limits.items():
        found = jax.tree.map(distance, changes[collection], expected[collection])
        worst = max(jax.tree.leaves(found))
        assert 2**-12 < worst < limit, (collection, worst, limit)
