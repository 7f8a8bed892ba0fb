"""Scores of a confidence on several sets, against scikit-learn."""

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

from spatial_smoothing.evaluation import detection

RNG = np.random.default_rng(0)
INSIDE = np.float32(RNG.normal(1, 1, 40))
WRONG = np.float32(RNG.random(40) < 0.3)
OUTSIDE = [
    np.float32(RNG.normal(shift, 1, size))
    for shift, size in ((0.5, 30), (-0.5, 25), (-1, 35))
]
DISTANCES = ("far", "near", "far")


def reference(outside):
    """As OpenOOD computes them: OOD is positive, and its score is -confidence."""
    scores = -np.concatenate([INSIDE, outside])
    out = np.arange(len(scores)) >= len(INSIDE)
    fpr, tpr, _ = roc_curve(out, scores)
    found = {"auroc": roc_auc_score(out, scores), "fpr95": fpr[tpr >= 0.95].min()}
    for name, positives, sign in (("out", out, 1), ("in", ~out, -1)):
        precision, recall, _ = precision_recall_curve(positives, sign * scores)
        found[f"aupr_{name}"] = average_precision_score(positives, sign * scores)
        found[f"aupr_{name}_trapezoid"] = auc(recall, precision)
    return found


@pytest.fixture(scope="module")
def detected():
    return detection.detect(
        jax.random.key(0),
        INSIDE,
        WRONG,
        OUTSIDE,
        distances=DISTANCES,
        num_replicates=300,
    )


def test_scores_equal_scikit_learn(detected):
    singles, means = detected
    expected = [reference(outside) for outside in OUTSIDE]
    for found, other in zip(singles, expected, strict=True):
        actual = {name: found.scores[name] for name in other}
        assert actual == pytest.approx(other, abs=1e-6)
    for distance, group in (("near", [1]), ("far", [0, 2])):
        for name in expected[0]:
            mean = np.mean([expected[index][name] for index in group])
            assert means[distance].scores[name] == pytest.approx(mean, abs=1e-6)


def test_scod_is_the_mean_cost_of_what_is_accepted(detected):
    """Summed up over all thresholds in NumPy; there are no ties."""
    for found, outside in zip(detected[0], OUTSIDE, strict=True):
        costs = np.concatenate([0.5 * WRONG, np.full(len(outside), 0.5)])
        order = np.argsort(-np.concatenate([INSIDE, outside]))
        sums = np.concatenate([[0], np.cumsum(costs[order])])
        # The exact integral of (L + x l) / (k + x) over x in [0, 1], k by k.
        x = (np.arange(1000) + 0.5) / 1000
        area = np.mean(
            [
                ((sums[k] + x * costs[order][k]) / (k + x)).mean()
                for k in range(len(costs))
            ]
        )
        assert found.scores["scod"] == pytest.approx(area, abs=1e-5)


def test_intervals_surround_scores_and_their_means(detected):
    singles, means = detected
    for found in (*singles, *means.values()):
        low, high = found.intervals["auroc"]
        assert low < found.scores["auroc"] < high
    # The mean over two sets varies less than each of them.
    width = lambda found: np.diff(found.intervals["auroc"])[0]
    assert width(means["far"]) < max(width(singles[0]), width(singles[2]))
    without = detection.detect(
        jax.random.key(0),
        INSIDE,
        WRONG,
        OUTSIDE[:1],
        distances=("near",),
        num_replicates=0,
    )
    assert without[0][0].intervals == {}
    assert list(without[1]) == ["near"]


def test_a_confidence_that_is_not_there_has_no_scores():
    nothing = np.full(40, np.nan, np.float32)
    (found,), _ = detection.detect(
        jax.random.key(0),
        nothing,
        WRONG,
        [nothing[:5]],
        distances=("near",),
        num_replicates=0,
    )
    assert np.isnan(list(found.scores.values())).all()
    assert detection.curves(nothing, nothing) == {}


def test_the_best_choice_is_that_of_the_highest_auroc():
    better = np.stack([np.full(40, np.nan), INSIDE, INSIDE + 1])
    outside = np.stack([np.zeros(30), OUTSIDE[0], OUTSIDE[0]])
    assert detection.best_choice(better, outside) == 2


def test_curves_are_those_of_scikit_learn_and_numpy():
    found = detection.curves(INSIDE, OUTSIDE[1])
    scores = -np.concatenate([INSIDE, OUTSIDE[1]])
    out = np.arange(len(scores)) >= len(INSIDE)
    fpr, tpr, _ = roc_curve(out, scores, drop_intermediate=False)
    area = np.trapezoid(found["roc"], np.linspace(0, 1, 101))
    assert area == pytest.approx(auc(fpr, tpr), abs=0.01)
    centres, inside, outside = found["histogram"]
    assert inside.sum() == pytest.approx(1)
    assert centres @ outside == pytest.approx(OUTSIDE[1].mean(), abs=0.1)
    equal = detection.curves(np.ones(3), np.ones(2))
    assert equal["histogram"][1:].max(1) == pytest.approx([1, 1])
