"""Gradients on their way to the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing.forms import gradients

TREE = {"kernel": jnp.arange(24.0).reshape(1, 2, 3, 4), "bias": jnp.arange(4.0)}


@pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_values_stay(mode):
    for function in (gradients.for_update, gradients._row_major):
        updated = mode(function)(TREE)
        jax.tree.map(np.testing.assert_array_equal, updated, TREE)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_only_gpus_get_another_order(platform):
    traced = jax.jit(gradients.for_update).trace(TREE)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    # One kernel; biases have one order only.
    expected = 1 if platform == "cuda" else 0
    assert text.count("optimization_barrier") == expected
    assert text.count("LayoutConstraint") == expected
