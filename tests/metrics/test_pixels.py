import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import metrics
from spatial_smoothing.metrics import histograms, pixels

GOLDEN = golden.arrays("temporal")
RNG = np.random.default_rng(0)
B, H, W, K = 3, 20, 37, 5


def drawn(seed=0, spread=3.0, shape=(B, H, W)):
    """Logits, labels and a mask; many predictions are right, and some certain."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, shape)
    logits = spread * rng.standard_normal((*shape, K))
    logits += spread * np.eye(K)[labels]
    mask = rng.random(shape) < 0.8
    return np.float32(logits), np.int32(labels), mask


SUMS = jax.jit(pixels.pixel_sums)


def sums_of(logits, labels, mask):
    return SUMS(jax.nn.log_softmax(logits), labels, mask)


def added(tally):
    return jax.tree.map(lambda leaf: np.asarray(leaf).sum(0), tally)


def by_definition(probs, labels):
    """The scores of n pixels in NumPy float64."""
    confidence, predicted = probs.max(-1), probs.argmax(-1)
    right = predicted == labels

    def iou(chosen):
        found = [
            ((predicted == k) & (labels == k) & chosen).sum()
            / (((predicted == k) | (labels == k)) & chosen).sum()
            for k in range(K)
            if ((labels == k) & chosen).any()
        ]
        return np.mean(found)

    sure = confidence > 0.9
    bins = np.ceil(confidence * 10).astype(int)
    gaps = [(confidence - right)[bins == b].sum() for b in range(1, 11)]
    of_label = probs[np.arange(len(labels)), labels]
    return {
        "nll": -np.log(of_label).mean(),
        "accuracy": right.mean(),
        "iou": iou(np.ones_like(right)),
        "iou_90": iou(sure),
        "accuracy_90": right[sure].mean(),
        "unconfidence_90": (~sure & ~right).sum() / (~right).sum(),
        "frequency_90": sure.mean(),
        "ece": np.abs(gaps).sum() / len(labels),
        "signed_ece": np.sum(gaps) / len(labels),
        "brier": np.square(probs - np.eye(K)[labels]).sum(-1).mean(),
    }


def test_scores_are_those_of_all_pixels_that_count():
    logits, labels, mask = drawn()
    mask[1] = False  # an image that is padding
    logits[~mask] = np.nan  # what does not count may be anything
    sums = sums_of(logits, labels, mask)
    found = pixels.pixel_scores(added(sums.tally), np.asarray(sums.histogram))
    probs = scipy.special.softmax(np.float64(logits[mask]), axis=-1)
    expected = by_definition(probs, labels[mask])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert "top5" not in found
    assert sums.tally.count.tolist() == mask.sum((1, 2)).tolist()


@pytest.mark.parametrize(
    ("name", "chosen"), [("single", -1), ("mean", slice(None)), ("smooth", None)]
)
def test_scores_of_maps_equal_golden_values(name, chosen):
    """Those that the reference computes of one frame, of six, and of a smoothed one."""
    probs = scipy.special.softmax(np.float64(GOLDEN["frames/logits"]), -1)
    if name == "smooth":
        probs = GOLDEN["smooth/5_0"]
    else:
        probs = probs[chosen].reshape(-1, *probs.shape[1:]).mean(0)
    labels = GOLDEN["frames/labels"]
    sums = SUMS(jnp.float32(np.log(probs)), np.maximum(labels, 0), labels >= 0)
    total = added(sums.tally)
    found = metrics.summary(total, definition="reference")
    found["nll"] = pixels.pixel_scores(total, np.asarray(sums.histogram))["nll"]
    names = "nll accuracy accuracy_90 unconfidence_90 iou iou_90 frequency_90 ece"
    np.testing.assert_allclose(
        [found[name] for name in names.split()], GOLDEN[f"scores/{name}"], rtol=1e-5
    )


def test_iou_of_each_class():
    labels = np.int32([[[0, 0, 1, 1, 3, 3]]])
    classes = np.array([[[0, 1, 1, 1, 0, 4]]])
    mask = np.array([[[True] * 5 + [False]]])
    log_probs = jax.nn.log_softmax(9.0 * np.eye(K)[classes])
    total = added(SUMS(log_probs, labels, mask).tally)
    # Class 4 is predicted in a pixel that does not count; 2 is nowhere.
    expected = [1 / 3, 2 / 3, np.nan, 0, np.nan]
    np.testing.assert_allclose(pixels.class_iou(total), expected)
    scores = metrics.summary(total)
    np.testing.assert_allclose(scores["iou"], np.mean([1 / 3, 2 / 3, 0]))


@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_ranked_scores_are_those_of_the_confidences(spread):
    logits, labels, mask = drawn(spread=spread, shape=(2, 40, 50))
    log_probs = jax.nn.log_softmax(logits)
    counts = SUMS(log_probs, labels, mask).histogram
    found = histograms.ranked_scores(np.asarray(counts))
    examples = metrics.per_example(log_probs[mask], labels[mask])
    expected = jax.jit(metrics.table, static_argnames="num_classes")(
        examples, num_classes=K
    )
    for name in ("aurc", "augrc", "excess_aurc", "adaptive_ece", "coverage_at_risk_5"):
        # An edge between bins of equal mass parts pixels of one confidence alike, and a
        # bin of a few pixels is accepted or not: with few pixels, both matter.
        few = {"adaptive_ece": 1.5e-3, "coverage_at_risk_5": 0.02}
        slack = few.get(name, 2e-5)
        np.testing.assert_allclose(
            found[name], expected[name], rtol=3e-3, atol=slack, err_msg=name
        )
    assert counts.sum() == mask.sum()


def test_confidences_that_rounding_puts_above_one_count_as_certain():
    counts = histograms.histogram(jnp.array([0.0, 3e-8, 1e-7]), *jnp.ones((2, 3), bool))
    np.testing.assert_array_equal(np.argwhere(counts), [[4095, 1]])
    assert counts[-1, 1] == 3


def test_histograms_tell_confidences_near_one_apart():
    # A thousand right ones at 1 - 1e-5, before a thousand of which half are wrong.
    log_confidence = jnp.log1p(-jnp.repeat(jnp.array([1e-5, 1e-4]), 1000))
    correct = jnp.arange(2000) % 2 == 0
    correct = correct.at[:1000].set(True)
    counts = histograms.histogram(log_confidence, correct, jnp.ones(2000, bool))
    found = histograms.ranked_scores(np.asarray(counts))
    # Nothing is wrong up to a coverage of a half; then the risk is (c - 1/2) / 2c.
    expected = (0.5 - 0.5 * np.log(2)) / 2
    np.testing.assert_allclose(found["aurc"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["augrc"], 0.5**2 / 4, rtol=1e-5)
    assert found["coverage_at_risk_5"] == 0.5


def test_windows_are_good_where_certainty_fits_accuracy():
    confidence = np.full((1, 20, 32), 0.9, np.float32)
    correct = np.ones((1, 20, 32), bool)
    mask = np.ones((1, 20, 32), bool)
    correct[0, :16, :16].flat[: 16 * 8] = False  # half of a window: inaccurate, certain
    confidence[0, :16, 16:] = 0.4  # accurate and uncertain
    mask[0, :16, 16:20] = False
    correct[0, 16:, :16] = False
    confidence[0, 16:, :16] = 0.3  # inaccurate and uncertain, cut by the edge
    good, windows = pixels.window_counts(confidence, correct, mask)
    assert (good.tolist(), windows.tolist()) == ([2], [4])
    mask[0, 16:, 16:] = False  # the accurate and certain window does not count
    good, windows = pixels.window_counts(confidence, correct, mask)
    assert (good.tolist(), windows.tolist()) == ([1], [3])
    # With one wrong pixel less, more than half of the first window is right.
    correct[0, 0, 0] = True
    good, windows = pixels.window_counts(confidence, correct, mask)
    assert (good.tolist(), windows.tolist()) == ([2], [3])


def test_agreement_of_frames_is_the_golden_consistency():
    classes = GOLDEN["frames/logits"].argmax(-1)
    everywhere = np.ones(classes.shape[1:], bool)
    counts = [
        pixels.agreement(*pair, everywhere)
        for pair in zip(classes[1:], classes[:-1], strict=True)
    ]
    same, compared = np.sum(counts, (0, 2))
    np.testing.assert_allclose(same / compared, GOLDEN["frames/consistency"], rtol=1e-6)
    half = np.zeros(classes.shape[1:], bool)
    half[:, :3] = True
    assert pixels.agreement(classes[0], classes[0], half)[1].tolist() == [24, 24]


def test_weights_of_images_are_copies_of_images():
    """Scores by weights are those of a set in which images are there that often."""
    logits, labels, mask = drawn()
    weights = np.array([2, 0, 1])
    sums = sums_of(logits, labels, mask)
    shares = {"pavpu": (sums.good_windows, sums.windows)}
    statistic = functools.partial(pixels.image_scores, sums.tally, shares)
    found = jax.jit(statistic)(jnp.float32(weights))
    chosen = np.repeat(np.arange(B), weights)
    copies = sums_of(logits[chosen], labels[chosen], mask[chosen])
    expected = metrics.summary(added(copies.tally))
    names = set(found) - {"pavpu"}
    assert names >= {"nll", "iou", "ece", "brier", "accuracy_90", "mce"}
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)
    pavpu = copies.good_windows.sum() / copies.windows.sum()
    np.testing.assert_allclose(found["pavpu"], pavpu, rtol=1e-6)
    # Images are resampled, not pixels: with one image there is nothing to vary.
    one = jax.tree.map(lambda leaf: leaf[:1], sums.tally)
    alone = functools.partial(pixels.image_scores, one, {})
    values = metrics.bootstrap(jax.random.key(0), alone, 1, num_replicates=5)
    assert np.ptp(values["nll"]) == 0


def test_shapes_that_do_not_fit_are_refused():
    logits, labels, mask = drawn()
    with pytest.raises(ValueError, match=r"must be \[B, H, W, K\]"):
        pixels.pixel_sums(jax.nn.log_softmax(logits), labels, mask[0])
    with pytest.raises(ValueError, match="no examples"):
        histograms.ranked_scores(np.zeros((4096, 2)))
