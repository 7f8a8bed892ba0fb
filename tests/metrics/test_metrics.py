import functools

import golden
import jax
import numpy as np
import pytest
import scipy.special
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scores_by_definition import by_definition

from spatial_smoothing import metrics

ARRAYS, SCORES = golden.arrays("metrics"), golden.table("metrics")
tally = jax.jit(metrics.tally, static_argnames=("cutoffs", "bins"))


def golden_set(name, *, dtype=np.float32):
    probs, labels = ARRAYS[f"{name}/probs"], ARRAYS[f"{name}/labels"]
    return probs.astype(dtype), labels.astype(np.int32)


def random_set(size=97, classes=7, *, seed=0, sharpness=4):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((size, classes))
    labels = rng.integers(0, classes - 1, size)  # the last class has no examples
    return scipy.special.softmax(logits, axis=1).astype(np.float32), np.int32(labels)


def in_batches(probs, labels, size, **options):
    parts = (
        tally(probs[start : start + size], labels[start : start + size], **options)
        for start in range(0, len(labels), size)
    )
    return functools.reduce(lambda a, b: a + b, parts)


def assert_scores(actual, expected, *, tolerance=2e-6):
    assert set(actual) == set(expected)
    for name, score in expected.items():
        np.testing.assert_allclose(
            actual[name], score, rtol=tolerance, atol=tolerance, err_msg=name
        )


def assert_golden(case, *, tolerance=2e-6, dtype=np.float32):
    probs, labels = golden_set(case.split("/")[0], dtype=dtype)
    row = SCORES[case]
    size = case.split("batch=")[1].split("/")[0]
    options = {"cutoffs": tuple(row["cutoffs"])}
    if "bins" in row:
        options["bins"] = tuple(row["bins"])
    size = len(labels) if size == "all" else int(size)
    result = in_batches(probs, labels, size, **options)
    scores = metrics.summary(result, definition="reference")
    scores = {name: scores[name] for name in row["scores"]}  # newer ones have none
    assert_scores(scores, row["scores"], tolerance=tolerance)
    np.testing.assert_array_equal(result.bin_count, row["bin_count"])
    reliability = metrics.reliability(result)
    np.testing.assert_allclose(reliability["accuracy"], row["bin_accuracy"], atol=1e-6)


@pytest.mark.parametrize("case", [case for case in SCORES if "bins64" not in case])
def test_reference_definition_equals_golden_values(case):
    assert_golden(case)


@pytest.mark.parametrize("case", [case for case in SCORES if "bins64" in case])
@pytest.mark.usefixtures("x64")
def test_reference_definition_equals_golden_values_in_float64(case):
    assert_golden(case, dtype=np.float64)


def test_scores_of_examples_equal_golden_values():
    probs, labels = golden_set("c10")
    np.testing.assert_allclose(
        metrics.brier(probs, labels), ARRAYS["c10/brier"], atol=2e-6
    )
    probs, labels = golden_set("edges")
    # Three examples tie for the first place, where the reference follows no rule.
    tied = (probs == probs.max(1, keepdims=True)).sum(1) > 1
    for k, expected in zip((1, 3, 5), ARRAYS["edges/in_top"], strict=True):
        actual = metrics.in_top(probs, labels, k)
        clear = ~tied if k == 1 else slice(None)
        np.testing.assert_array_equal(actual[clear], expected[clear])


def test_of_equal_probabilities_the_higher_class_is_ahead():
    probs, labels = np.full((4, 4), 0.25, np.float32), np.arange(4)
    for k in range(5):
        expected = labels >= 4 - k
        np.testing.assert_array_equal(metrics.in_top(probs, labels, k), expected)


SETS = {
    "ordinary": random_set(),
    "certain": random_set(sharpness=40),
    "all wrong": (np.eye(7, dtype=np.float32)[np.full(9, 3)], np.arange(9) % 3),
    "all right": (np.eye(7, dtype=np.float32)[np.full(9, 3)], np.full(9, 3)),
    "uniform": (np.full((14, 8), 0.125, np.float32), np.full(14, 0)),
    "overconfident": golden_set("overconfident"),
}


@pytest.mark.parametrize("name", SETS)
def test_fixed_definition_equals_its_definition(name):
    probs, labels = SETS[name]
    if name in ("certain", "all wrong"):  # else the NLL is infinite
        probs = np.float32(0.999 * probs + 0.001 / probs.shape[1])
    options = {"cutoffs": (0.5, 0.95), "bins": (0.0, 0.2, 0.7, 0.9, 0.99, 1.0)}
    for kwargs in ({}, options):
        expected = by_definition(probs, labels, **kwargs)
        for function in (metrics.tally, tally):
            actual = metrics.summary(function(probs, labels, **kwargs))
            assert_scores(actual, expected)


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
def test_brier_score_is_the_sum_of_its_terms(definition):
    for probs, labels in (random_set(), golden_set("c10"), SETS["all wrong"]):
        scores = metrics.summary(tally(probs, labels), definition=definition)
        reliability, resolution, uncertainty = (
            scores[f"brier_{name}"]
            for name in ("reliability", "resolution", "uncertainty")
        )
        terms = reliability - resolution + uncertainty
        assert scores["brier"] == pytest.approx(terms, abs=1e-12)


def test_a_probability_of_zero_is_in_the_first_class_wise_bin():
    probs = np.float32([[0, 1], [0, 1], [0.1, 0.9], [0.1001, 0.8999]])
    result = tally(probs, np.array([1, 0, 0, 1]), bins=(0, 0.1, 0.5, 1))
    np.testing.assert_array_equal(result.class_count, [[3, 0], [1, 0], [0, 4]])
    np.testing.assert_array_equal(result.class_labelled, [[2, 0], [0, 0], [0, 2]])
    np.testing.assert_allclose(
        result.class_probability, [[0.1, 0], [0.1001, 0], [0, 3.7999]], rtol=1e-6
    )
    scores = metrics.summary(result)
    expected = (1.9 + 0.1001 + 1.7999) / 4 / 2
    assert scores["classwise_ece"] == pytest.approx(expected, rel=1e-6)


def test_masked_examples_count_for_nothing():
    probs, labels = random_set()
    mask = np.random.default_rng(1).random(97) < 0.6
    expected = metrics.summary(tally(probs[mask], labels[mask]))
    for junk, label in ((np.nan, 0), (np.inf, -1), (0.0, 99), (1.0, 6)):
        dirty, wrong = probs.copy(), labels.copy()
        dirty[~mask], wrong[~mask] = junk, label
        result = tally(dirty, wrong, mask)
        assert result.count == mask.sum()
        assert_scores(metrics.summary(result), expected)
        logs = np.where(mask[:, None], np.log(np.where(mask[:, None], dirty, 1)), junk)
        result = tally(dirty, wrong, mask, log_probs=logs)
        assert_scores(metrics.summary(result), expected)


@pytest.mark.parametrize("size", [1, 10, 40, 96])
def test_tallies_of_any_split_add_up_to_the_whole(size):
    probs, labels = random_set()
    whole, sum_of_parts = tally(probs, labels), in_batches(probs, labels, size)
    assert_scores(metrics.summary(sum_of_parts), metrics.summary(whole))
    assert sum_of_parts.batches == -(-97 // size)
    for field in ("count", "true", "labelled", "predicted", "bin_count", "top5"):
        np.testing.assert_array_equal(
            getattr(sum_of_parts, field), getattr(whole, field)
        )


def test_padding_changes_no_score():
    probs, labels = random_set()
    last = tally(probs[80:], labels[80:])
    padded = tally(probs[57:], labels[57:], np.arange(57, 97) >= 80)
    nothing = tally(probs, labels, np.zeros(97, bool))
    for definition in metrics.DEFINITIONS:
        summary = functools.partial(metrics.summary, definition=definition)
        expected = summary(tally(probs[:80], labels[:80]) + last)
        for end in (padded, last + nothing):
            actual = summary(tally(probs[:80], labels[:80]) + end)
            assert_scores(actual, expected)


def test_tallies_do_not_depend_on_devices():
    probs, labels = random_set(96)
    mask = np.arange(96) < 90
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    arguments = jax.device_put((probs, labels, mask), split)
    assert len(arguments[0].sharding.device_set) == 8
    actual, expected = tally(*arguments), tally(probs, labels, mask)
    assert_scores(metrics.summary(actual), metrics.summary(expected))
    np.testing.assert_array_equal(actual.labelled, expected.labelled)


def test_tallies_of_ensemble_sizes_are_vmapped():
    sets = [random_set(seed=seed)[0] for seed in range(3)]
    labels = random_set()[1]
    together = jax.vmap(tally, in_axes=(0, None))(np.stack(sets), labels)
    for index, probs in enumerate(sets):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        assert_scores(metrics.summary(one), metrics.summary(tally(probs, labels)))
    with pytest.raises(ValueError, match=r"one tally .* got counts \[97\. 97\. 97\.\]"):
        metrics.summary(together)


def test_log_probs_keep_the_nll_finite():
    probs, labels = golden_set("underflow")
    logits = np.float64(ARRAYS["underflow/logits"])
    log_probs = scipy.special.log_softmax(logits, axis=1)
    expected = -log_probs[np.arange(50), labels].mean()
    assert metrics.summary(tally(probs, labels))["nll"] == np.inf
    result = tally(probs, labels, log_probs=np.float32(log_probs))
    scores = metrics.summary(result)
    np.testing.assert_allclose(scores["nll"], expected, rtol=1e-6)
    plain = metrics.summary(tally(probs, labels))
    assert_scores(scores | {"nll": 0}, plain | {"nll": 0}, tolerance=0)


def test_reliability_divides_within_bins():
    probs = np.float32([[0.55, 0.45], [0.55, 0.45], [0.3, 0.7], [1, 0]])
    diagram = metrics.reliability(
        tally(probs, np.array([0, 1, 1, 0]), bins=(0, 0.6, 1))
    )
    assert diagram["edges"] == [0, 0.6, 1]
    assert diagram["count"] == [2, 2]
    assert diagram["accuracy"] == [0.5, 1]
    np.testing.assert_allclose(diagram["confidence"], [0.55, 0.85])
    empty = metrics.reliability(tally(probs, np.zeros(4, int), np.zeros(4, bool)))
    assert empty["accuracy"] == empty["confidence"] == [0] * 10


def test_unusable_tallies_are_explained():
    probs, labels = random_set()
    message = "unknown definition 'fix'; did you mean 'fixed'. choices: fixed, ref"
    with pytest.raises(ValueError, match=message):
        metrics.summary(tally(probs, labels), definition="fix")
    with pytest.raises(ValueError, match=r"at least one example, got counts 0\.0"):
        metrics.summary(tally(probs, labels, np.zeros(97, bool)))
    with pytest.raises(ValueError, match=r"tallies differ: cutoffs \(0\.9,\) and"):
        tally(probs, labels) + tally(probs, labels, cutoffs=(0.5,))
    message = r"probs must be \[n, K\], got \[1, 97, 7\]; .* probs.mean\(0\)"
    with pytest.raises(ValueError, match=message):
        tally(probs[None], labels)


@pytest.mark.parametrize("label", [7, -1])
def test_labels_outside_the_classes_are_an_error(label):
    probs, labels = random_set()
    labels[5] = label
    with pytest.raises(ValueError, match="NaN, or labels lie outside"):
        metrics.summary(tally(probs, labels))


@pytest.mark.parametrize("place", ["label", "other"])
def test_nan_is_an_error(place):
    probs, labels = random_set()
    probs[5, labels[5] if place == "label" else 6] = np.nan
    with pytest.raises(ValueError, match="probabilities hold NaN"):
        metrics.summary(tally(probs, labels))
