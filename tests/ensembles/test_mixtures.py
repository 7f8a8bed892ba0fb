import functools

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import spatial_smoothing as ss
from spatial_smoothing import ensembles
from spatial_smoothing.ensembles import Ensemble, mixtures

KEY = jax.random.key(0)
SIZES = (1, 2, 5)


class Linear(nn.Module):
    """A linear classifier of flattened images behind dropout."""

    rate: float = 0.4

    @nn.compact
    def __call__(self, x, *, train=False):
        del train
        live = self.has_rng("dropout")
        x = nn.Dropout(self.rate, deterministic=not live)(x.reshape(len(x), -1))
        return nn.Dense(4, use_bias=False)(x)


X = np.random.default_rng(0).standard_normal((6, 1, 1, 3)).astype(np.float32)
VARIABLES = Linear().init(KEY, X)


def members(count):
    return [Linear().init(jax.random.key(seed), X) for seed in range(count)]


def network():
    model = ss.models.build(
        "resnet_mcdo_smoothing_18", num_classes=4, width=4, stages=(1, 1)
    )
    images = golden.images(5, 3, 8)
    return model, golden.variables(model, images), images


def logits(seed=0, shape=(5, 6, 4)):
    return 3 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def joined(samples):
    """The mixture of samples, one after another."""
    return functools.reduce(lambda a, b: a + b, map(mixtures.single, samples))


def assert_close(one, other):
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    jax.tree.map(close, one, other)


def check(mixture, samples):
    """Compares what a mixture says with SciPy on the logits f[S, B, K]."""
    probs = scipy.special.softmax(samples, axis=-1)
    mean = probs.mean(0)
    expected = scipy.stats.entropy(probs, axis=-1).mean(0)
    information = scipy.stats.entropy(mean, axis=-1) - expected
    modal = scipy.stats.mode(samples.argmax(-1), axis=0).count
    energy = -scipy.special.logsumexp(samples, axis=-1).mean(0)
    assert mixture.size == len(samples)
    for actual, value in [
        (jnp.exp(mixture.log_probs()), mean),
        (mixture.mutual_information(), np.maximum(information, 0)),
        (mixture.variation_ratio(), 1 - modal / len(samples)),
        (mixture.mean_energy(), energy),
    ]:
        np.testing.assert_allclose(actual, value, rtol=2e-5, atol=2e-6)


def test_a_mixture_equals_scipy():
    check(joined(logits()), logits())
    check(mixtures.single(logits()[0]), logits()[:1])


def test_mixtures_add():
    samples = logits()
    whole = joined(samples)
    assert_close(joined(samples[:2]) + joined(samples[2:]), whole)
    stacked = jax.vmap(mixtures.single)(samples)
    assert_close(stacked.sum(), whole)
    assert_close(mixtures.empty(whole) + whole, whole)


def test_a_mixture_does_not_underflow():
    certain = np.array([[[0.0, -300.0]], [[0.0, -200.0]]], np.float32)
    mixture = joined(certain)
    np.testing.assert_allclose(mixture.log_probs()[0, 1], -200 - np.log(2), rtol=1e-6)
    assert mixture.mutual_information() == 0


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_every_size_is_a_prefix_of_the_samples(chunk):
    model, variables, images = network()
    kept = jax.jit(
        functools.partial(mixtures.mc_mixtures, model=model, sizes=SIZES, chunk=chunk)
    )(KEY, variables=variables, images=images)
    samples = ensembles.mc_logits(KEY, model, variables, images, num_samples=5)
    for index, size in enumerate(SIZES):
        part = jax.tree.map(lambda leaf, i=index: leaf[i], kept)
        assert_close(part, joined(samples[:size]))


def test_memory_does_not_grow_with_the_number_of_samples():
    model, variables, images = network()

    def temporaries(sizes):
        function = functools.partial(mixtures.mc_mixtures, model=model, sizes=sizes)
        lowered = jax.jit(function).lower(KEY, variables=variables, images=images)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries((1, 4)), temporaries((1, 400))
    assert many - few < 400 * 3 * 4 * 4  # what the probabilities of 400 would take


@pytest.mark.parametrize("sizes", [(), (0, 1), (2, 2), (3, 1)])
def test_unusable_sizes_are_explained(sizes):
    with pytest.raises(ValueError, match="sizes must be at least 1 and increase"):
        mixtures.mc_mixtures(KEY, Linear(), VARIABLES, X, sizes=sizes)


def predict(variables, *, rate=0.4, **options):
    """Name -> mixture of every ensemble."""
    predictor = ensembles.predictor(
        Linear(rate), prepare=lambda images: images / 2, **options
    )
    return ensembles.named(jax.jit(predictor)(variables, KEY, 2 * X).mixtures)


def samples_of(index, variables, count):
    key = jax.random.fold_in(KEY, index)
    return ensembles.mc_logits(key, Linear(), variables, X, num_samples=count)


def test_predictor_of_one_network():
    found = predict(VARIABLES, sizes=(1, 3))
    samples = samples_of(0, VARIABLES, 3)
    assert list(found) == [Ensemble((0,), 1), Ensemble((0,), 3)]
    for name, mixture in found.items():
        check(mixture, np.asarray(samples[: name.num_samples]))


def test_predictor_has_deep_ensembles_first_and_then_their_members():
    parts = members(3)
    found = predict(ensembles.stack(parts), num_members=3, sizes=(1, 2))
    samples = np.stack([samples_of(i, part, 2) for i, part in enumerate(parts)])
    deep = functools.partial(Ensemble, together=True)
    assert list(found) == [
        *(deep((0,), 1), deep((0, 1), 1), deep((0, 1, 2), 1), deep((0, 1, 2), 2)),
        *(Ensemble((member,), size) for member in range(3) for size in (1, 2)),
    ]
    assert list(found) == ensembles.names_of((1, 2), num_members=3)
    for name, mixture in found.items():
        group = samples[list(name.members), : name.num_samples]
        check(mixture, group.reshape(-1, *group.shape[2:]))


def test_predictor_of_mean_networks():
    parts = members(3)
    found = predict(ensembles.stack(parts), num_members=3, dropout=False)
    deep = ss.deep_ensemble(Linear(), ensembles.stack(parts), X)
    for name, mixture in found.items():
        expected = deep[jnp.asarray(name.members)].mean(0)
        np.testing.assert_allclose(
            jnp.exp(mixture.log_probs()), expected, rtol=1e-5, err_msg=str(name)
        )
