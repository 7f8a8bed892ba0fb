import math

import numpy as np
import pytest

from spatial_smoothing.data.corruption import baselines, transforms
from spatial_smoothing.metrics.corruption import (
    mean_corruption,
    relative_mean_corruption,
)

ERRORS = [[0.2, 0.4], [0.1, 0.8]]
BASELINE = [[0.5, 0.5], [0.4, 0.6]]


def test_severities_are_summed_before_they_are_divided():
    found = mean_corruption(ERRORS, baseline=BASELINE)
    assert found == pytest.approx(((0.2 + 0.4) / 1.0 + (0.1 + 0.8) / 1.0) / 2)
    assert mean_corruption(ERRORS) == pytest.approx((0.2 + 0.4 + 0.1 + 0.8) / 4)
    assert mean_corruption(BASELINE, baseline=BASELINE) == 1


def test_relative_errors_are_those_above_clean_images():
    found = relative_mean_corruption(
        ERRORS, 0.05, baseline=BASELINE, baseline_clean=0.3
    )
    expected = ((0.15 + 0.35) / (0.2 + 0.2) + (0.05 + 0.75) / (0.1 + 0.3)) / 2
    assert found == pytest.approx(expected)
    assert relative_mean_corruption(ERRORS, 0.05) == pytest.approx(0.375 - 0.05)


def test_what_cannot_be_divided_is_nan():
    assert math.isnan(relative_mean_corruption(ERRORS, 0.05, baseline=BASELINE))
    found = relative_mean_corruption(
        ERRORS, 0.05, baseline=BASELINE, baseline_clean=0.5
    )
    assert math.isnan(found)
    assert math.isnan(mean_corruption(ERRORS, baseline=[[0, 0], [1, 1]]))


def grid(name, score):
    scores = baselines.alexnet(name).scores
    return np.array(
        [[scores[c, s][score] for s in transforms.SEVERITIES] for c in transforms.NAMES]
    )


def test_alexnet_of_the_paper_has_the_published_means():
    assert 1 - grid("cifar100", "accuracy").mean() == pytest.approx(0.5899, abs=5e-5)
    assert grid("cifar100", "nll").mean() == pytest.approx(4.0124, abs=5e-5)
    assert grid("cifar100", "ece").mean() == pytest.approx(0.3122, abs=5e-5)
    extra = baselines.alexnet("cifar100").scores
    assert {name for name, _ in extra} == {*transforms.CORRUPTIONS}


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_scores_of_alexnet_get_worse_with_severity(name):
    scores = baselines.alexnet(name).scores
    assert {s for _, s in scores} == {*transforms.SEVERITIES}
    for score, sign in (("accuracy", -1), ("nll", 1)):
        means = sign * grid(name, score).mean(axis=0)
        assert np.all(np.diff(means) > 0)


def test_official_constants_are_those_of_imagenet_c():
    # Hendrycks & Dietterich, ICLR 2019: errors of AlexNet averaged over severities.
    errors = 1 - grid("imagenet_official", "accuracy").mean(axis=1)
    published = [88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7]
    published += [82.7, 81.9, 56.5, 85.3, 64.6, 71.8, 60.7]
    np.testing.assert_allclose(100 * errors, published, atol=0.06)
    assert (
        baselines.alexnet("imagenet_official").scores["clean", 0]["accuracy"] == 0.565
    )
    with pytest.raises(ValueError, match="unknown baseline 'shapes'"):
        baselines.alexnet("shapes")
