import functools

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from random_examples import CLASSES, examples, per_example, predictions

from spatial_smoothing import metrics

RANKED = {"adaptive_ece", "aurc", "excess_aurc", "augrc", "coverage_at_risk_5"}
UNCERTAINTIES = {"entropy", "mutual_information", "variation_ratio"}
OF_CLASSES = {"classwise_ece", "brier_reliability", "brier_resolution"}
OF_CLASSES |= {"brier_uncertainty"}
table = jax.jit(
    functools.partial(metrics.table, num_classes=CLASSES),
    static_argnames=("cutoffs", "bins"),
)


def assert_equal(actual, expected, *, tolerance=1e-6):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name
        )


SETS = {
    "ordinary": predictions(),
    "ties": predictions(digits=0),
    "certain": predictions(skill=25.0),
    "wrong": predictions(skill=-9.0),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "options", [{}, {"cutoffs": (0.5, 0.95), "bins": (0.0, 0.2, 0.7, 0.99, 1.0)}]
)
def test_a_table_holds_the_scores_of_a_summary(name, options):
    log_probs, labels = SETS[name]
    tally = metrics.tally(np.exp(log_probs), labels, log_probs=log_probs, **options)
    summary = metrics.summary(tally)
    actual = table(per_example(log_probs, labels), **options)
    assert actual.keys() == (summary.keys() - OF_CLASSES) | RANKED | UNCERTAINTIES
    shared = summary.keys() - OF_CLASSES
    assert_equal({k: actual[k] for k in shared}, {k: summary[k] for k in shared})


@pytest.mark.parametrize("digits", [None, 0])
def test_ranked_scores_are_those_of_their_functions(digits):
    given = examples(digits=digits)
    weights = np.float32(np.random.default_rng(1).poisson(1, 150))
    wrong = np.float32(given.prediction != given.label)
    arguments = given.confidence, wrong, weights
    expected = {
        "adaptive_ece": metrics.adaptive_ece(given.confidence, wrong == 0, weights),
        "aurc": metrics.aurc(*arguments),
        "excess_aurc": metrics.excess_aurc(*arguments),
        "augrc": metrics.augrc(*arguments),
        "coverage_at_risk_5": metrics.coverage_at_risk(*arguments),
    }
    expected |= {
        name: np.average(np.float64(getattr(given, name)), weights=weights)
        for name in UNCERTAINTIES
    }
    actual = table(given, weights)
    assert_equal({name: actual[name] for name in expected}, expected)


@pytest.mark.parametrize("digits", [None, 0])
@pytest.mark.parametrize("seed", range(2))
def test_a_weight_is_as_good_as_repetition(digits, seed):
    given = examples(digits=digits)
    weights = np.random.default_rng(seed).multinomial(150, np.full(150, 1 / 150))
    order = np.random.default_rng(seed).permutation(150)
    index = np.repeat(order, weights[order])
    repeated = jax.tree.map(lambda field: field[index], given)
    assert_equal(table(given, np.float32(weights)), table(repeated))


def test_weights_are_mapped():
    given = examples()
    weights = np.float32(np.random.default_rng(0).poisson(1, (3, 150)))
    together = jax.jit(jax.vmap(lambda w: metrics.table(given, w, num_classes=CLASSES)))
    for index, row in enumerate(weights):
        actual = {name: value[index] for name, value in together(weights).items()}
        assert_equal(actual, table(given, row))
    sorts = [
        line
        for line in str(jax.make_jaxpr(together)(weights)).splitlines()
        if " sort[" in line
    ]
    assert len(sorts) == 1
    assert "[3,150]" not in sorts[0]


def test_examples_hold_what_their_names_say():
    log_probs, labels = predictions()
    given, probs = per_example(log_probs, labels), np.exp(np.float64(log_probs))
    rows = np.arange(len(labels))
    expected = {
        "label": labels,
        "prediction": probs.argmax(1),
        "confidence": probs.max(1),
        "nll": -log_probs[rows, labels],
        "brier": np.square(probs - np.eye(CLASSES)[labels]).sum(1),
        "top5": (probs > probs[rows, labels][:, None]).sum(1) < 5,
        "entropy": scipy.stats.entropy(probs, axis=1),
        "mutual_information": 0 * rows,
        "variation_ratio": 0 * rows,
        "energy": np.nan * rows,
    }
    actual = vars(given)
    assert_equal(actual, expected)
    assert examples().energy.max() < 1  # as it was given


def test_an_infinite_loss_without_weight_is_left_out():
    given = examples()
    infinite = given.replace(nll=np.where(np.arange(150) == 4, np.inf, given.nll))
    assert table(infinite)["nll"] == np.inf
    weights = np.float32(np.arange(150) != 4)
    assert_equal(table(infinite, weights), table(given, weights))


def test_nan_is_in_every_score():
    given, weights = examples(), np.float32(np.arange(150) != 4)
    for name in ("confidence", "nll", "entropy", "mutual_information"):
        holes = np.where(np.arange(150) == 4, np.nan, getattr(given, name))
        scores = table(given.replace(**{name: np.float32(holes)}), weights)
        assert np.isnan(list(scores.values())).all()
    log_probs, labels = predictions()
    for label in (-1, CLASSES):
        labels[3] = label
        scores = table(per_example(log_probs, labels))
        assert np.isnan(list(scores.values())).all()
    assert np.isnan(table(given, 0 * weights)["accuracy"])
