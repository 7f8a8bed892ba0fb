"""Networks of any kind as pure functions, and dropout that is off."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import spatial_smoothing as ss
from spatial_smoothing import ensembles

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


class Usual(nn.Module):
    """Dropout as most Flax models have it: on in training only."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(4)(nn.Dropout(0.3, deterministic=not train)(x))


class AlwaysLive(nn.Module):
    """The same network, whose dropout is always on."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x))
        x = nn.Dropout(0.5, deterministic=False)(nn.relu(x))
        return nn.Dense(4)(nn.Dropout(0.3, deterministic=False)(x))


class Told(nn.Module):
    """Dropout that an argument switches."""

    @nn.compact
    def __call__(self, x, *, deterministic):
        return nn.Dense(4)(nn.Dropout(0.5)(x, deterministic=deterministic))


class Graph(nnx.Module):
    """An NNX network with two dropout layers of one shape."""

    def __init__(self, rngs, rate=0.5):
        self.first = nnx.Linear(5, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.one = nnx.Dropout(rate, rngs=rngs)
        self.other = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.first(x))
        return self.one(x) + 10 * self.other(x)


def sampled(model, variables, **options):
    options = {"num_samples": 4, **options}
    return np.asarray(ss.mc_dropout(KEY, model, variables, X, **options))


def distinct(samples):
    pairs = itertools.combinations(samples, 2)
    return min(np.abs(one - other).max() for one, other in pairs) > 1e-3


USUAL = Usual().init(KEY, X)


@pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_dropout_that_is_off_is_an_error_that_says_how_to_switch_it_on(mode):
    run = mode(lambda variables: ss.mc_dropout(KEY, Usual(), variables, X))
    with pytest.raises(ValueError, match=r"of Usual are equal: .*force_dropout=True"):
        run(USUAL)


def test_forced_dropout_is_that_of_a_network_whose_dropout_is_always_on():
    forced = ensembles.from_linen(Usual(), force_dropout=True)
    samples = sampled(forced, USUAL)
    assert distinct(samples)
    np.testing.assert_allclose(samples, sampled(AlwaysLive(), USUAL), rtol=1e-6)
    np.testing.assert_array_equal(forced(USUAL, X), Usual().apply(USUAL, X))


def test_batch_statistics_that_change_are_refused():
    with pytest.raises(ValueError, match="Usual updates variables while it predicts"):
        sampled(Usual(), USUAL, apply_kwargs={"train": True})


def test_normalisation_that_deterministic_switches_needs_another_argument():
    class Both(nn.Module):
        @nn.compact
        def __call__(self, x, deterministic=True):
            x = nn.BatchNorm(use_running_average=deterministic)(nn.Dense(4)(x))
            return nn.Dropout(0.5, deterministic=deterministic)(x)

    variables = Both().init(KEY, X)
    with pytest.raises(ValueError, match=r"deterministic=False makes it train; pass"):
        sampled(Both(), variables)
    options = {"force_dropout": True, "apply_kwargs": {"deterministic": True}}
    assert distinct(sampled(ensembles.from_linen(Both(), **options), variables))


def test_a_module_that_takes_deterministic_is_told():
    variables = Told().init(KEY, X, deterministic=True)
    assert distinct(sampled(Told(), variables))
    mean = ensembles.as_apply(Told())(variables, X)
    expected = Told().apply(variables, X, deterministic=True)
    np.testing.assert_array_equal(mean, expected)


def test_an_argument_that_is_missing_is_named():
    class Other(nn.Module):
        @nn.compact
        def __call__(self, x, mode):
            return nn.Dense(4)(nn.Dropout(0.5, deterministic=mode != "train")(x))

    variables = Other().init(KEY, X, "test")
    with pytest.raises(ValueError, match=r"'mode'; pass what it needs as apply_kwargs"):
        sampled(Other(), variables)
    assert distinct(sampled(Other(), variables, apply_kwargs={"mode": "train"}))


def test_a_module_without_dropout_is_refused_and_one_of_rate_0_is_not():
    variables = nn.Dense(4).init(KEY, X)
    with pytest.raises(ValueError, match=r"of Dense are equal.* add_mc_dropout"):
        sampled(nn.Dense(4), variables)
    silent = nn.Sequential([nn.Dropout(0.0, deterministic=False), nn.Dense(4)])
    samples = sampled(silent, silent.init(KEY, X))
    np.testing.assert_array_equal(samples, samples[:1].repeat(4, 0))


def test_an_nnx_module_is_sampled_and_stays_as_it_was():
    module = Graph(nnx.Rngs(0))
    module.norm.mean[...] = jnp.arange(4.0)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    samples = sampled(module, None, chunk=3)
    assert distinct(samples)
    np.testing.assert_allclose(samples, sampled(module, nnx.state(module), chunk=1))
    after = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert module.one.deterministic is False
    module.eval()
    mean = ensembles.as_apply(module)(nnx.state(module), X)
    np.testing.assert_allclose(mean, module(X), rtol=1e-6)


def test_dropout_layers_of_an_nnx_module_have_masks_of_their_own():
    module = Graph(nnx.Rngs(0))
    logits = ensembles.mc_logits(KEY, module, None, np.ones_like(X), num_samples=200)
    module.eval()
    one = module.norm(module.first(np.ones_like(X)))
    # Each mask keeps half and doubles it: the four sums are equally frequent.
    ratio = np.rint(np.asarray(logits / one[None]))
    values, counts = np.unique(ratio, return_counts=True)
    assert values.tolist() == [0, 2, 20, 22]
    assert (np.abs(counts / ratio.size - 0.25) < 0.03).all()


def test_deep_ensemble_of_nnx_modules():
    modules = [Graph(nnx.Rngs(seed)) for seed in range(3)]
    stacked = ensembles.stack([nnx.state(module) for module in modules])
    probs = ss.deep_ensemble(modules[0], stacked, X)
    for module, found in zip(modules, probs, strict=True):
        module.eval()
        np.testing.assert_allclose(found, jax.nn.softmax(module(X)), rtol=1e-5)


def drop(variables, images, key):
    kept = True if key is None else jax.random.bernoulli(key, 0.5, images.shape)
    return jnp.where(kept, images, 0) @ variables


KERNEL = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)


def test_a_function_is_a_network():
    samples = sampled(drop, KERNEL)
    assert distinct(samples)
    for index, found in enumerate(samples):
        logits = drop(KERNEL, X, jax.random.fold_in(KEY, index))
        np.testing.assert_allclose(found, jax.nn.softmax(logits), rtol=1e-5)
    partial = functools.partial(drop)
    np.testing.assert_array_equal(sampled(partial, KERNEL), samples)


def test_functions_without_a_key_predict_and_are_not_sampled():
    linear = lambda variables, images: images @ variables
    found = ss.deep_ensemble(linear, KERNEL[None], X)
    np.testing.assert_allclose(found[0], jax.nn.softmax(X @ KERNEL), rtol=1e-5)
    with pytest.raises(ValueError, match="its third argument, the key"):
        sampled(linear, KERNEL)
    with pytest.raises(ValueError, match=r"must take \(variables, images, key\)"):
        sampled(lambda images: images, KERNEL)
    with pytest.raises(ValueError, match=r"model must be a Linen module.* got str"):
        sampled("resnet_mcdo_18", KERNEL)


def test_a_linen_module_needs_variables():
    with pytest.raises(ValueError, match=r"Usual is a Linen module; pass its"):
        sampled(Usual(), None)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_samples_do_not_depend_on_chunks_whatever_draws_the_bits(impl):
    run = lambda chunk: ss.mc_dropout(
        jax.random.key(0, impl=impl), drop, KERNEL, X, num_samples=6, chunk=chunk
    )
    assert distinct(np.asarray(run(1)))
    for chunk in (2, 4, 6):
        np.testing.assert_allclose(run(chunk), run(1), rtol=1e-6)
