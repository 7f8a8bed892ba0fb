import functools
import itertools

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import spatial_smoothing as ss
from spatial_smoothing import ensembles

KEY = jax.random.key(0)
SIZES = (1, 2, 5, 11)


class Linear(nn.Module):
    """Softmax regression whose inputs are dropped where there is a key."""

    rate: float = 0.4

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(x.shape[0], -1)
        live = self.rate > 0 and self.has_rng("dropout")
        x = nn.Dropout(self.rate, deterministic=not live)(x)
        return nn.Dense(4, use_bias=False)(x)


KERNEL = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
VARIABLES = {"params": {"Dense_0": {"kernel": jnp.asarray(KERNEL)}}}
X = np.random.default_rng(1).standard_normal((6, 1, 1, 3)).astype(np.float32)


LOGITS = [[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]


def members(count):
    rng = np.random.default_rng(2)
    draw = lambda leaf: jnp.float32(rng.standard_normal(leaf.shape))
    return [jax.tree.map(draw, VARIABLES) for _ in range(count)]


def softmax(logits):
    return scipy.special.softmax(np.float64(logits), axis=-1)


def random_probs(samples=11):
    rng = np.random.default_rng(3)
    return softmax(3 * rng.standard_normal((samples, 6, 4)))


def test_probabilities_of_networks_in_bfloat16_are_float32():
    def function(variables, images, key):
        drawn = 0 if key is None else 0 * jax.random.uniform(key, dtype=jnp.bfloat16)
        return jnp.bfloat16(LOGITS) * variables + drawn

    stacked = jnp.ones((2, 1, 1), jnp.bfloat16)
    samples = ss.mc_dropout(KEY, function, stacked[0], X, num_samples=2)
    for probs in (samples, ss.deep_ensemble(function, stacked, X)):
        assert probs.dtype == jnp.float32
        expected = np.broadcast_to(softmax(np.asarray(LOGITS)), probs.shape)
        np.testing.assert_allclose(probs, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_prefix_means_equal_numpy(mode):
    probs = random_probs()
    expected = np.stack([probs[:size].mean(0) for size in SIZES])
    means = mode(functools.partial(ss.prefix_means, sizes=SIZES))(np.float32(probs))
    np.testing.assert_allclose(means, expected, rtol=1e-6)
    logs = mode(functools.partial(ensembles.prefix_log_means, sizes=SIZES))(
        np.float32(np.log(probs))
    )
    np.testing.assert_allclose(logs, np.log(expected), atol=2e-6)


def test_prefix_log_means_equal_golden_values():
    arrays = golden.arrays("metrics")
    log_probs = jax.nn.log_softmax(arrays["ensemble/logits"])
    (mean,) = ensembles.prefix_log_means(log_probs, sizes=(3,))
    np.testing.assert_allclose(
        mean + np.log(3), arrays["ensemble/log_sum"], rtol=1e-5, atol=1e-6
    )


def test_prefix_log_means_neither_underflow_nor_hide_zeros():
    log_probs = np.float32([[-200, -1000], [-210, -np.inf], [-np.inf, -900]])[:, None]
    actual = ensembles.prefix_log_means(log_probs, sizes=(1, 2, 3))
    with np.errstate(divide="ignore"):
        expected = [
            scipy.special.logsumexp(np.float64(log_probs[:size]), axis=0) - np.log(size)
            for size in (1, 2, 3)
        ]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    certain = ensembles.prefix_log_means(np.float32([[[-np.inf]]] * 2), sizes=(1, 2))
    np.testing.assert_array_equal(certain, -np.inf)


def test_means_of_bfloat16_are_float32():
    probs = jnp.full((300, 1, 1), 1 / 3, jnp.bfloat16)
    mean = ss.prefix_means(probs, sizes=(300,))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.float32(probs[0, 0, 0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 12), "an ensemble of size 12 needs as many samples, got 11"),
        ((2, 2), r"sizes must be at least 1 and increase, got \(2, 2\)"),
        ((0, 1), r"sizes must be at least 1 and increase, got \(0, 1\)"),
        ((), r"sizes must be at least 1 and increase, got \(\)"),
    ],
)
def test_unusable_sizes_are_explained(sizes, message):
    for function in (ss.prefix_means, ensembles.prefix_log_means):
        with pytest.raises(ValueError, match=message):
            function(random_probs(), sizes=sizes)


def test_mc_dropout_converges_to_its_expectation():
    kept = np.array(list(itertools.product((0, 1), repeat=3)))  # all masks
    weight = np.prod(np.where(kept, 0.6, 0.4), axis=1)
    outcomes = softmax((X.reshape(6, 3) * kept[:, None] / 0.6) @ KERNEL)
    expected = np.einsum("m,mbk->bk", weight, outcomes)
    variance = np.einsum("m,mbk->bk", weight, (outcomes - expected[None]) ** 2)
    samples = 4000
    probs = ss.mc_dropout(
        KEY, Linear(), VARIABLES, X, num_samples=samples, chunk=samples
    )
    assert probs.shape == (samples, 6, 4)
    assert probs.dtype == np.float32
    # Every sample is one of the outcomes.
    distance = np.abs(np.asarray(probs[:50])[:, None] - outcomes[None]).max(-1)
    assert distance.min(1).max() < 1e-5
    error = np.abs(probs.mean(0) - expected)
    assert (error < 5 * np.sqrt(variance / samples)).all()
    np.testing.assert_allclose(probs.var(0), variance, rtol=0.2)


def network():
    model = ss.models.build(
        "resnet_mcdo_smoothing_18", num_classes=4, width=4, stages=(1,)
    )
    images = golden.images(5, 3, 8)
    return model, golden.variables(model, images), images


def test_samples_depend_on_key_and_index_alone():
    run = lambda key, **options: np.asarray(
        ss.mc_dropout(key, Linear(), VARIABLES, X, **options)
    )
    samples = run(KEY, num_samples=7, chunk=3)
    for options in ({"num_samples": 7, "chunk": 7}, {"num_samples": 4, "chunk": 1}):
        few = run(KEY, **options)
        np.testing.assert_allclose(few, samples[: len(few)], rtol=1e-5, atol=1e-6)
    apart = [np.abs(a - b).max() for a, b in itertools.combinations(samples, 2)]
    assert min(apart) > 1e-3
    assert np.abs(run(jax.random.key(1), num_samples=7) - samples).max() > 1e-3
    jitted = jax.jit(
        lambda key: ss.mc_dropout(key, Linear(), VARIABLES, X, num_samples=4)
    )
    np.testing.assert_allclose(jitted(KEY), samples[:4], rtol=1e-5, atol=1e-6)


def test_samples_of_a_network_do_not_depend_on_chunks():
    model, variables, images = network()
    logits = functools.partial(ensembles.mc_logits, KEY, model, variables, images)
    samples, few = logits(num_samples=4, chunk=4), logits(num_samples=3, chunk=2)
    np.testing.assert_allclose(few, samples[:3], rtol=1e-4, atol=1e-4)
    assert np.abs(samples[0] - samples[1]).max() > 1e-2


def test_samples_without_dropout_are_the_mean_network():
    probs = ss.mc_dropout(KEY, Linear(rate=0.0), VARIABLES, X, num_samples=3)
    expected = softmax(X.reshape(6, 3) @ KERNEL)
    np.testing.assert_allclose(probs, np.stack([expected] * 3), rtol=1e-5)


def test_logits_are_those_of_the_probabilities():
    logits = ensembles.mc_logits(KEY, Linear(), VARIABLES, X, num_samples=3)
    probs = ss.mc_dropout(KEY, Linear(), VARIABLES, X, num_samples=3)
    np.testing.assert_allclose(softmax(logits), probs, rtol=1e-5)


@pytest.mark.parametrize("option", ["num_samples", "chunk"])
def test_no_samples_are_explained(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        ss.mc_dropout(KEY, Linear(), VARIABLES, X, **{option: 0})


def test_an_empty_batch_has_no_predictions():
    model = ss.models.build("resnet_mcdo_18", num_classes=4, width=2, stages=(1,))
    variables = jax.eval_shape(model.init, KEY, np.zeros((1, 8, 8, 3), np.float32))
    predict = functools.partial(ss.mc_dropout, num_samples=5, chunk=2)
    probs = jax.eval_shape(
        lambda variables: predict(KEY, model, variables, jnp.zeros((0, 8, 8, 3))),
        variables,
    )
    assert probs.shape == (5, 0, 4)


def test_deep_ensemble_equals_a_loop():
    parts = members(3)
    stacked = ensembles.stack(parts)
    assert jax.tree.leaves(stacked)[0].shape == (3, 3, 4)
    flat = X.reshape(6, 3)
    expected = [softmax(flat @ jax.tree.leaves(part)[0]) for part in parts]
    for function in (ss.deep_ensemble, jax.jit(ss.deep_ensemble, static_argnums=0)):
        probs = function(Linear(), stacked, X)
        assert probs.dtype == np.float32
        np.testing.assert_allclose(probs, np.stack(expected), rtol=1e-5)


def test_deep_ensemble_with_a_key_draws_one_sample_of_each_member():
    same = ensembles.stack([VARIABLES] * 3)
    probs = ss.deep_ensemble(Linear(), same, X, key=KEY)
    np.testing.assert_array_equal(ss.deep_ensemble(Linear(), same, X, key=KEY), probs)
    for a, b in itertools.combinations(np.asarray(probs), 2):
        assert np.abs(a - b).max() > 1e-3


def test_deep_ensemble_carries_batch_statistics():
    model, variables, images = network()
    other = jax.tree.map(lambda leaf: leaf * 1.1, variables)
    probs = ss.deep_ensemble(model, ensembles.stack([variables, other]), images)
    for index, part in enumerate((variables, other)):
        expected = jax.nn.softmax(model.apply(part, images))
        np.testing.assert_allclose(probs[index], expected, rtol=1e-4, atol=1e-6)
