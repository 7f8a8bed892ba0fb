import jax
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import metrics

RNG = np.random.default_rng(0)
PROBS = np.float32(scipy.special.softmax(RNG.normal(0, 2, (30, 9)), -1))


def by_hand(probs, method):
    """Class by class, in float64."""
    scores = np.zeros(probs.shape)
    for row, p in enumerate(np.float64(probs)):
        for k in range(len(p)):
            # Equal probabilities: the lower class goes first.
            before = (p > p[k]) | ((p == p[k]) & (np.arange(len(p)) <= k))
            extra = 0.01 * max(before.sum() - 5, 0) if method == "raps" else 0
            scores[row, k] = (
                1 - p[k] if method == "lac" else p[before].sum() - 1 + extra
            )
    return scores


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_scores_equal_numpy(method):
    probs = PROBS.copy()
    probs[0] = np.float32([0.25, 0.25, 0.25, 0.25, 0, 0, 0, 0, 0])  # ties
    score = jax.jit(metrics.class_scores, static_argnames="method")
    np.testing.assert_allclose(
        score(probs, method=method), by_hand(probs, method), atol=1e-6
    )


def test_the_threshold_has_the_finite_sample_correction():
    scores = np.float32(RNG.permutation(19))  # 0 to 18
    assert metrics.conformal_threshold(scores) == 17  # rank 20 * 0.9 = 18 of 19
    assert metrics.conformal_threshold(scores[:9]) == scores[:9].max()
    assert metrics.conformal_threshold(scores[:8]) == np.inf  # 9 * 0.9 is above 8
    batch = np.stack([scores, scores + 1])
    assert metrics.conformal_threshold(batch, coverage=0.5).tolist() == [9, 10]
    scores[3] = np.nan
    assert np.isnan(metrics.conformal_threshold(scores))


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_sets_cover_as_often_as_asked(method):
    """Mean over many draws of held-out and test examples, against the exact bounds."""
    logits = RNG.normal(0, 2, (40_000, 9))
    labels = (logits + RNG.gumbel(size=logits.shape)).argmax(-1)
    probs = np.float32(scipy.special.softmax(1.7 * logits, -1))  # overconfident
    scores = np.asarray(metrics.class_scores(probs, method=method))
    right = scores[np.arange(len(labels)), labels].reshape(400, 100)
    thresholds = metrics.conformal_threshold(right[:, :49], coverage=0.8)
    covered = right[:, 49:] <= np.asarray(thresholds)[:, None]
    # Of n = 49 held-out examples between 0.8 and 0.8 + 1 / 50; in fact 40 / 50.
    assert covered.mean() == pytest.approx(0.8, abs=0.012)
    sets = metrics.conformal_sets(scores[:5], -0.1)
    assert (np.asarray(sets) == (scores[:5] <= -0.1)).all()


def test_classes_after_a_certain_prediction_are_told_apart():
    """Where the sum of probabilities rounds to 1 from the first class on."""
    probs = np.float32([[1, 1e-9, 1e-12, 0]])
    scores = np.asarray(metrics.class_scores(probs, method="aps"))[0]
    np.testing.assert_allclose(scores, [-1.001e-9, -1e-12, 0, 0], rtol=1e-6)


def test_unusable_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown conformal method 'asp'; did you"):
        metrics.class_scores(PROBS, method="asp")
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\), got 90"):
        metrics.conformal_threshold(np.ones(3), coverage=90)
