"""What is fitted to held-out images, and the scores of decisions, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import ensembles, evaluation, metrics, models
from spatial_smoothing.data import augment, batches
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.ensembles.mixtures import single_with_logits
from spatial_smoothing.evaluation.held_out import compile_held_out

normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
SIZES = (1, 3)
KEY = jax.random.key(3)
METHODS = ("lac", "aps", "raps")


def images_and_labels(seed, count):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return images, rng.integers(0, 7, count).astype(np.int32)


TEST, HELD_OUT = images_and_labels(0, 13), images_and_labels(1, 19)


@pytest.fixture(scope="module")
def network():
    model = models.build("resnet_mcdo_18", num_classes=7, width=4, stages=(1,))
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def samples(network, data):
    """Log-probabilities of the samples of every image, as a pass draws them."""
    model, variables = network
    parts = []
    for index, batch in enumerate(batches.sequential(*data, batch_size=5)):
        stream = jax.random.fold_in(jax.random.fold_in(KEY, index), 0)
        images = normalize(batch["image"])
        logits = ensembles.mc_logits(stream, model, variables, images, num_samples=3)
        parts.append(np.float64(logits)[:, batch["mask"]])
    return scipy.special.log_softmax(np.concatenate(parts, axis=1), -1)


def class_scores(probs, method):
    order = np.argsort(-probs, -1)
    places = np.argsort(order, -1)
    masses = np.take_along_axis(np.cumsum(-np.sort(-probs, -1), -1), places, -1) - 1
    penalty = 0.01 * np.maximum(places + 1 - 5, 0)
    return {"lac": 1 - probs, "aps": masses, "raps": masses + penalty}[method]


@pytest.fixture(scope="module")
def found(network):
    """The scores of a pass whose temperatures and sets are of held-out images."""
    predict = ensembles.predictor(
        network[0], prepare=normalize, sizes=SIZES, of_sample=single_with_logits
    )
    data = [batches.sequential(*each, batch_size=5) for each in (HELD_OUT, TEST)]
    fitted = compile_held_out(predict)(network[1], KEY, data[0])
    scores = evaluation.compile_scores(predict)(network[1], KEY, data[1], *fitted)
    return ensembles.named(scores.ensembles)


@pytest.mark.parametrize("size", SIZES)
def test_sets_are_calibrated_on_held_out_images(network, found, size):
    test, held_out = (
        np.exp(samples(network, data)[:size]).mean(0) for data in (TEST, HELD_OUT)
    )
    extra = found[Ensemble((0,), size)].extra
    for method in METHODS:
        right = class_scores(held_out, method)[np.arange(19), HELD_OUT[1]]
        threshold = np.sort(right)[17]  # of rank 20 * 0.9
        sets = class_scores(test, method) <= threshold + 1e-6
        np.testing.assert_array_equal(extra[f"{method}_size"], sets.sum(-1))
        covered = sets[np.arange(13), TEST[1]]
        np.testing.assert_array_equal(extra[f"{method}_coverage"], covered)


def test_members_disagree_and_gain(network, found):
    log_probs = samples(network, TEST)
    extra = found[Ensemble((0,), 3)].extra
    votes = log_probs.argmax(-1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([votes[a] != votes[b] for a, b in pairs], 0)
    np.testing.assert_allclose(extra["disagreement"], expected, atol=1e-6)
    of_label = log_probs[:, np.arange(13), TEST[1]]
    gain = np.log(np.exp(of_label).mean(0)) - of_label.mean(0)
    np.testing.assert_allclose(extra["ambiguity"], gain, rtol=1e-4, atol=2e-6)
    single = found[Ensemble((0,), 1)].extra
    assert np.isnan(single["disagreement"]).all()
    assert np.isnan(single["ambiguity"]).all()


def test_rows_have_their_means_and_intervals(found):
    scored = found[Ensemble((0,), 3)]
    row = evaluation.scored_row(scored, num_classes=7, key=KEY, num_replicates=50)
    for name in ("lac_coverage", "raps_size", "disagreement", "ambiguity"):
        assert row[name] == pytest.approx(scored.extra[name].mean())
        low, high = row["intervals"][name]
        assert low <= row[name] <= high
    right = scored.examples.prediction == scored.examples.label
    expected = metrics.smooth_ece(scored.examples.confidence, right)
    assert row["smooth_ece"] == pytest.approx(float(expected), abs=1e-6)
    assert 0 < row["augrc"] < row["aurc"]
