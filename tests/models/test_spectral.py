"""Spectral normalisation against the singular values of kernels."""

import jax
import numpy as np
import pytest

from spatial_smoothing import models
from spatial_smoothing.training import freezing

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
ROW = {"num_classes": 3, "width": 4, "stages": (1,)}


def build(**fields):
    return models.build("resnet_dnn_18", **{**ROW, **fields})


def test_kernels_are_divided_by_what_their_singular_value_has_too_much():
    bound = 0.6
    network = build(spectral_bound=bound)
    variables = network.init(jax.random.key(0), IMAGES)
    step = jax.jit(
        lambda v: network.apply(v, IMAGES, train=True, mutable=["batch_stats"])[1]
    )
    for _ in range(60):  # steps of power iteration
        variables = {**variables, **step(variables)}
    plain = {"params": {}, "batch_stats": {}}
    for name, parts in variables["params"].items():
        plain["params"][name] = dict(parts)
        plain["batch_stats"][name] = variables["batch_stats"].get(name, {})
    values = []

    def bounded(layer):
        kernel = np.array(layer["conv"]["kernel"])
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[1][0]
        values.append(largest)
        return {"kernel": kernel / max(1, largest / bound)}

    plain["params"]["stem_conv"] = bounded(plain["params"]["stem_conv"])
    block = plain["params"]["stage1_block0"]
    for name in ("conv1", "conv2"):
        block[name] = bounded(block[name])
    assert min(values) > bound
    expected = build().apply(plain, IMAGES, train=False)
    found = network.apply(variables, IMAGES, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    # A kernel that is within the bound stays as it is.
    loose = build(spectral_bound=100.0).apply(variables, IMAGES, train=False)
    block["conv1"], block["conv2"] = (
        variables["params"]["stage1_block0"][name]["conv"]
        for name in ("conv1", "conv2")
    )
    plain["params"]["stem_conv"] = variables["params"]["stem_conv"]["conv"]
    expected = build().apply(plain, IMAGES, train=False)
    np.testing.assert_allclose(loose, expected, rtol=1e-4, atol=1e-6)


def test_an_average_of_vectors_bounds_as_a_unit_vector_does():
    """A moving average, which is evaluated, is shorter than what it is the mean of."""
    network = build(spectral_bound=0.3)
    variables = network.init(jax.random.key(0), IMAGES)
    shorter = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf / 2 if path[-1].key == "u" else leaf, variables
    )
    np.testing.assert_allclose(
        network.apply(shorter, IMAGES), network.apply(variables, IMAGES), rtol=1e-5
    )


def test_bounds_of_frozen_parts_stay_as_they_are():
    network = build(spectral_bound=0.3)
    variables = network.init(jax.random.key(0), IMAGES)
    before = variables["batch_stats"]

    def train(frozen):
        with freezing.evaluating(frozen):
            return jax.jit(
                lambda v: network.apply(v, IMAGES, train=True, mutable=["batch_stats"])
            )(variables)

    logits, updates = train(["stem", "stage1"])
    # All convolutions are frozen: the network is that of evaluation.
    np.testing.assert_allclose(logits, network.apply(variables, IMAGES), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], before)
    found = train(["stem"])[1]["batch_stats"]
    np.testing.assert_array_equal(found["stem_conv"]["u"], before["stem_conv"]["u"])
    trained, started = (x["stage1_block0"]["conv1"]["u"] for x in (found, before))
    assert (trained != started).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spectral_bound": -1.0}, "spectral_bound must be above 0, got -1.0"),
        ({"spectral_bound": 3.0, "ensemble": "packed"}, "leave one of the two out"),
    ],
)
def test_bounds_that_make_no_network_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build(**fields).init, jax.random.key(0), IMAGES)
