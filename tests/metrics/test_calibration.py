import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from spatial_smoothing import metrics

fit = jax.jit(metrics.fit_temperature)


def examples(size=300, *, levels=None):
    rng = np.random.default_rng(0)
    confidence = rng.random(size)
    correct = rng.random(size) < confidence**2
    if levels is not None:
        confidence = np.round(levels * confidence) / levels
    return np.float32(confidence), correct, rng.integers(0, 4, size)


def mean_gap_of_chunks(confidence, correct, num_bins):
    order = np.argsort(confidence)
    gaps = (np.float64(confidence) - correct)[order]
    return np.mean([abs(gap.mean()) for gap in np.split(gaps, num_bins)])


@pytest.mark.parametrize("num_bins", [1, 15, 300])
def test_bins_of_equal_mass_hold_as_many_examples(num_bins):
    confidence, correct, _ = examples()
    actual = metrics.adaptive_ece(confidence, correct, num_bins=num_bins)
    expected = mean_gap_of_chunks(confidence, correct, num_bins)
    assert actual == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("levels", [None, 8])
def test_examples_are_divided_between_bins(levels):
    """As if each were 7 of a 7th, equal ones mixed: then the bins come out even."""
    confidence, correct, weights = examples(80, levels=levels)
    actual = metrics.adaptive_ece(confidence, correct, weights, num_bins=7)
    level, index = np.unique(confidence, return_inverse=True)
    mass = np.bincount(index, weights)
    right = np.bincount(index, weights * correct)
    parts = np.repeat(np.arange(len(level)), 7 * np.int64(mass))
    accuracy = right / np.maximum(mass, 1)
    expected = mean_gap_of_chunks(np.float64(level)[parts], accuracy[parts], 7)
    assert actual == pytest.approx(expected, abs=1e-6)
    mixed = np.random.default_rng(1).permutation(80)
    arguments = (part[mixed] for part in (confidence, correct, weights))
    assert metrics.adaptive_ece(*arguments, num_bins=7) == pytest.approx(
        expected, abs=1e-6
    )


def test_nan_and_no_weight_are_nan():
    confidence, correct, weights = examples()
    assert np.isnan(metrics.adaptive_ece(confidence, correct, 0 * weights))
    confidence[weights == 0] = np.nan
    assert np.isnan(metrics.adaptive_ece(confidence, correct, weights))
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        metrics.adaptive_ece(confidence, correct, num_bins=0)


def logits(size=200, classes=10, *, sharpness=1.0, seed=0):
    """Log-probabilities of which the right temperature is about `sharpness`."""
    rng = np.random.default_rng(seed)
    values = 2 * rng.standard_normal((size, classes))
    labels = (values + rng.gumbel(size=values.shape)).argmax(1)
    scaled = scipy.special.log_softmax(sharpness * values, axis=1)
    return np.float32(scaled), np.int32(labels), np.float32(rng.integers(0, 4, size))


def loss(temperature, log_probs, labels, weights):
    scaled = scipy.special.log_softmax(np.float64(log_probs) / temperature, axis=1)
    return -weights @ scaled[np.arange(len(labels)), labels]


@pytest.mark.parametrize("sharpness", [0.1, 0.7, 1.0, 5.0, 15.0])
@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_that_of_least_nll(sharpness, seed):
    arguments = logits(sharpness=sharpness, seed=seed)
    expected = scipy.optimize.minimize_scalar(
        lambda log: loss(np.exp(log), *arguments),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert fit(*arguments) == pytest.approx(np.exp(expected.x), rel=2e-5)


def test_temperature_ends_at_its_bounds():
    log_probs, labels, weights = logits()
    best, worst = log_probs.argmax(1), log_probs.argmin(1)
    assert fit(log_probs, np.int32(best), weights) == pytest.approx(1 / 20)
    assert fit(log_probs, np.int32(worst), weights) == 20
    assert fit(40 * log_probs, labels, weights) == 20
    # Of equal scores all temperatures are alike.
    assert np.isfinite(fit(0 * log_probs, labels, weights))


def test_temperature_of_impossible_classes_is_finite():
    log_probs, labels, weights = logits()
    without = np.concatenate([log_probs, np.full((200, 1), -np.inf)], axis=1)
    expected = float(fit(log_probs, labels, weights))
    assert fit(np.float32(without), labels, weights) == pytest.approx(expected)


def test_temperature_of_nan_or_a_label_outside_is_nan():
    log_probs, labels, weights = logits()
    for label in (-1, 10):
        wrong = np.where(np.arange(200) == 3, np.int32(label), labels)
        assert np.isnan(fit(log_probs, wrong, weights))
    log_probs[5] = np.nan
    assert np.isnan(fit(log_probs, labels, weights))


def test_temperatures_are_mapped_over_weights():
    log_probs, labels, weights = logits()
    both = np.stack([weights, weights[::-1]])
    mapped = jax.vmap(lambda w: metrics.fit_temperature(log_probs, labels, w))(both)
    for actual, row in zip(mapped, both, strict=True):
        assert actual == pytest.approx(float(fit(log_probs, labels, row)), rel=2e-5)


def test_scaling_divides_logits():
    log_probs, *_ = logits()
    for temperature in (0.3, 1.0, 4.0):
        expected = scipy.special.log_softmax(log_probs / temperature, axis=1)
        actual = metrics.scale_temperature(log_probs, np.float32(temperature))
        np.testing.assert_allclose(actual, expected, atol=2e-5)
