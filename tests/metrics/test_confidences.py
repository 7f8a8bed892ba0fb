import jax
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import metrics

RNG = np.random.default_rng(0)
LOGITS = np.float32(RNG.normal(0, 4, (50, 12)))
LOGITS[0] = [40, *[0] * 11]  # so certain that 1 - p is 0 in float32
LOG_PROBS = np.float32(scipy.special.log_softmax(np.float64(LOGITS), -1))
PROBS = np.exp(np.float64(LOG_PROBS))


def assert_near(actual, expected, *, rtol=1e-6, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_confidences_equal_numpy():
    assert_near(metrics.max_probability(LOG_PROBS), PROBS.max(-1))
    assert_near(metrics.max_logit(LOGITS), LOGITS.max(-1))
    scaled = scipy.special.softmax(np.float64(LOGITS) / 1000, -1).max(-1)
    assert_near(metrics.odin(LOGITS), np.log(12 * scaled), atol=1e-8)
    scaled = scipy.special.softmax(np.float64(LOGITS) / 5, -1).max(-1)
    assert_near(metrics.odin(LOGITS, temperature=5), np.log(12 * scaled))


@pytest.mark.parametrize("top", [1, 5, 12, 100])
@pytest.mark.parametrize("gamma", [0.01, 0.1, 2.0])
def test_generalised_entropy_equals_numpy(gamma, top):
    """Against the published formula in float64, where 1 - p does not round to 0."""
    probs = np.sort(scipy.special.softmax(np.float64(LOGITS), -1), -1)[:, ::-1]
    # 1 - p has no digits left where p is 1, even in float64; the sum of the rest has.
    rest = np.concatenate([probs[:, 1:].sum(-1, keepdims=True), 1 - probs[:, 1:]], -1)
    expected = -((probs * rest) ** gamma)[:, :top].sum(-1)
    actual = jax.jit(metrics.generalised_entropy, static_argnames="top")(
        LOG_PROBS, gamma=gamma, top=top
    )
    assert_near(actual, expected, rtol=3e-6)


def test_closed_forms():
    even = np.full((1, 4), np.log(0.25), np.float32)
    assert_near(metrics.max_probability(even), [0.25])
    assert_near(metrics.odin(even), [0], atol=1e-9)
    assert_near(metrics.generalised_entropy(even, gamma=0.5), [-4 * 0.1875**0.5])
    certain = np.array([[0, -np.inf, -np.inf]], np.float32)
    assert_near(metrics.generalised_entropy(certain), [0])


def test_odin_ranks_what_float32_probabilities_do_not():
    near = np.float32([[0.001 * step, 0, 0, 0] for step in range(1, 9)])
    values = np.asarray(metrics.odin(near))
    assert (np.diff(values) > 0).all()


def test_what_is_no_confidence_is_refused():
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        metrics.generalised_entropy(LOG_PROBS, top=0)
    with pytest.raises(ValueError, match="log"):
        metrics.max_probability(LOGITS)
    with pytest.raises(ValueError, match="temperature"):
        metrics.odin(LOGITS, temperature=0.0)


def test_disagreement_is_counted_pair_by_pair():
    classes = RNG.integers(0, 3, (5, 20))
    votes = np.eye(4)[classes].sum(0)
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    expected = np.mean([classes[a] != classes[b] for a, b in pairs], 0)
    assert_near(metrics.disagreement(votes), expected)
    assert np.isnan(metrics.disagreement(np.float32([[1, 0]]))).all()


def test_ambiguity_is_what_averaging_gains():
    log_probs = scipy.special.log_softmax(RNG.normal(0, 2, (6, 9, 4)), -1)
    labels = RNG.integers(0, 4, 9)
    of_label = log_probs[:, np.arange(9), labels]
    mean = scipy.special.logsumexp(log_probs, 0) - np.log(6)
    expected = (-of_label).mean(0) + np.log(np.exp(of_label).mean(0))
    actual = metrics.ambiguity(log_probs.mean(0), mean, labels)
    assert_near(actual, expected)
    assert (np.asarray(actual) > 0).all()
    assert np.isnan(metrics.ambiguity(mean[:1], mean[:1], [4])).all()
