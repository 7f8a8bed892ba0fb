"""What is no probability is refused; what is undefined is NaN; any type is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.metrics import average_precision_score, roc_auc_score

from spatial_smoothing import metrics, ops, report
from spatial_smoothing.metrics import consistency, inputs

rng = np.random.default_rng(0)
LOGITS = np.float32(3 * rng.standard_normal((20, 5)))
PROBS = scipy.special.softmax(LOGITS, axis=1)
LABELS = np.int32(rng.integers(0, 5, 20))

NO_PROBS = {
    "percentages": (100 * PROBS, r"the sum 100; they look like percentages; divide"),
    "exponentials": (np.exp(LOGITS), "the sum .*; they look like .*exp.logits"),
    "logits": (LOGITS, "a row has -.*; they look like logits; give jax.nn.softmax"),
    "log-probabilities": (np.log(PROBS), "look like log-probabilities; give jnp.exp"),
    "twice": (2 * PROBS, "the sum 2; "),
    "not quite": (1.01 * PROBS, r"the sum 1\.01; "),
    "zeros": (0 * PROBS, "the sum 0; "),
    "infinite": (np.where(PROBS[3, 2] == PROBS, np.inf, PROBS), "the sum inf; "),
    "negative": (PROBS + np.float32([0.5, -0.5, 0, 0, 0]), "a row has -0"),
}
OF_PROBS = {
    "tally": lambda probs: metrics.tally(probs, LABELS),
    "nll": lambda probs: metrics.nll(probs, LABELS),
    "brier": lambda probs: metrics.brier(probs, LABELS),
    "entropy": metrics.entropy,
    "mutual_information": lambda probs: metrics.mutual_information(probs[None]),
}


@pytest.mark.parametrize("name", NO_PROBS)
@pytest.mark.parametrize("function", OF_PROBS)
def test_what_is_no_probability_is_refused_by_name(name, function):
    values, message = NO_PROBS[name]
    for given in (values, jnp.asarray(values), values.astype(np.float64)):
        with pytest.raises(ValueError, match=message) as error:
            OF_PROBS[function](given)
        assert "\n" not in str(error.value)


def test_lists_of_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="they look like logits"):
        metrics.tally(LOGITS.tolist(), LABELS.tolist())


NO_LOG_PROBS = {
    "logits": (LOGITS, "they look like logits; give jax.nn.log_softmax"),
    "low logits": (LOGITS - 50, "they look like logits; give jax.nn.log_softmax"),
    "probabilities": (PROBS, "they look like probabilities; give jnp.log"),
}
OF_LOG_PROBS = {
    "per_example": lambda values: metrics.per_example(values, LABELS),
    "tally": lambda values: metrics.tally(PROBS, LABELS, log_probs=values),
    "cec": lambda values: consistency.cec(values.reshape(4, 5, 5)),
}


@pytest.mark.parametrize("name", NO_LOG_PROBS)
@pytest.mark.parametrize("function", OF_LOG_PROBS)
def test_what_is_no_log_probability_is_refused_by_name(name, function):
    values, message = NO_LOG_PROBS[name]
    for given in (values, jnp.asarray(values)):
        with pytest.raises(ValueError, match=message) as error:
            OF_LOG_PROBS[function](given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NO_PROBS)
def test_under_jit_a_switch_finds_what_is_no_probability(name):
    values, message = NO_PROBS[name]
    compiled = jax.jit(metrics.tally)
    compiled(values, LABELS)  # without checks
    with metrics.checks_under_jit():
        compiled(PROBS, LABELS)
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match=message),
        metrics.checks_under_jit(),
    ):
        compiled(values, LABELS)
    compiled(values, LABELS)


def test_the_switch_works_under_vmap():
    mapped = jax.jit(jax.vmap(metrics.per_example, in_axes=(0, None)))
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="they look like logits"),
        metrics.checks_under_jit(),
    ):
        mapped(np.stack([np.log(PROBS), LOGITS]), LABELS)


def test_under_jit_nothing_is_checked_unless_asked_for():
    def compiled(function):
        return jax.jit(function).lower(PROBS).compile().as_text().count(" = ")

    with_checks = compiled(OF_PROBS["entropy"])
    plain = compiled(
        lambda probs: jax.scipy.special.entr(
            jnp.where(
                (probs < -(2.0**-8)) | (probs > 1 + 2.0**-8),
                jnp.nan,
                jnp.clip(probs, 0, 1),
            )
        ).sum(-1)
    )
    assert with_checks == plain


@pytest.mark.parametrize("name", ["percentages", "exponentials", "logits"])
def test_under_jit_a_summary_is_an_error_all_the_same(name):
    with pytest.raises(ValueError, match="such as logits or percentages, count as NaN"):
        metrics.summary(jax.jit(metrics.tally)(NO_PROBS[name][0], LABELS))


def test_under_jit_a_table_of_logits_is_nan():
    examples = jax.jit(metrics.per_example)(LOGITS, LABELS)
    scores = jax.jit(functools.partial(metrics.table, num_classes=5))(examples)
    assert np.isnan(list(scores.values())).all()


def test_masked_rows_are_not_checked():
    mask = np.arange(20) % 3 > 0
    dirty = np.where(mask[:, None], PROBS, 100 * PROBS)
    assert metrics.tally(dirty, LABELS, mask).count == mask.sum()
    with pytest.raises(ValueError, match="percentages"):
        metrics.tally(dirty, LABELS, ~mask)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_probabilities_as_inexact_as_their_type_are_taken(dtype, classes):
    for seed in range(3):
        generator = np.random.default_rng(seed)
        logits = generator.standard_normal((50, classes)) * [[0], [1]][seed > 0]
        log_probs = scipy.special.log_softmax(logits, axis=1)
        logits = jnp.asarray(logits.astype(dtype))
        inputs.check_probs(np.exp(log_probs).astype(dtype))
        inputs.check_probs(jax.nn.softmax(logits))
        inputs.check_probs(np.exp(log_probs).astype(jnp.bfloat16).astype(np.float32))
        inputs.check_log_probs(log_probs.astype(dtype))
        inputs.check_log_probs(jax.nn.log_softmax(logits))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.tally(np.stack([PROBS] * 3), LABELS),
            r"probs must be \[n, K\], got \[3, 20, 5\]; of samples .* probs.mean\(0\)",
        ),
        (
            lambda: metrics.per_example(np.stack([np.log(PROBS)] * 3), LABELS),
            r"log_probs must be \[n, K\], got \[3, 20, 5\]; of samples .*mean",
        ),
        (
            lambda: metrics.tally(PROBS, LABELS[:7]),
            r"labels must be \[n\], one for each row of probs \[20, 5\], got .*\[7\]",
        ),
        (
            lambda: metrics.tally(PROBS, np.eye(5)[LABELS]),
            r"labels must be integers.*float64; of one-hot vectors, take labels.argmax",
        ),
        (lambda: metrics.tally(PROBS[0], LABELS), r"probs must be \[n, K\], got shape"),
        (
            lambda: metrics.tally(PROBS, LABELS, bins=(0, 0.5)),
            r"bins must be edges that increase from 0 to 1, got \(0.0, 0.5\)",
        ),
        (
            lambda: metrics.tally(PROBS, LABELS, cutoffs=(90,)),
            r"cutoffs must lie in \(0, 1\), got \(90.0,\)",
        ),
        (
            lambda: metrics.tally(PROBS, LABELS, log_probs=np.log(PROBS)[:3]),
            r"log_probs must have the shape of probs, \[20, 5\], got \[3, 5\]",
        ),
        (
            lambda: metrics.auroc(np.ones(3), np.ones(4, bool)),
            r"one n of at least 1; got scores \[3\], positives \[4\]",
        ),
        (lambda: metrics.ood(np.ones(3), []), r"got out_scores \[0\]"),
        (
            lambda: metrics.adaptive_ece(100 * PROBS.max(1), LABELS == 0),
            r"confidence must lie in \[0, 1\], got values from .* percentages",
        ),
        (
            lambda: metrics.scale_temperature(np.log(PROBS), np.inf),
            "temperature must be positive and finite, got inf",
        ),
        (
            lambda: metrics.energy(LOGITS, temperature=0),
            "temperature must be positive and finite, got 0",
        ),
    ],
)
def test_mistakes_are_explained_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [-1, 5, 2**32, np.iinfo(np.int64).min])
def test_labels_that_are_no_classes_never_count(label):
    wrong = LABELS.astype(np.int64)
    wrong[4] = label
    with pytest.raises(ValueError, match=r"labels lie outside \[0, K\)"):
        metrics.summary(metrics.tally(PROBS, wrong))
    for function in (metrics.nll, metrics.brier):
        np.testing.assert_array_equal(
            np.isnan(function(PROBS, wrong)), np.arange(20) == 4
        )
    assert not metrics.in_top(PROBS, wrong, 5)[4]
    confidence = consistency.relative_confidence(np.log(PROBS), wrong)
    assert np.isnan(confidence[4])


UNDEFINED = {
    "none is certain": (np.full((6, 4), 0.25), [0, 1, 2] * 2, "accuracy_90 iou_90"),
    "none is wrong": (np.eye(4)[[0] * 6], [0] * 6, "unconfidence_90"),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_a_share_of_nothing_is_undefined(name):
    probs, labels, names = UNDEFINED[name]
    tally = metrics.tally(probs, labels)
    fixed = metrics.summary(tally)
    reference = metrics.summary(tally, definition="reference")
    with np.errstate(divide="ignore"):
        examples = metrics.per_example(np.log(probs), labels)
    table = jax.jit(functools.partial(metrics.table, num_classes=4))(examples)
    undefined = {name for name, value in fixed.items() if np.isnan(value)}
    assert undefined == set(names.split())
    assert undefined == {name for name, value in table.items() if np.isnan(value)}
    assert [reference[name] for name in undefined] == [0] * len(undefined)
    assert report.rows.plain(fixed)[names.split()[0]] is None
    score = functools.partial(metrics.table, examples, num_classes=4)
    replicates = metrics.bootstrap(jax.random.key(0), score, 6, num_replicates=3)
    ends = metrics.interval(replicates)
    assert {name for name, end in ends.items() if np.isnan(end).any()} == undefined


def test_a_score_that_some_resamples_leave_undefined_has_no_interval():
    """Of two certain images, a resample often has none."""
    probs = np.full((40, 2), 0.5)
    probs[:2] = 0.99, 0.01
    examples = metrics.per_example(np.log(probs), np.zeros(40, int))
    score = jax.jit(functools.partial(metrics.table, examples, num_classes=2))
    assert score()["accuracy_90"] == 1
    ends = metrics.interval(
        metrics.bootstrap(jax.random.key(0), score, 40, num_replicates=100)
    )
    assert np.isnan(ends["accuracy_90"]).all()
    assert np.isfinite(ends["frequency_90"]).all()


SCORES = {
    "uint8": np.uint8(rng.integers(0, 200, 60)),
    "uint32": np.uint32(2**32 - 1 - rng.integers(0, 50, 60)),
    "uint64": np.uint64(2**63) + np.uint64(rng.integers(0, 50, 60)),
    "int64": 2**40 * rng.integers(-5, 5, 60) + rng.integers(0, 3, 60),
    "int8": np.int8(rng.integers(-128, 127, 60)),
    "bool": rng.random(60) < 0.5,
    "float16": np.float16(rng.standard_normal(60)),
    "bfloat16": rng.standard_normal(60).astype(jnp.bfloat16),
    "float64": 1 - 1e-12 * rng.integers(0, 30, 60),  # all 1 in float32
    "list": rng.standard_normal(60).tolist(),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_any_type_are_ranked(name):
    given = SCORES[name]
    as_float = np.asarray(given, np.longdouble)
    order = np.unique(as_float, return_inverse=True)[1]  # what scikit-learn takes
    inside, outside = given[:25], given[25:]
    is_out = np.arange(60) >= 25
    expected = {
        "auroc": roc_auc_score(is_out, order),
        "aupr_out": average_precision_score(is_out, order),
        "aupr_in": average_precision_score(~is_out, -order),
    }
    actual = metrics.ood(inside, outside)
    for key, value in expected.items():
        assert actual[key] == pytest.approx(value, abs=1e-6), key
    assert metrics.auroc(given, is_out) == pytest.approx(expected["auroc"], abs=1e-6)
    loss = np.uint8(rng.integers(0, 2, 60))
    for function in (metrics.aurc, metrics.excess_aurc, metrics.coverage_at_risk):
        value = function(np.int32(order), np.float32(loss))
        assert function(given, loss) == pytest.approx(float(value), abs=1e-6)
    if np.asarray(given).dtype.itemsize < 8:
        compiled = jax.jit(metrics.ood)(jnp.asarray(inside), jnp.asarray(outside))
        assert compiled["aupr_in"] == pytest.approx(expected["aupr_in"], abs=1e-6)


def test_sets_of_scores_of_two_types_are_ranked_together():
    inside, outside = np.uint32([2**32 - 1, 7]), np.int32([-5, 9])
    for function in (metrics.ood, jax.jit(metrics.ood)):
        assert function(inside, outside)["auroc"] == 0.25
    many = np.uint8([250, 251, 252, 3])
    difference = metrics.paired(
        jax.random.key(0), lambda w: many[0] + 0 * w[0], lambda w: many[2], 4
    )
    assert difference.max() == -2
    low, high = metrics.interval(np.uint8([250, 255, 1, 3]))
    assert low < high


def test_strict_promotion_of_types_works():
    """With JAX_NUMPY_DTYPE_PROMOTION=strict, mixed types are an error in JAX."""
    correct = PROBS.argmax(1) == LABELS
    confidence = PROBS.max(1)
    sequence = np.log(PROBS).reshape(4, 5, 5)
    x = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
    calls = [
        (metrics.tally, PROBS, LABELS, correct),
        (metrics.tally, PROBS.astype(jnp.bfloat16), np.uint8(LABELS)),
        (lambda p, y: metrics.tally(p, y, log_probs=jnp.log(p)), PROBS, LABELS),
        (metrics.nll, PROBS, LABELS),
        (metrics.brier, PROBS, LABELS),
        (lambda *args: metrics.in_top(*args, 3), PROBS, LABELS),
        (metrics.entropy, PROBS),
        (metrics.mutual_information, PROBS.reshape(4, 5, 5)),
        (metrics.variation_ratio, PROBS.reshape(4, 5, 5)),
        (metrics.energy, LOGITS),
        (metrics.adaptive_ece, confidence, correct),
        (metrics.scale_temperature, LOGITS, np.float32(2)),
        (metrics.fit_temperature, np.log(PROBS), LABELS),
        (metrics.auroc, confidence, correct),
        (metrics.aupr, confidence, correct, np.int32(LABELS)),
        (metrics.fpr_at_tpr, confidence, correct),
        (metrics.ood, np.uint8(LABELS), confidence),
        (metrics.risk_coverage, confidence, ~correct),
        (metrics.excess_aurc, confidence, ~correct, np.int32(LABELS)),
        (metrics.coverage_at_risk, confidence, ~correct),
        (consistency.consistency, sequence),
        (consistency.cec, sequence),
        (consistency.relative_confidence, np.log(PROBS), LABELS),
        *((functools.partial(ops.smooth, squash=name), x) for name in ops.SQUASHES),
        (ops.smooth, x, jnp.float32(3)),
        (ops.blur, x),
    ]
    with jax.numpy_dtype_promotion("strict"):
        for function, *arguments in calls:
            jax.jit(function)(*arguments)
        metrics.tally(PROBS, LABELS)
        metrics.nll(PROBS.astype(np.float64), LABELS)
        examples = metrics.per_example(np.log(PROBS), LABELS)
        score = functools.partial(metrics.table, examples, num_classes=5)
        found = metrics.interval(
            metrics.bootstrap(jax.random.key(0), score, 20, num_replicates=3)
        )
        twice = metrics.tally(PROBS, LABELS) + metrics.tally(PROBS, LABELS)
        assert metrics.summary(twice)["nll"] > 0
    assert np.isfinite(found["aurc"]).all()
