import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import ensembles, evaluation, metrics, models
from spatial_smoothing.data import augment, batches
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.ensembles import Ensemble, Predictions, mixtures
from spatial_smoothing.runtime import sharding

normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 8, 8, 3)).astype(np.uint8)
    return Dataset(images, rng.integers(0, 3, 13).astype(np.int32))


@pytest.fixture(scope="module")
def network():
    model = models.build("resnet_mcdo_18", num_classes=3, width=4, stages=(1,))
    return model, initial(model, 0)


def initial(model, seed):
    return jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 3)))


def predictor(model, **options):
    defaults = {"sizes": (1, 2, 5), "chunk": 2}
    return ensembles.predictor(model, prepare=normalize, **{**defaults, **options})


def read_off(images):
    """Predictions that are read off the images, without a network."""
    logits = images[:, 0, 0].astype(jnp.float32) / 64
    return Predictions(mixtures.single(logits))


def test_rows_are_the_scores_of_every_size(network, data):
    """Against one loop over samples, and NumPy."""
    model, variables = network
    images, labels = data
    key = jax.random.key(3)
    tallies = evaluation.compile_tallies(predictor(model))(
        variables, key, batches.sequential(images, labels, batch_size=13)
    )
    found = ensembles.named(tallies)
    assert list(found) == [Ensemble((0,), size) for size in (1, 2, 5)]
    rows = [evaluation.tally_row(tally) for tally in found.values()]
    stream = jax.random.fold_in(jax.random.fold_in(key, 0), 0)

    @jax.jit
    def sample(index):
        rngs = {"dropout": jax.random.fold_in(stream, index)}
        return jax.nn.softmax(model.apply(variables, normalize(images), rngs=rngs))

    samples = np.stack([sample(index) for index in range(5)])
    for size, row in zip((1, 2, 5), rows, strict=True):
        mean = samples[:size].mean(0)
        expected = -np.log(mean[np.arange(13), labels]).mean()
        assert row["nll"] == pytest.approx(expected, rel=1e-5)
        assert row["accuracy"] == np.mean(mean.argmax(-1) == labels)
        assert row["num_examples"] == 13


def test_batches_of_any_size_count_every_example_once(data):
    """With a predictor that reads the answer off the image, and no dropout."""
    images, labels = data

    tally = evaluation.compile_tallies(lambda variables, key, x: read_off(x))
    summaries = [
        metrics.summary(
            tally(
                {},
                jax.random.key(0),
                batches.sequential(images, labels, batch_size=size),
            )
        )
        for size in (1, 4, 13, 50)
    ]
    for other in summaries[1:]:
        assert other == pytest.approx(summaries[0], rel=1e-5, nan_ok=True)


def test_compiled_once_for_many_data_sets(data):
    traces = 0

    def predict(variables, key, images):
        nonlocal traces
        traces += 1
        return read_off(images)

    tally = evaluation.compile_tallies(predict)
    for _ in range(3):
        tally({}, jax.random.key(0), batches.sequential(*data, batch_size=4))
    assert traces == 1


def test_tallies_are_equal_on_any_number_of_devices(network, data):
    model, variables = network
    images, labels = (np.concatenate([part, part[:3]]) for part in data)
    results = []
    for count in (1, 2, 8):
        mesh = sharding.mesh(count)
        tally = evaluation.compile_tallies(predictor(model))(
            sharding.replicate(variables, mesh),
            jax.random.key(0),
            sharding.split_batches(
                batches.sequential(images, labels, batch_size=8), mesh
            ),
        )
        results.append(tally)
    for other in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), other, results[0]
        )


def test_nothing_to_evaluate(network):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluation.compile_tallies(predictor(network[0]))({}, jax.random.key(0), [])


def test_monitor_of_members_has_their_mean_and_their_average(network, data):
    model, one = network[0].clone(rate=0.0), network[1]
    other = jax.tree.map(lambda leaf: leaf * 1.5, one)
    monitor = functools.partial(
        evaluation.monitor,
        model,
        {"test": data},
        prepare=normalize,
        key=jax.random.key(1),
        batch_size=8,
        mesh=sharding.mesh(1),
    )
    record = monitor(members=2)(ensembles.stack([one, other]))
    alone = [monitor()(variables) for variables in (one, other)]
    for name in ("test_nll", "test_accuracy"):
        mean = np.mean([scores[name] for scores in alone])
        assert record[name] == pytest.approx(mean, rel=1e-5)
    logits = [model.apply(v, normalize(data.images)) for v in (one, other)]
    probs = jnp.mean(jax.nn.softmax(jnp.stack(logits)), 0)
    expected = -np.log(probs[np.arange(len(data.labels)), data.labels]).mean()
    assert record["test_ensemble_nll"] == pytest.approx(expected, rel=1e-5)


def test_monitor_draws_one_sample_of_a_network_with_dropout(network, data):
    model, variables = network
    monitor = functools.partial(
        evaluation.monitor,
        splits={"val": data, "test": data},
        prepare=normalize,
        key=jax.random.key(1),
        batch_size=8,
        mesh=sharding.mesh(1),
    )
    record = monitor(model)(variables)
    assert {"val_nll", "test_nll", "test_accuracy", "test_ece"} <= record.keys()
    assert record["val_nll"] == record["test_nll"]
    plain = monitor(model.clone(rate=0.0))(variables)
    assert plain["test_nll"] != record["test_nll"]
