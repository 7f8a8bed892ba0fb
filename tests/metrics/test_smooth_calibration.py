import jax
import numpy as np
import pytest
import scipy.optimize

from spatial_smoothing import metrics


def error_at(width, confidence, correct, weights, *, points=4001):
    """The definition: a Gaussian and its mirror images, by the trapezoidal rule."""
    t = np.linspace(0, 1, points)[:, None]
    kernel = sum(
        np.exp(-0.5 * ((t - sign * confidence[None] - 2 * shift) / width) ** 2)
        for shift in range(-3, 4)
        for sign in (-1, 1)
    ) / (width * np.sqrt(2 * np.pi))
    gaps = weights * (correct - confidence)
    return np.trapezoid(np.abs(kernel @ gaps / weights.sum()), t[:, 0])


def reference(confidence, correct, weights):
    given = [np.float64(values) for values in (confidence, correct, weights)]
    return scipy.optimize.brentq(lambda s: error_at(s, *given) - s, 1e-3, 1, xtol=1e-9)


@pytest.mark.parametrize("skill", [0.5, 1.0, 1.5])
def test_smooth_ece_equals_its_definition(skill):
    rng = np.random.default_rng(0)
    confidence = np.float32(rng.beta(4, 1.5, 300))
    correct = rng.random(300) < confidence**skill
    weights = np.float32(rng.poisson(1, 300))
    actual = jax.jit(metrics.smooth_ece)(confidence, correct, weights)
    assert actual == pytest.approx(reference(confidence, correct, weights), abs=1e-6)


def test_one_confidence_has_a_closed_form():
    """Far from the ends, and of one sign: the integral is |confidence - accuracy|."""
    confidence = np.full(100, 0.5, np.float32)
    correct = np.arange(100) < 40
    assert metrics.smooth_ece(confidence, correct) == pytest.approx(0.1, abs=1e-6)
    assert metrics.smooth_ece(np.ones(5), np.ones(5)) == pytest.approx(0, abs=1e-6)
    assert metrics.smooth_ece(np.ones(5), np.zeros(5)) == pytest.approx(1, abs=1e-5)


def test_a_small_change_of_confidences_is_a_small_change_of_the_error():
    """Across the edge of a bin of ECE."""
    correct = np.arange(10) < 7
    values = [
        float(metrics.smooth_ece(np.full(10, 0.8 + step, np.float32), correct))
        for step in (-1e-4, 1e-4)
    ]
    assert values[1] - values[0] == pytest.approx(2e-4, abs=1e-5)


def test_nan_is_not_hidden():
    assert np.isnan(metrics.smooth_ece(np.float32([0.5, np.nan]), [True, False]))
