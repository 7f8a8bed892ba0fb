import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from spatial_smoothing import metrics


def samples(number=5, size=23, classes=4):
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((number, size, classes))
    return scipy.special.softmax(logits, axis=-1).astype(np.float32)


def test_entropy_is_that_of_scipy():
    probs = samples()
    probs[0, 0] = [1, 0, 0, 0]
    expected = scipy.stats.entropy(np.float64(probs), axis=-1)
    np.testing.assert_allclose(metrics.entropy(probs), expected, atol=1e-6)


def test_mutual_information_is_the_mean_divergence_from_the_mean():
    probs = np.float64(samples())
    divergence = scipy.stats.entropy(probs, probs.mean(0, keepdims=True), axis=-1)
    actual = metrics.mutual_information(samples())
    np.testing.assert_allclose(actual, divergence.mean(0), atol=1e-6)
    np.testing.assert_array_equal(metrics.mutual_information(samples(1)), 0)
    one_each = np.eye(4, dtype=np.float32)[:, None]
    np.testing.assert_allclose(metrics.mutual_information(one_each), [np.log(4)])


def test_variation_ratio_counts_the_votes_against_the_mode():
    probs = samples()
    for index, actual in enumerate(metrics.variation_ratio(probs)):
        votes = scipy.stats.mode(probs[:, index].argmax(-1)).count
        assert actual == pytest.approx(1 - votes / 5, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_energy_is_a_log_sum_of_exponentials(temperature):
    logits = np.float32([[100, 0, -3], [1, 2, 3]])
    expected = -temperature * np.log(np.exp(logits / temperature, dtype=float).sum(1))
    actual = metrics.energy(logits, temperature=temperature)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    log_probs = jax.nn.log_softmax(logits)
    np.testing.assert_allclose(metrics.energy(log_probs), 0, atol=1e-6)


@pytest.mark.parametrize(
    "function", [metrics.mutual_information, metrics.variation_ratio]
)
def test_nan_is_not_hidden(function):
    probs = samples()
    probs[2, 7, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(function(probs)), np.arange(23) == 7)
    with pytest.raises(ValueError, match=r"must be \[S, B, K\], got shape \[23, 4\]"):
        function(probs[0])
