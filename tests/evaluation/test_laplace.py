"""Last-layer Laplace against dense matrices in NumPy."""

import jax
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import models, report
from spatial_smoothing.data.sources import Dataset
from spatial_smoothing.evaluation import laplace, suites
from spatial_smoothing.evaluation.suites import lineup
from spatial_smoothing.metrics.feature_confidences import LastLayer
from spatial_smoothing.runs import workdirs

D, K, N = 4, 3, 40
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, D)).astype(np.float32)
LABELS = RNG.integers(0, K, N)
LAST = LastLayer(
    RNG.normal(size=(D, K)).astype(np.float32), RNG.normal(size=K).astype(np.float32)
)


def dense():
    """The trained weights, the features, and the Kronecker product, all dense."""
    inputs = np.concatenate([FEATURES, np.ones((N, 1))], 1).astype(float)
    weights = np.concatenate([LAST.kernel, LAST.bias[None]]).astype(float)
    probs = scipy.special.softmax(inputs @ weights, axis=1)
    a = sum(np.outer(x, x) for x in inputs)
    b = sum(np.diag(p) - np.outer(p, p) for p in probs) / N
    return inputs, weights, np.kron(a, b)


def evidence(precision):
    """Log marginal likelihood, with the determinant of the dense matrix."""
    inputs, weights, hessian = dense()
    log_probs = scipy.special.log_softmax(inputs @ weights, axis=1)
    size = weights.size
    log_prior = size / 2 * np.log(precision / (2 * np.pi))
    log_prior -= precision / 2 * (weights**2).sum()
    _, log_det = np.linalg.slogdet(hessian + precision * np.eye(size))
    log_volume = size / 2 * np.log(2 * np.pi) - log_det / 2
    return log_probs[np.arange(N), LABELS].sum() + log_prior + log_volume


def test_features_are_summed_up_part_by_part(monkeypatch):
    whole = laplace.fit(FEATURES, LABELS, LAST)
    monkeypatch.setattr(laplace, "_PART", 7)
    parts = laplace.fit(FEATURES, LABELS, LAST)
    assert parts.precision == whole.precision
    queries = RNG.normal(size=(3, D)).astype(np.float32)
    np.testing.assert_allclose(
        parts.variances(queries), whole.variances(queries), rtol=1e-5
    )


def test_the_precision_has_the_largest_marginal_likelihood():
    choices = (0.01, 0.1, 0.5, 1.0, 2.0, 10.0, 100.0)
    found = laplace.fit(FEATURES, LABELS, LAST, precisions=choices)
    best = max(choices, key=evidence)
    assert found.precision == pytest.approx(best)
    assert best not in (choices[0], choices[-1])
    inputs, weights, hessian = dense()
    values = np.linalg.eigvalsh(hessian)
    log_likelihood = scipy.special.log_softmax(inputs @ weights, axis=1)
    log_likelihood = log_likelihood[np.arange(N), LABELS].sum()
    for precision in choices:
        value = laplace.log_marginal_likelihood(
            log_likelihood, weights, values, precision=precision
        )
        assert value == pytest.approx(evidence(precision), rel=1e-9)


def test_variances_are_those_of_the_dense_posterior():
    posterior = laplace.fit(FEATURES, LABELS, LAST, precisions=(0.7,))
    _, _, hessian = dense()
    covariance = np.linalg.inv(hessian + 0.7 * np.eye(len(hessian)))
    queries = RNG.normal(size=(6, D)).astype(np.float32) * 2
    for features, found in zip(queries, posterior.variances(queries), strict=True):
        # The derivative of the logits by the weights, rows of W first.
        jacobian = np.kron(np.append(features, 1)[None], np.eye(K))
        expected = np.diag(jacobian @ covariance @ jacobian.T)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


CONFIG = {"model": "resnet_dnn_18", "dataset": "shapes", "width": 4, "stages": (1,)}
ROWS = {"num_samples": 1, "model": "resnet_18", "recipe": "same"}
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)


def setting(**options):
    images = Dataset(IMAGES, np.arange(12, dtype=np.int32) % 10)
    options = {"batch_size": 8, "num_replicates": 0, **options}
    return suites.Setting(images, load=lambda *_: images, **options)


def run(name="a", seed=0, **fields):
    model = models.build(
        "resnet_dnn_18", num_classes=10, width=4, stages=(1,), **fields
    )
    zeros = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(seed), zeros)
    path = workdirs.epath.Path(name)
    return workdirs.Run(path, {**CONFIG, "seed": seed}, model, variables, 0)


def test_a_run_is_scored_by_its_probit_predictions():
    one = run(smoothing=(1,))
    (row,) = suites.laplace([one], setting())
    assert row["label"] == "Deterministic + Laplace + smoothing"
    normalised = lineup.preparation(one)(IMAGES)
    features = one.model.apply(one.variables, normalised, mutable="intermediates")[1]
    pooled = np.array(features["intermediates"]["smooth1"][0]).mean((1, 2))
    dense_layer = one.variables["params"]["head"]["dense"]
    last = LastLayer(dense_layer["kernel"], dense_layer["bias"])
    labels = np.arange(12) % 10
    posterior = laplace.fit(pooled, labels, last)
    assert row["prior_precision"] == pytest.approx(float(posterior.precision))
    variances = posterior.variances(pooled)
    logits = last(pooled) / np.sqrt(1 + np.pi / 8 * variances)
    nll = -scipy.special.log_softmax(logits, axis=1)[np.arange(12), labels].mean()
    assert row["nll"] == pytest.approx(nll, rel=1e-4)
    (plain,) = suites.ensemble([one], setting())
    # The product of features and eigenvectors, and the rest of the variances.
    more = 1e9 * (row["gflops"] - plain["gflops"])
    assert 2 * 5**2 <= more < 1000


def test_members_have_posteriors_of_their_own():
    runs = [run("a"), run("b", seed=1)]
    rows = suites.laplace(runs, setting(), num_images=10)
    labels = ["Deep ensemble + Laplace"] * 2 + ["Deterministic + Laplace"] * 2
    assert [row["label"] for row in rows] == labels
    alone = suites.laplace(runs[1:], setting(), num_images=10)
    assert rows[-1]["nll"] == pytest.approx(alone[0]["nll"], rel=1e-5)


def test_rows_of_networks_with_dropout_say_that_it_is_off():
    runs = [run(name, seed, rate=0.3) for seed, name in enumerate("ab")]
    (plain, *_) = suites.ensemble(runs[:1], setting(num_samples=1))
    rows = suites.laplace(runs, setting())
    labels = ["Deep ensemble + Laplace"] * 2 + ["Deterministic + Laplace"] * 2
    assert [row["label"] for row in rows] == labels
    smoothed = f"{plain['label']} + smoothing", "Deterministic + Laplace + smoothing"
    groups = {
        **{label: [ROWS | {"smoothed": True}] for label in smoothed},
        **{row["label"]: [ROWS | {"smoothed": False}] for row in (plain, rows[-1])},
    }
    pairs = [(label, label.removesuffix(" + smoothing")) for label in smoothed]
    assert report.smoothing_pairs(groups) == pairs


def test_a_network_of_several_predictions_is_refused():
    several = run(ensemble="batch")
    with pytest.raises(ValueError, match="has the ensemble 'batch'"):
        suites.laplace([several], setting())
    for suite in (suites.variance, suites.fourier):
        with pytest.raises(ValueError, match="feature maps of one prediction"):
            suite([several], setting())
    # Before a suite that is evaluated first has computed anything.
    for name in ("variance", "fourier"):
        with pytest.raises(ValueError, match=f"the suite {name} looks at"):
            suites.SUITES[name].check([several], setting(), blocks=True)
