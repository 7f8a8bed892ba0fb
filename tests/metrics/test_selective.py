import itertools

import jax
import numpy as np
import pytest
import scipy.integrate
from sklearn.metrics import roc_auc_score

from spatial_smoothing import metrics


def examples(size=40, *, levels=None, seed=0, zero_one=False):
    rng = np.random.default_rng(seed)
    confidence = rng.random(size)
    if levels is not None:
        confidence = np.round(levels * confidence) / levels
    loss = rng.random(size) * (1.5 - confidence)
    loss = loss > 0.4 if zero_one else loss
    weights = rng.integers(0, 4, size)
    return tuple(np.float32(part) for part in (confidence, loss, weights))


def risk_at(coverage, confidence, loss, weights):
    """Mean loss of the most confident share; those on its edge count in part."""
    left, total = coverage * weights.sum(), 0.0
    for level in sorted(set(confidence), reverse=True):
        equal = confidence == level
        taken = min(left, weights[equal].sum())
        if taken > 0:
            total += taken * np.average(loss[equal], weights=weights[equal])
        left -= taken
    return total / (coverage * weights.sum())


@jax.jit
def areas(*arguments):
    return metrics.aurc(*arguments), metrics.excess_aurc(*arguments)


@pytest.mark.parametrize("levels", [None, 6, 1])
def test_aurc_is_the_integral_of_the_curve(levels):
    arguments = examples(levels=levels)
    double = [np.float64(part) for part in arguments]

    def integral(confidence):
        kinks = np.cumsum(double[2][np.argsort(-confidence)]) / double[2].sum()
        edges = np.unique(np.concatenate([[1e-9], kinks]))
        return sum(
            scipy.integrate.quad(risk_at, low, high, args=(confidence, *double[1:]))[0]
            for low, high in itertools.pairwise(edges)
        )

    aurc = integral(double[0])
    expected = aurc, aurc - integral(-double[1])
    np.testing.assert_allclose(areas(*arguments), expected, atol=1e-6)


def test_aurc_tends_to_the_mean_risk_of_thresholds():
    confidence, loss, _ = examples(5000, zero_one=True)
    risks = np.cumsum(np.float64(loss[np.argsort(-confidence)])) / np.arange(1, 5001)
    aurc, excess = areas(confidence, loss)
    assert aurc == pytest.approx(risks.mean(), abs=2e-4)
    error = loss.mean(dtype=float)
    best = error + (1 - error) * np.log(1 - error)
    assert aurc - excess == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("levels", [None, 6, 1])
def test_augrc_is_that_of_its_closed_form(levels):
    """From scikit-learn's AUROC of the detection of errors, with ties and weights."""
    confidence, wrong, weights = examples(60, levels=levels, zero_one=True)
    actual = metrics.augrc(confidence, wrong, weights)
    error = np.average(np.float64(wrong), weights=weights)
    auroc = roc_auc_score(wrong == 0, confidence, sample_weight=weights)
    expected = (1 - auroc) * error * (1 - error) + error**2 / 2
    assert actual == pytest.approx(expected, abs=1e-6)


def test_augrc_tends_to_the_sum_of_traub_and_others():
    confidence, loss, _ = examples(5000)
    risks = np.cumsum(np.float64(loss[np.argsort(-confidence)])) / 5000
    assert metrics.augrc(confidence, loss) == pytest.approx(risks.mean(), abs=2e-4)


def test_scod_is_the_area_of_both_sets_with_their_costs():
    confidence, wrong, weights = examples(50, zero_one=True)
    inside, outside = confidence[:30], confidence[30:]
    costs = np.concatenate([0.3 * wrong[:30], np.full(20, 0.7)])
    actual = metrics.scod(inside, wrong[:30], outside, weights, cost=0.7)
    assert actual == pytest.approx(
        float(metrics.aurc(confidence, costs, weights)), abs=1e-6
    )
    # Without OOD examples that are accepted first, only errors cost something.
    perfect = metrics.scod(np.ones(3), np.zeros(3), np.zeros(3))
    assert perfect == pytest.approx((0.5 - 0.5 * np.log(2)) / 2, abs=1e-6)
    with pytest.raises(ValueError, match=r"cost must be in \[0, 1\], got 2"):
        metrics.scod(inside, wrong[:30], outside, cost=2)


def test_the_best_order_has_no_excess():
    _, loss, weights = examples(zero_one=True)
    assert areas(-loss, loss, weights)[1] == 0
    assert areas(loss, loss, weights)[1] > 0.1
    np.testing.assert_allclose(areas(loss, np.ones(40), weights), [1, 0])
    np.testing.assert_array_equal(areas(loss, np.zeros(40), weights), 0)


@pytest.mark.parametrize("levels", [None, 6])
def test_the_curve_has_a_point_for_each_threshold(levels):
    confidence, loss, weights = examples(levels=levels)
    coverage, risk = metrics.risk_coverage(confidence, loss, weights)
    for index, level in enumerate(np.sort(confidence)[::-1]):
        kept = confidence >= level
        share = weights[kept].sum() / weights.sum()
        assert coverage[index] == pytest.approx(share, abs=1e-6)
        mean = np.average(loss[kept], weights=weights[kept]) if share else np.nan
        assert risk[index] == pytest.approx(mean, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("levels", [None, 6])
@pytest.mark.parametrize("risk", [0.05, 0.2, 10])
def test_coverage_at_risk_is_that_of_the_best_threshold(levels, risk):
    confidence, loss, weights = examples(levels=levels)
    expected = 0
    for level in set(confidence):
        kept = confidence >= level
        if weights[kept] @ loss[kept] <= risk * weights[kept].sum():
            expected = max(expected, weights[kept].sum() / weights.sum())
    actual = metrics.coverage_at_risk(confidence, loss, weights, risk=risk)
    assert actual == pytest.approx(expected, abs=1e-6)
    assert metrics.coverage_at_risk(confidence, 1 + loss, risk=1.0) == 0


def test_nothing_but_the_examples_counts():
    """Not their order, and a weight is as good as repetition."""
    arguments = examples(levels=6)
    mixed = np.random.default_rng(3).permutation(40)
    np.testing.assert_allclose(
        areas(*arguments), areas(*(part[mixed] for part in arguments)), atol=1e-6
    )
    times = np.int32(arguments[2])
    repeated = [np.repeat(part, times) for part in arguments[:2]]
    np.testing.assert_allclose(areas(*arguments), areas(*repeated), atol=1e-6)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_is_not_hidden(place):
    arguments = list(examples())
    arguments[place][3] = np.nan
    assert np.isnan(areas(*arguments)).all()
    assert np.isnan(metrics.coverage_at_risk(*arguments))
    assert np.isnan(metrics.risk_coverage(*arguments)).all()


def test_no_weight_is_nan():
    confidence, loss, weights = examples()
    assert np.isnan(areas(confidence, loss, 0 * weights)).all()
