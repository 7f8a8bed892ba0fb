"""Confidences of ensembles and of features, against NumPy, SciPy and scikit-learn."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from spatial_smoothing import ensembles, models
from spatial_smoothing.data import augment, batches
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.ensembles.mixtures import single_with_logits
from spatial_smoothing.evaluation import feature_bank, features
from spatial_smoothing.evaluation.confidences import (
    AVERAGES,
    WRONG,
    Confidence,
    compile_confidences,
    confidences_of,
)
from spatial_smoothing.evaluation.feature_bank import Bank, Fitted
from spatial_smoothing.evaluation.feature_confidences import (
    compile_feature_confidences,
    nearest_neighbours,
)
from spatial_smoothing.metrics.feature_confidences import LastLayer
from spatial_smoothing.runtime import sharding

normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (13, 8, 8, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, 13).astype(np.int32)


@pytest.fixture(scope="module")
def network():
    model = models.build("resnet_mcdo_18", num_classes=3, width=4, stages=(1,))
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def data(batch_size=5):
    return batches.sequential(IMAGES, LABELS, batch_size=batch_size)


def test_confidences_are_those_of_the_samples(network):
    """Of the mean of the probabilities and of the mean of the logits, at every N."""
    model, variables = network
    predict = ensembles.predictor(
        model, prepare=normalize, sizes=(1, 4), of_sample=single_with_logits
    )
    compute = compile_confidences(predict, confidences_of(AVERAGES), gammas=(0.1, 2.0))
    found = ensembles.named(compute(variables, KEY, data()))
    parts = []
    for index, batch in enumerate(data()):
        stream = jax.random.fold_in(jax.random.fold_in(KEY, index), 0)
        images = normalize(batch["image"])
        logits = ensembles.mc_logits(stream, model, variables, images, num_samples=4)
        parts.append(np.float64(logits)[:, batch["mask"]])
    samples = np.concatenate(parts, axis=1)
    for size in (1, 4):
        mean_logits = samples[:size].mean(0)
        probs = {
            "probabilities": scipy.special.softmax(samples[:size], -1).mean(0),
            "logits": scipy.special.softmax(mean_logits, -1),
        }
        expected = {
            ("mls", "logits"): mean_logits.max(-1),
            ("energy", "logits"): scipy.special.logsumexp(mean_logits, -1),
        }
        for average, p in probs.items():
            entropy = scipy.special.entr(p).sum(-1)
            expected["msp", average] = p.max(-1)
            expected["entropy", average] = -entropy
            expected["gen", average] = -((p * (1 - p)) ** 0.1).sum(-1)
            expected[WRONG, average] = p.argmax(-1) != LABELS
            if average == "probabilities":
                each = scipy.special.softmax(samples[:size], -1)
                gap = entropy - scipy.special.entr(each).sum(-1).mean(0)
                expected["mutual_information", average] = -gap
        values = found[Ensemble((0,), size)]
        for kind, numbers in expected.items():
            if kind[0] == "mutual_information" and size == 1:
                numbers = np.full(13, np.nan)  # a single prediction has none
            actual = values[Confidence(*kind)][0]
            np.testing.assert_allclose(actual, numbers, rtol=2e-5, atol=2e-6)
        other = -((probs["logits"] * (1 - probs["logits"])) ** 2).sum(-1)
        actual = values[Confidence("gen", "logits")][1]
        np.testing.assert_allclose(actual, other, rtol=2e-5, atol=2e-6)
        # Without held-out images there is no temperature.
        for average in probs:
            assert np.isnan(values[Confidence("temperature", average)]).all()
    given = {"probabilities": 2.0, "logits": 3.0}
    given = {name: np.full((1, 2), value, np.float32) for name, value in given.items()}
    lineup = ensembles.predictions.Lineup(given, None, None, (1, 4))
    values = ensembles.named(compute(variables, KEY, data(), lineup))
    actual = values[Ensemble((0,), 4)][Confidence("temperature", "logits")][0]
    scaled = scipy.special.softmax(samples.mean(0) / 3, -1).max(-1)
    np.testing.assert_allclose(actual, scaled, rtol=2e-5)


def test_features_are_what_the_last_layer_is_given(network):
    model, variables = network
    compute = features.compile_features(model, normalize)
    found, labels = compute(variables, data())
    last = features.last_layer(model, variables, jnp.zeros((1, 8, 8, 3)))
    logits = model.apply(variables, normalize(IMAGES))
    np.testing.assert_allclose(last(found), logits, rtol=1e-5, atol=1e-5)
    maps = model.apply(variables, normalize(IMAGES), mutable=["intermediates"])[1]
    (stage,) = maps["intermediates"]["stage1"]
    np.testing.assert_allclose(found, stage.mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, LABELS)


class Pooled(nn.Module):
    """A network whose logits are not the result of a dense layer."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(3)(images.mean((1, 2))) * 2


def test_a_network_without_a_last_dense_layer_has_no_features():
    images = jnp.zeros((1, 8, 8, 3))
    variables = Pooled().init(jax.random.key(0), images, train=False)
    with pytest.raises(ValueError, match="Pooled has no features: its logits"):
        features.last_layer(Pooled(), variables, images)


TRAIN = np.float32(RNG.normal(1, 1, (90, 6)))
QUERIES = np.float32(RNG.normal(1, 2, (8, 6)))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("part", [4, 1024])
def test_neighbours_are_found_in_a_bank_that_devices_share(devices, part, monkeypatch):
    monkeypatch.setattr(feature_bank, "PART", part)
    monkeypatch.setattr("spatial_smoothing.evaluation.feature_confidences.PART", part)
    mesh = sharding.mesh(devices)
    bank = feature_bank.split_bank(TRAIN, mesh)
    assert len(bank.addressable_shards) == devices
    (queries,) = sharding.split_batches([QUERIES], mesh)
    search = jax.jit(
        functools.partial(nearest_neighbours, neighbours=(1, 30), mesh=mesh)
    )
    unit = lambda x: np.float64(x) / np.linalg.norm(np.float64(x), axis=-1)[:, None]
    near = NearestNeighbors(n_neighbors=30).fit(unit(TRAIN))
    distances, _ = near.kneighbors(unit(QUERIES))
    expected = -(distances[:, [0, 29]] ** 2).T
    np.testing.assert_allclose(search(queries, bank), expected, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
def test_what_is_fitted_does_not_depend_on_the_devices(devices, monkeypatch):
    monkeypatch.setattr(feature_bank, "PART", 4)
    labels = RNG.integers(0, 3, 90).astype(np.int32)
    last = LastLayer(*(np.float32(RNG.normal(0, 1, s)) for s in ((6, 3), (3,))))
    mesh = sharding.mesh(devices)
    bank = Bank(TRAIN, labels)
    moments, classes, _ = feature_bank.fit_gaussians(bank, 3, mesh)
    means = np.stack([np.float64(TRAIN[labels == c]).mean(0) for c in range(3)])
    within = EmpiricalCovariance().fit(np.float64(TRAIN) - means[labels])
    precision = classes.whitening @ classes.whitening.T
    np.testing.assert_allclose(precision, within.precision_, rtol=2e-5, atol=2e-6)
    residual = feature_bank.fit_residual(bank, moments, last, mesh)
    logits = np.float64(TRAIN) @ np.float64(last.kernel) + last.bias
    norms = np.linalg.norm((TRAIN - residual.origin) @ residual.basis, axis=-1)
    assert residual.basis.shape == (6, 3)
    expected = logits.max(-1).mean() / norms.mean()
    assert residual.scale == pytest.approx(expected, rel=1e-5)


def test_a_pass_gives_confidences_of_features_for_each_image(network):
    model, variables = network
    found, _ = features.compile_features(model, normalize)(variables, data())
    mesh = sharding.mesh(1)
    last = features.last_layer(model, variables, jnp.zeros((1, 8, 8, 3)))
    fitted = Fitted(
        last,
        bank=feature_bank.split_bank(found, mesh),
        thresholds=feature_bank.percentiles(found, (50, 90)),
    )
    compute = compile_feature_confidences(
        model, normalize, ("knn", "react"), mesh=mesh, neighbours=(1,)
    )
    values = compute(variables, fitted, data())
    # Every image is its own nearest neighbour.
    np.testing.assert_allclose(values["knn", "features"], np.zeros((1, 13)), atol=1e-6)
    for level, actual in zip((50, 90), values["react", "features"], strict=True):
        cut = np.minimum(np.float64(found), np.percentile(found, level))
        logits = cut @ np.float64(last.kernel) + np.float64(last.bias)
        expected = scipy.special.logsumexp(logits, -1)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    wrong = np.asarray(last(found)).argmax(-1) != LABELS
    np.testing.assert_array_equal(values[WRONG, "features"][0], wrong)


def test_a_bank_is_kept_until_the_network_changes(tmp_path):
    path = tmp_path / "features.npz"
    made = []

    def make():
        made.append(len(made))
        return Bank(np.full((2, 3), len(made), np.float32), np.zeros(2, np.int32))

    for digest, number in (("a", 1), ("a", 1), ("b", 2), ("a", 3), ("a", 3)):
        found = feature_bank.cached(path, digest, make)
        assert (found.features == number).all()
    path.write_bytes(b"damaged")
    assert (feature_bank.cached(path, "a", make).features == 4).all()
    missing = tmp_path / "file" / "features.npz"
    missing.parent.write_text("no folder")
    assert (feature_bank.cached(missing, "a", make).features == 5).all()
    assert not list(tmp_path.glob("*.tmp"))
