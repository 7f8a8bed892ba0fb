import jax
import numpy as np
import pytest
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from spatial_smoothing import metrics


@jax.jit
def all_of(scores, positives, weights=None):
    arguments = (scores, positives, weights)
    low = metrics.fpr_at_tpr(*arguments, tpr=0.5)
    return (
        metrics.auroc(*arguments),
        metrics.aupr(*arguments),
        metrics.fpr_at_tpr(*arguments),
        low,
        metrics.trapezoidal_aupr(*arguments),
    )


def reference(scores, positives, weights=None):
    fpr, tpr, _ = roc_curve(positives, scores, sample_weight=weights)
    return (
        roc_auc_score(positives, scores, sample_weight=weights),
        average_precision_score(positives, scores, sample_weight=weights),
        fpr[tpr >= 0.95].min(),
        fpr[tpr >= 0.5].min(),
        trapezoid(positives, scores, weights),
    )


def trapezoid(positives, scores, weights=None):
    """The area that OpenOOD's evaluators publish as AUPR."""
    precision, recall, _ = precision_recall_curve(
        positives, scores, sample_weight=weights
    )
    return auc(recall, precision)


def examples(size, *, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    positives = rng.random(size) < 0.3
    scores = np.float32(rng.standard_normal(size) + 1.2 * positives)
    if decimals is not None:
        scores = np.round(scores, decimals)
    return scores, positives, rng.poisson(1, size).astype(np.float32)


@pytest.mark.parametrize("decimals", [None, 2, 0])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_equal_those_of_scikit_learn(decimals, weighted):
    *arguments, weights = examples(20_000, decimals=decimals)
    arguments += [weights] if weighted else []
    np.testing.assert_allclose(all_of(*arguments), reference(*arguments), atol=1e-6)


def test_weights_need_not_be_whole():
    scores, positives, _ = examples(500, decimals=1)
    weights = np.random.default_rng(1).random(500).astype(np.float32)
    actual = all_of(scores, positives, weights)
    expected = reference(scores, positives, weights)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_weights_are_mapped_and_scores_sorted_once():
    scores, positives, _ = examples(200, decimals=1)
    weights = np.random.default_rng(1).poisson(1, (3, 200)).astype(np.float32)
    mapped = jax.vmap(lambda w: metrics.auroc(scores, positives, w))
    for actual, row in zip(mapped(weights), weights, strict=True):
        expected = roc_auc_score(positives, scores, sample_weight=row)
        assert actual == pytest.approx(expected, abs=1e-6)
    sorts = [
        line
        for line in str(jax.make_jaxpr(mapped)(weights)).splitlines()
        if " sort[" in line
    ]
    assert len(sorts) == 1
    assert "[3,200]" not in sorts[0]


def test_order_of_examples_plays_no_part():
    arguments = examples(300, decimals=0)
    mixed = np.random.default_rng(2).permutation(300)
    np.testing.assert_allclose(
        all_of(*arguments), all_of(*(part[mixed] for part in arguments)), atol=1e-7
    )


def test_out_of_distribution_is_positive():
    scores, positives, weights = examples(300, decimals=1)
    inside, outside = scores[~positives], scores[positives]
    in_order = np.concatenate([weights[~positives], weights[positives]])
    actual = metrics.ood(inside, outside, in_order)
    auroc, aupr, fpr, _, straight = reference(scores, positives, weights)
    aupr_in = average_precision_score(~positives, -scores, sample_weight=weights)
    expected = {"auroc": auroc, "aupr_out": aupr, "aupr_in": aupr_in, "fpr95": fpr}
    expected["aupr_out_trapezoid"] = straight
    expected["aupr_in_trapezoid"] = trapezoid(~positives, -scores, weights)
    assert {name: float(value) for name, value in actual.items()} == pytest.approx(
        expected, abs=1e-6
    )
    assert metrics.ood(np.zeros(2), np.ones(3))["auroc"] == 1


def test_what_is_not_defined_is_nan():
    scores = np.float32([0.1, 0.2, 0.2])
    np.testing.assert_array_equal(all_of(scores, np.zeros(3, bool)), np.nan)
    auroc, aupr, *fpr, straight = all_of(scores, np.ones(3, bool))
    assert np.isnan([auroc, *fpr]).all()
    assert (aupr, straight) == (1, 1)
    weightless = all_of(scores, np.array([True, False, False]), np.float32([0, 1, 1]))
    np.testing.assert_array_equal(weightless, np.nan)
    scores[1] = np.nan
    for weights in (np.ones(3), np.array([1, 0, 1])):
        result = all_of(scores, np.array([True, False, False]), np.float32(weights))
        np.testing.assert_array_equal(result, np.nan)


def test_unusable_rates_are_refused():
    for tpr in (0, 1.5):
        with pytest.raises(ValueError, match=rf"in \(0, 1\], got {tpr}"):
            metrics.fpr_at_tpr(np.zeros(2), np.array([True, False]), tpr=tpr)
