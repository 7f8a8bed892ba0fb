import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from spatial_smoothing import ensembles, evaluation, models
from spatial_smoothing.data import augment, batches
from spatial_smoothing.ensembles import Predictions, mixtures
from spatial_smoothing.runtime import sharding

normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
SIZES = (1, 2, 5)
KEY = jax.random.key(3)


def images_and_labels(seed, count=13):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return images, rng.integers(0, 3, count).astype(np.int32)


DATA = images_and_labels(0)


@pytest.fixture(scope="module")
def network():
    model = models.build("resnet_mcdo_18", num_classes=3, width=4, stages=(1,))
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.fixture(scope="module")
def passes(network):
    model, _ = network
    return evaluation.compile_scores(
        ensembles.predictor(model, prepare=normalize, sizes=SIZES)
    )


@pytest.fixture(scope="module")
def samples(network):
    """Logits of the samples of every image, as a pass of batches of 5 draws them."""
    model, variables = network
    parts = []
    for index, batch in enumerate(batches.sequential(*DATA, batch_size=5)):
        stream = jax.random.fold_in(jax.random.fold_in(KEY, index), 0)
        images = normalize(batch["image"])
        logits = ensembles.mc_logits(stream, model, variables, images, num_samples=5)
        parts.append(logits[:, batch["mask"]])
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def rows(network, passes):
    scores = passes(network[1], KEY, batches.sequential(*DATA, batch_size=5))
    return [
        evaluation.scored_row(scored, num_classes=3, key=KEY, num_replicates=200)
        for scored in ensembles.named(scores.ensembles).values()
    ]


def test_rows_equal_numpy_and_scipy(rows, samples):
    labels = DATA[1]
    for size, row in zip(SIZES, rows, strict=True):
        probs = scipy.special.softmax(samples[:size], axis=-1)
        mean, one_hot = probs.mean(0), np.eye(3)[labels]
        entropy = scipy.stats.entropy(mean, axis=-1)
        expected = scipy.stats.entropy(probs, axis=-1).mean(0)
        modal = scipy.stats.mode(samples[:size].argmax(-1), axis=0).count
        wrong = mean.argmax(-1) != labels
        for name, value in {
            "nll": -np.log(mean[np.arange(13), labels]).mean(),
            "accuracy": 1 - wrong.mean(),
            "brier": np.square(mean - one_hot).sum(-1).mean(),
            "entropy": entropy.mean(),
            "mutual_information": (entropy - expected).mean(),
            "variation_ratio": (1 - modal / size).mean(),
        }.items():
            assert row[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name
        assert row["num_examples"] == 13
        curve = row["risk_coverage"]
        assert curve["coverage"][-1] == 1
        assert curve["risk"][-1] == pytest.approx(wrong.mean(), abs=1e-6)


def test_intervals_surround_the_scores(rows):
    for row in rows:
        for name in ("nll", "accuracy", "ece", "aurc", "entropy"):
            low, high = row["intervals"][name]
            assert low < high
        for name in ("nll", "accuracy", "entropy"):  # means have no bias
            low, high = row["intervals"][name]
            assert low < row[name] < high
        error = np.std(row["examples"].nll) / np.sqrt(13)
        low, high = row["intervals"]["nll"]
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.3)


def read_off(variables, key, images):
    """Reads predictions off the images: no network, no dropout."""
    del variables, key
    logits = images[:, 0, 0].astype(jnp.float32) / 64
    return Predictions(mixtures.single(logits))


def test_batches_of_any_size_count_every_example_once():
    passes = evaluation.compile_scores(read_off)
    found = [
        passes({}, KEY, batches.sequential(*DATA, batch_size=size))
        for size in (1, 4, 13, 50)
    ]
    assert found[0].ensembles.examples.label.shape == (13,)
    for other in found[1:]:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            other.ensembles.examples,
            found[0].ensembles.examples,
        )


def test_compiled_once_for_many_data_sets():
    traces = 0

    def predict(*inputs):
        nonlocal traces
        traces += 1
        return read_off(*inputs)

    passes = evaluation.compile_scores(predict)
    for seed in range(3):
        data = batches.sequential(*images_and_labels(seed), batch_size=4)
        passes({}, KEY, data)
    assert traces == 1


def test_scores_are_equal_on_any_number_of_devices(network, passes):
    images, labels = (np.concatenate([part, part[:3]]) for part in DATA)
    found = []
    for count in (1, 8):
        mesh = sharding.mesh(count)
        data = batches.sequential(images, labels, batch_size=8)
        scores = passes(
            sharding.replicate(network[1], mesh),
            KEY,
            sharding.split_batches(data, mesh),
        )
        found.append(scores.ensembles)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, *found)


def test_temperatures_are_of_least_nll_on_the_held_out_images():
    passes = evaluation.compile_scores(read_off)
    held_out = images_and_labels(1, 40)
    data = lambda *dataset: batches.sequential(*dataset, batch_size=8)
    temperature = evaluation.compile_temperatures(read_off)({}, KEY, data(*held_out))

    def nll(temperature, images, labels):
        logits = images[:, 0, 0].astype(float) / 64 / temperature
        log_probs = scipy.special.log_softmax(logits, axis=-1)
        return -log_probs[np.arange(len(labels)), labels].mean()

    best = scipy.optimize.minimize_scalar(
        nll, bounds=(0.05, 20), args=held_out, method="bounded"
    )
    assert nll(temperature, *held_out) == pytest.approx(best.fun, rel=1e-6)
    scores = passes({}, KEY, data(*DATA), temperature)
    row = evaluation.scored_row(
        scores.ensembles,
        num_classes=3,
        temperature=temperature,
        key=KEY,
        num_replicates=100,
    )
    assert row["temperature"] == pytest.approx(float(temperature))
    assert row["nll"] == pytest.approx(nll(1.0, *DATA), rel=1e-5)
    assert row["calibrated_nll"] == pytest.approx(nll(temperature, *DATA), rel=1e-5)
    for name in ("nll", "brier"):
        low, high = row["intervals"][f"calibrated_{name}"]
        assert low < row[f"calibrated_{name}"] < high


def test_detection_equals_scikit_learn():
    passes = evaluation.compile_scores(read_off)
    other = images_and_labels(2, 20)
    found, out = (
        passes({}, KEY, batches.sequential(*dataset, batch_size=8))
        for dataset in (DATA, other)
    )
    row = evaluation.scored_row(
        found.ensembles,
        num_classes=3,
        ood=("noise", out.ensembles.examples),
        key=KEY,
        num_replicates=0,
    )
    assert "intervals" not in row
    assert row["detection"]["dataset"] == "noise"
    assert row["detection"]["num_examples"] == 20
    positives = np.arange(33) >= 13
    logits = np.concatenate([DATA[0], other[0]])[:, 0, 0].astype(float) / 64
    probs = scipy.special.softmax(logits, axis=-1)
    for name, values in {
        "confidence": -probs.max(-1),
        "entropy": scipy.stats.entropy(probs, axis=-1),
        "energy": -scipy.special.logsumexp(logits, axis=-1),
    }.items():
        scores = row["detection"]["scores"][name]
        auroc = sklearn.metrics.roc_auc_score(positives, values)
        aupr = sklearn.metrics.average_precision_score(positives, values)
        assert scores["auroc"] == pytest.approx(auroc, abs=1e-6)
        assert scores["aupr"] == pytest.approx(aupr, abs=1e-6)


def test_nothing_to_score():
    passes = evaluation.compile_scores(read_off)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        passes({}, KEY, [])
    with pytest.raises(ValueError, match="nothing to fit a temperature to"):
        evaluation.compile_temperatures(read_off)({}, KEY, [])
