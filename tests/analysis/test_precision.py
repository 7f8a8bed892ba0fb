"""Analyses stay in float32 under JAX's switches for types, and sum in it at least."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import models
from spatial_smoothing.analysis import (
    directions,
    features,
    fourier,
    frequency,
    hessian,
    landscape,
)
from spatial_smoothing.data import batches
from spatial_smoothing.runtime import sharding

KEY = jax.random.key(0)
SWITCHES = {
    "x64": functools.partial(jax.enable_x64, True),
    "strict": functools.partial(jax.numpy_dtype_promotion, "strict"),
}


def scaled(images):
    return images.astype(jnp.float32) / 64 - 2


def prepare(key, images):
    return scaled(images)


@functools.cache
def network():
    """A network without dropout, whose random numbers no switch can change."""
    model = models.build("resnet_dnn_smoothing_18", num_classes=3, width=4, stages=(1,))
    return model, golden.variables(model, jnp.zeros((1, 8, 8, 3)))


def data():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, 7).astype(np.int32)
    return list(batches.sequential(images, labels, batch_size=4))


def variance():
    frames = [{**batch, "image": np.stack([batch["image"]] * 2)} for batch in data()]
    for batch in frames:
        batch["image"][1] = np.roll(batch["image"][0], 1, 1)
    return features.variance(
        *network(), frames, key=KEY, prepare=scaled, over="frames", num_samples=0
    )


def spectra():
    return fourier.spectra(*network(), data(), prepare=scaled)


def eigenvalues():
    options = {"prepare": prepare, "weight_decay": 0.01, "max_steps": 8, "tol": 1e-2}
    return list(hessian.spectrum(*network(), data(), key=KEY, **options))


def densities():
    options = {"prepare": prepare, "weight_decay": 0.01, "num_steps": 4}
    return list(hessian.spectral_density(*network(), data(), key=KEY, **options))


def scan():
    model, variables = network()
    shifts = directions.draw(KEY, variables["params"])
    for leaf in jax.tree.leaves(shifts):
        assert leaf.dtype == np.float32
    return list(
        landscape.scan(
            model,
            variables,
            shifts,
            [(0.1, 0.0), (0.0, -0.1)],
            data(),
            key=KEY,
            prepare=prepare,
            num_samples=0,
            weight_decay=0.01,
            recalibration=data(),
            mesh=sharding.mesh(1),
        )
    )


def noise():
    options = {"prepare": scaled, "frequencies": (1.0,), "half_width": 0.5}
    return list(frequency.robustness(*network(), data(), key=KEY, **options))


ANALYSES = (variance, spectra, eigenvalues, densities, scan, noise)


@pytest.mark.parametrize(
    "switch", ["x64", pytest.param("strict", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda function: function.__name__)
def test_switches_for_types_change_no_result(analysis, switch):
    expected = analysis()
    with SWITCHES[switch]():
        found = analysis()
    assert len(numbers(found)) > 1
    for one, other in zip(numbers(found), numbers(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


def numbers(rows):
    """Returns all numbers of rows, or of what else an analysis returns, in order."""
    return [leaf for leaf in jax.tree.leaves(rows) if not isinstance(leaf, str)]


def test_sums_over_bfloat16_are_those_over_float32():
    """4,096 equal weights: in bfloat16 a running sum would stop at 256."""
    params = {"kernel": jnp.full((64, 64), 1.0, jnp.bfloat16)}
    found = directions.norms(params)
    assert {value.dtype for value in found.values()} == {jnp.dtype("float32")}
    assert float(found["sqnorm"]) == 4096.0
    ones = {"kernel": jnp.full((64, 64), 2.0, jnp.bfloat16)}
    moved = directions.normalize(ones, params)["kernel"]
    assert moved.dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved.astype(np.float32), 1.0)


def test_counts_of_examples_are_integers():
    model, variables = network()
    sums = features.compile_sums(model, prepare=scaled, num_samples=2)
    with jax.enable_x64(True):
        count, totals = sums(variables, KEY, data()[1])
    assert (count.dtype, int(count)) == (jnp.int32, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(totals)} == {jnp.dtype("float32")}


def test_the_loss_of_low_precision_logits_is_summed_in_float32():
    """Each bfloat16 loss has 8 bits; their mean must have more."""

    class Rounded:
        def apply(self, variables, images, *, train, rngs):
            return images.reshape(len(images), -1)[:, :3].astype(jnp.bfloat16)

    rng = np.random.default_rng(0)
    images = rng.normal(size=(1000, 1, 1, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 1000).astype(np.int32)
    (batch,) = batches.sequential(images, labels, batch_size=1000)
    loss = hessian.objective(Rounded(), prepare=prepare_nothing)
    found = loss({"params": {}}, KEY, batch)
    logits = np.float64(jnp.asarray(images[:, 0, 0], jnp.bfloat16).astype(np.float32))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(
        -log_probs[np.arange(1000), labels].mean(), 1e-6
    )


def prepare_nothing(key, images):
    return images
