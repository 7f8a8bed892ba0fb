import functools
import math

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from spatial_smoothing import layers
from spatial_smoothing.analysis import hessian, lanczos
from spatial_smoothing.data import batches
from spatial_smoothing.runtime import sharding

KEY = jax.random.key(0)
plain = lambda key, images: images


@pytest.fixture(scope="module")
def reference():
    return golden.arrays("hessian")


def symmetric(eigenvalues, seed=0):
    """Returns a random symmetric matrix of a known spectrum."""
    size = len(eigenvalues)
    normal = np.random.default_rng(seed).normal(size=(size, size))
    q, _ = np.linalg.qr(normal)
    return q @ np.diag(eigenvalues) @ q.T


def product(matrix):
    """Returns `matvec` through the derivatives of a quadratic function."""
    matrix = jnp.asarray(matrix)
    loss = lambda p: 0.5 * jnp.vdot(p, matrix @ p) + jnp.cos(p[0]) + 0.5 * p[0] ** 2
    return jax.jit(lambda v: hessian.hvp(loss, jnp.zeros(len(matrix)), v))


def softmax_regression(reference, batch, weight_decay=0.0):
    """Returns `matvec` of one batch of the golden values, and its size."""

    class Linear:
        def apply(self, variables, images, *, train, rngs):
            params = variables["params"]
            return images @ params["a_w"].T + params["b"][None]

    loss = hessian.objective(Linear(), prepare=plain, weight_decay=weight_decay)
    # The vector is flattened in the order of the names: weights, then biases.
    variables = {"params": {"a_w": reference["w"], "b": reference["b"]}}
    data = {
        "image": reference["x"][batch],
        "label": np.int32(reference["y"][batch]),
        "mask": np.ones(len(reference["y"][batch]), bool),
    }
    compiled = hessian.compile_hvp(loss)
    return lambda vector: compiled(variables, KEY, data, vector)


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_products_equal_the_reference_hessian(reference, x64, batch):
    matvec = softmax_regression(reference, batch)
    dense = np.stack([matvec(row) for row in np.eye(15)])
    np.testing.assert_allclose(dense, reference["H"][batch], atol=1e-12)


def test_top_eigenvalues_equal_the_reference(reference, x64):
    options = {"dtype": jnp.float64, "tol": 1e-9, "k": 5}
    for batch in range(3):
        matvec = softmax_regression(reference, batch)
        values, _ = lanczos.top_eigenvalues(KEY, matvec, 15, **options)
        np.testing.assert_allclose(values, reference["top5"][batch], rtol=1e-8)
    decay = float(reference["wd"])
    matvec = softmax_regression(reference, 0, weight_decay=decay)
    (value, *_), _ = lanczos.top_eigenvalues(KEY, matvec, 15, **options)
    assert value == pytest.approx(reference["max_l2"][0], rel=1e-8)


def test_power_iteration_stops_where_the_reference_does(reference, x64):
    matvec = softmax_regression(reference, 0)
    found = lanczos.power(matvec, reference["v0"], tol=1e-3)
    np.testing.assert_allclose(found.trace, reference["power_trace"], rtol=1e-9)
    assert found.value == pytest.approx(float(reference["power_value"]), rel=1e-9)
    assert len(lanczos.power(matvec, reference["v0"], max_steps=4).trace) == 4


@pytest.mark.parametrize("method", lanczos.METHODS)
def test_magnitude_counts_not_sign(reference, x64, method):
    matvec = product(reference["indef_A"])
    options = {"method": method, "k": 3, "tol": 1e-10, "max_steps": 400}
    values, steps = lanczos.top_eigenvalues(KEY, matvec, 6, dtype=float, **options)
    np.testing.assert_allclose(values, reference["indef_top3"], rtol=1e-5)
    assert (steps <= 6) == (method == "lanczos")


def test_shares_of_negative_values(reference):
    found = hessian.proportions(np.linalg.eigvalsh(reference["indef_A"]))
    assert found["negative"] == pytest.approx(float(reference["nep_example"]))
    assert found["positive_mean"] == pytest.approx(float(reference["ape_example"]))
    assert math.isnan(hessian.proportions([-1.0])["positive_mean"])


def test_lanczos_is_an_orthonormal_tridiagonalisation():
    eigenvalues = np.concatenate([np.linspace(-1, 1, 198), [20.0, 50.0]])
    matrix = np.float32(symmetric(eigenvalues))
    start = jax.random.normal(KEY, (200,))
    found = lanczos.lanczos(product(matrix), start, num_steps=60)
    basis = np.asarray(found.basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(60), atol=2e-6)
    off = found.beta[:-1]
    expected = np.diag(found.alpha) + np.diag(off, 1) + np.diag(off, -1)
    np.testing.assert_allclose(basis @ matrix @ basis.T, expected, atol=1e-4)
    values, _, bounds = found.ritz()
    distance = np.abs(values[:, None] - eigenvalues[None]).min(1)
    assert np.all(distance <= bounds + 1e-4)


def test_exhausted_subspaces_end_lanczos():
    matrix = np.float32(symmetric([3.0] * 5 + [1.0] * 5 + [-2.0] * 10))
    found = lanczos.lanczos(product(matrix), jnp.arange(1.0, 21.0), num_steps=15)
    np.testing.assert_allclose(found.ritz()[0], [-2, 1, 3], rtol=1e-5)


def test_products_that_are_not_finite_are_an_error():
    with pytest.raises(FloatingPointError, match="product 1 of Lanczos is not finite"):
        lanczos.lanczos(lambda v: v * jnp.nan, jnp.ones(3), num_steps=2)
    with pytest.raises(FloatingPointError, match="product 1 of power iteration is not"):
        lanczos.top_eigenvalues(KEY, lambda v: v * jnp.nan, 3, method="power")


def test_unusable_requests_are_refused():
    matvec = product(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match=r"k must be in \[1, 3\], got 4"):
        lanczos.top_eigenvalues(KEY, matvec, 3, k=4)
    with pytest.raises(ValueError, match="unknown method 'pwer'; did you mean 'power'"):
        lanczos.top_eigenvalues(KEY, matvec, 3, method="pwer")
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        lanczos.lanczos(matvec, jnp.ones(3), num_steps=0)
    with pytest.raises(ValueError, match="sees 1 of the 2 eigenvalues"):
        lanczos.top_eigenvalues(KEY, matvec, 3, k=2)


def test_quadrature_has_the_moments_of_the_spectrum():
    eigenvalues = np.concatenate([np.linspace(0, 1, 380), np.linspace(4, 5, 20)])
    matrix = np.float32(symmetric(eigenvalues))
    found = [
        lanczos.quadrature(key, product(matrix), 400, num_steps=20)
        for key in jax.random.split(KEY, 20)
    ]
    nodes, weights = np.stack(found, 1)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    for power in (1, 2, 3):
        moment = (weights * nodes**power).sum(1).mean()
        assert moment == pytest.approx(np.mean(eigenvalues**power), rel=0.05)
    assert weights[nodes > 2].sum() / 20 == pytest.approx(0.05, rel=0.2)


def test_densities_are_sums_of_gaussians():
    nodes, weights = np.array([-1.0, 2.0]), np.array([3.0, 1.0])
    points, values = lanczos.density(nodes, weights, width=0.5, num_points=400)
    pdf = scipy.stats.norm.pdf
    expected = 0.75 * pdf(points, -1, 0.5) + 0.25 * pdf(points, 2, 0.5)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert (points[0], points[-1]) == (-3.5, 4.5)
    points, values = lanczos.density(np.array([2.0]), np.array([1.0]))
    assert np.trapezoid(values, points) == pytest.approx(1, rel=1e-4)


def test_bandwidth_is_silvermans():
    values = np.random.default_rng(0).normal(5, 2, 200)
    spread = min(values.std(), scipy.stats.iqr(values) / 1.34)
    expected = 0.9 * spread * 200**-0.2
    assert lanczos.bandwidth(values) == pytest.approx(expected)
    assert lanczos.bandwidth(np.array([3.0])) is None


class Tiny(nn.Module):
    """A network small enough to write its Hessian down."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(2, (3, 3), use_bias=False)(images)
        x = nn.relu(layers.BatchNorm(use_running_average=not train)(x))
        x = nn.Dropout(0.3, deterministic=not self.has_rng("dropout"))(x)
        return layers.Dense(3)(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def network():
    model = Tiny()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 4, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 12).astype(np.int32)
    variables = jax.jit(functools.partial(model.init, train=False))(KEY, images[:1])
    return model, variables, (images, labels)


@pytest.fixture(scope="module")
def dense(network):
    """A function of key and batch to the Hessian of the objective, written down."""
    model, variables, _ = network
    flat, unravel = jax.flatten_util.ravel_pytree(variables["params"])

    @jax.jit
    def of_batch(key, batch):
        dropout_key = jax.random.split(key)[1]

        def loss(flat):
            logits = model.apply(
                {**variables, "params": unravel(flat)},
                batch["image"],
                train=False,
                rngs={"dropout": dropout_key},
            )
            one_hot = jax.nn.one_hot(batch["label"], 3)
            losses = -(jax.nn.log_softmax(logits) * one_hot).sum(-1)
            return losses.mean(where=batch["mask"]) + 0.005 * (flat**2).sum()

        return jax.hessian(loss)(flat)

    return lambda key, batch: np.float64(of_batch(key, batch))


def test_eigenvalues_of_a_network_equal_those_of_the_dense_hessian(network, dense):
    """On one device and, the second batch alone, on two; it is padded."""
    model, variables, data = network
    data = list(batches.sequential(*data, batch_size=8))
    options = {"key": KEY, "prepare": plain, "weight_decay": 0.01, "k": 3, "tol": 1e-4}
    one = list(hessian.spectrum(model, variables, data, **options))
    mesh = sharding.mesh(2)
    (two,) = hessian.spectrum(
        model,
        sharding.replicate(variables, mesh),
        sharding.split_batches(data, mesh),
        done={0},
        **options,
    )
    for row in (*one, two):
        index = row["batch"]
        key = jax.random.split(jax.random.fold_in(KEY, index))[0]
        values = np.linalg.eigvalsh(dense(key, data[index]))
        expected = values[np.argsort(-np.abs(values))[:3]]
        np.testing.assert_allclose(row["eigenvalues"], expected, rtol=1e-3)
    assert [row["batch"] for row in (*one, two)] == [0, 1, 1]
    arrays = hessian.arrays(reversed(one))
    assert arrays["eigenvalues"].shape == (2, 3)
    np.testing.assert_array_equal(arrays["batch"], [0, 1])


def test_density_is_that_of_the_loss_over_all_batches(network, dense):
    model, variables, data = network
    products = []
    density = functools.partial(
        hessian.spectral_density,
        model,
        variables,
        key=KEY,
        prepare=plain,
        weight_decay=0.01,
        num_probes=30,
        num_steps=12,
    )
    rows = list(
        density(
            batches.sequential(*data, batch_size=8),
            on_product=lambda: products.append(1),
        )
    )
    assert len(products) == 30 * 12
    nodes, weights = (
        np.array([r[name] for r in rows]) for name in ("nodes", "weights")
    )
    loss_key = jax.random.split(KEY)[0]
    total = 0.0
    for index, batch in enumerate(batches.sequential(*data, batch_size=8)):
        key = jax.random.fold_in(loss_key, index)
        total = total + dense(key, batch) * batch["mask"].sum() / 12
    assert nodes.max() == pytest.approx(np.linalg.eigvalsh(total)[-1], rel=1e-3)
    size = len(total)
    trace = (nodes * weights).sum(1).mean()
    assert trace == pytest.approx(np.trace(total) / size, rel=0.15)
    assert hessian.num_parameters(variables) == size
    (last,) = density(batches.sequential(*data, batch_size=8), done=range(29))
    assert last == rows[-1]
