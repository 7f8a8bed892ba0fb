"""Scores at both ends of what probabilities can be, and of how many can be counted."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.special
from scores_by_definition import by_definition

from spatial_smoothing import metrics
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.metrics import tallies

tally = jax.jit(metrics.tally)


def assert_scores(actual, expected, *, tolerance=2e-6):
    assert set(expected) <= set(actual)
    for name, score in expected.items():
        np.testing.assert_allclose(
            actual[name], score, rtol=tolerance, atol=tolerance, err_msg=name
        )


@jax.jit
def scored(log_probs, labels):
    """The tally and the table of log-probabilities."""
    found = metrics.tally(jnp.exp(log_probs), labels, log_probs=log_probs)
    examples = metrics.per_example(log_probs, labels)
    return found, metrics.table(examples, num_classes=log_probs.shape[-1])


@jax.jit
def log_means(samples):
    """Log-probabilities f[N, n, K] of the first 1 to N samples, as mixtures add up."""
    total = mixtures.empty(mixtures.single(samples[0]))

    def add(total, logits):
        total = total + mixtures.single(logits)
        return total, total.log_probs()

    return jax.lax.scan(add, total, samples)[1]


@pytest.mark.parametrize("classes", [1, 2, 1000])
@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_no_size_of_an_ensemble_loses_confident_images(classes, scale):
    """At N = 37 to 41, rounding puts the mean of saturated samples above 1."""
    rng = np.random.default_rng(0)
    labels = np.int32([0] * 54 + [classes - 1] * 6)  # a tenth is wrong
    samples = scale * rng.standard_normal((100, 60, classes))
    samples[:, :30, 0] += 40  # saturated; the others are ordinary
    samples = np.float32(samples)
    means = log_means(samples)
    assert means.max() <= 0
    exact = scipy.special.softmax(np.float64(samples), axis=-1).cumsum(0)
    sizes = range(1, 101) if classes < 1000 else (1, 2, 37, 38, 40, 41, 64, 100)
    for size in sizes:
        found, table = scored(means[size - 1], labels)
        expected = by_definition(exact[size - 1] / size, labels)
        if scale == 0:  # float32 and float64 decide otherwise where classes tie
            expected = {name: expected[name] for name in ("nll", "brier", "ece", "mce")}
        scores = metrics.summary(found)
        assert_scores(scores, expected, tolerance=2e-5)
        shared = expected.keys() & table.keys()
        assert_scores(table, {name: expected[name] for name in shared}, tolerance=2e-5)
        assert found.bin_count.sum() == 60
        assert sum(metrics.reliability(found)["count"]) == 60
        np.testing.assert_array_equal(found.class_count.sum(0), 60)


@pytest.mark.parametrize("excess", [1e-7, 2e-6])
def test_probabilities_slightly_above_one_count_as_one(excess):
    above = np.float32([[1 + excess, 0], [1 + excess, 1e-9], [0.7, 0.3]])
    exact = np.float32([[1, 0], [1, 1e-9], [0.7, 0.3]])
    labels = np.int32([0, 1, 0])
    for function in (metrics.tally, tally):
        expected = metrics.summary(function(exact, labels))
        assert_scores(metrics.summary(function(above, labels)), expected, tolerance=0)
    with np.errstate(divide="ignore"):
        of_files = metrics.per_example(np.log(exact), labels)
    of_files = of_files.replace(confidence=above.max(1))  # as version 0.1 wrote them
    table = metrics.table(of_files, num_classes=2)
    assert_scores(table, {"ece": expected["ece"], "mce": expected["mce"]})
    correct = labels == 0
    np.testing.assert_array_equal(
        metrics.adaptive_ece(above.max(1), correct),
        metrics.adaptive_ece(exact.max(1), correct),
    )
    np.testing.assert_array_equal(metrics.nll(above, labels)[0], 0)
    assert metrics.entropy(above).min() >= 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log10", [0, -1, -7, -20, -37, -39, -42, -44, -50, -300, None])
def test_logs_of_small_probabilities(dtype, log10):
    """Subnormal numbers too, which XLA takes for 0; and those below float32."""
    small = dtype(0 if log10 is None else 10.0**log10)
    probs = np.array([[small, 1 - small]])
    with np.errstate(divide="ignore"):
        expected = -np.log(np.float64(small))
    functions = [metrics.nll, lambda *args: metrics.tally(*args).nll]
    if dtype == np.float32:  # else they are float32 before `jit` sees them
        functions += [jax.jit(function) for function in functions]
    for function in functions:
        loss = function(probs, np.array([0]))
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_logs_of_subnormal_float64():
    probs = jnp.array([[1e-310, 1.0], [5e-324, 1.0], [0.0, 1.0]])
    expected = [-np.log(1e-310), -np.log(5e-324), np.inf]
    actual = jax.jit(metrics.nll)(probs, np.zeros(3, int))
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_certain_and_impossible_predictions():
    probs, labels = np.float32(np.eye(3)), np.int32([0, 1, 0])
    scores = metrics.summary(tally(probs, labels))
    expected = {"nll": np.inf, "brier": 2 / 3, "ece": 1 / 3, "signed_ece": 1 / 3}
    expected |= {"mce": 1 / 3, "accuracy_90": 2 / 3, "unconfidence_90": 0}
    assert_scores(scores, expected)
    one_class = metrics.summary(tally(np.ones((4, 1)), np.zeros(4, int)))
    expected = {"nll": 0, "brier": 0, "ece": 0, "accuracy": 1, "top5": 1, "iou": 1}
    assert_scores(one_class, expected, tolerance=0)


def random_probs(size, classes=4):
    rng = np.random.default_rng(0)
    probs = scipy.special.softmax(2 * rng.standard_normal((size, classes)), axis=1)
    return probs, rng.integers(0, classes, size)


TYPES = {
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x,
    "list": lambda x: x.tolist(),
    "uint8": lambda x: np.uint8(x == x.max(1, keepdims=True)),
    "bool": lambda x: x == x.max(1, keepdims=True),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("as_jax", [False, True])
def test_tallies_of_any_type_are_sums_in_float32(name, as_jax):
    probs, labels = random_probs(5000)  # bfloat16 stops counting at 256
    given = TYPES[name](probs)
    exact = np.asarray(given).astype(np.float64)
    given = jnp.asarray(given) if as_jax else given
    with np.errstate(divide="ignore"):
        expected = by_definition(exact, labels)
    for kind in (np.int64, np.uint8, list):
        found = metrics.tally(given, kind(labels))
        assert found.count == 5000
        assert found.bin_count.sum() == 5000
        scores = metrics.summary(found)
        if name in ("uint8", "bool"):
            assert scores.pop("nll") == expected["nll"] == np.inf
        assert_scores(scores, {name: expected[name] for name in scores}, tolerance=5e-6)
    for function, values in ((metrics.nll, found.nll), (metrics.brier, found.brier)):
        assert function(given, labels).dtype == np.float32
        assert function(given, labels).sum() == pytest.approx(float(values), rel=1e-5)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "list"])
def test_examples_of_any_type_are_scored_in_float32(name):
    probs, labels = random_probs(5000)
    given = TYPES[name](np.log(probs))
    exact = np.exp(np.asarray(given).astype(np.float64))
    examples = metrics.per_example(given, list(labels))
    assert examples.nll.dtype == examples.confidence.dtype == np.float32
    table_of = jax.jit(functools.partial(metrics.table, num_classes=4))
    table = table_of(examples)
    expected = by_definition(exact, labels)
    shared = table.keys() & expected.keys()
    assert_scores(table, {name: expected[name] for name in shared}, tolerance=5e-6)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), examples.confidence)
    halved = table_of(examples.replace(confidence=low))
    assert halved["accuracy"] == table["accuracy"]
    assert halved["ece"] == pytest.approx(float(table["ece"]), abs=4e-3)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "list"])
def test_uncertainties_of_any_type_are_sums_in_float32(name):
    rng = np.random.default_rng(0)
    probs = scipy.special.softmax(rng.standard_normal((300, 5, 40)), axis=-1)
    given = TYPES[name](probs)
    exact = np.asarray(given).astype(np.float64)

    def entropy(p):
        return scipy.special.entr(p).sum(-1)

    expected = {
        metrics.entropy: entropy(exact),
        metrics.mutual_information: entropy(exact.mean(0)) - entropy(exact).mean(0),
        metrics.variation_ratio: [
            1 - np.bincount(votes).max() / 300 for votes in exact.argmax(-1).T
        ],
        metrics.energy: -scipy.special.logsumexp(exact, axis=-1),
    }
    for function, values in expected.items():
        assert function(given).dtype == np.float32
        np.testing.assert_allclose(function(given), values, rtol=2e-5, atol=2e-6)


def test_counts_are_exact_beyond_those_of_float32():
    probs, labels = random_probs(97)
    one = total = tally(probs, labels)
    for _ in range(20):
        total = total + total
    total = jax.jit(lambda a, b: a + b)(total, one)
    assert int(total.count) == 97 * 2**20 + 97
    for name in ("true", "labelled", "predicted", "bin_count", "class_count", "top5"):
        expected = np.int64(getattr(one, name)) * (2**20 + 1)
        np.testing.assert_array_equal(np.int64(getattr(total, name)), expected)
    assert_scores(metrics.summary(total), metrics.summary(one))
    twice = jax.tree.map(lambda x: x * 2**21, one)
    assert int((twice + total).count) == 97 * (3 * 2**20 + 1)


def test_large_batches_are_summed_up_in_parts(monkeypatch):
    probs, labels = random_probs(97)
    mask = np.arange(97) % 5 > 0
    whole = tally(probs, labels, mask)
    monkeypatch.setattr(tallies, "_ROWS", 10)
    parts = jax.jit(lambda *args: metrics.tally(*args))(probs, labels, mask)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), parts, whole)
    assert parts.batches == 1


@pytest.mark.slow
def test_one_batch_of_more_examples_than_float32_counts():
    size = 2**24 + 3
    probs = np.float32([[0.9, 0.1]]).repeat(size, 0)
    labels = np.int8(np.arange(size) % 10 == 0)
    found = tally(probs, labels)
    assert int(found.count) == size
    assert int(found.true[0, 0]) == (labels == 0).sum()
    assert int(found.labelled[0, 1]) == (labels == 1).sum()
    assert metrics.summary(found)["ece"] == pytest.approx(0, abs=1e-6)
