import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import draws, layers


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 5, 4), (0, 3)])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.7, 1.0])
def test_masks_are_those_of_jax_random(shape, p):
    key = jax.random.key(3)
    expected = jax.random.bernoulli(key, np.float32(p), shape)
    np.testing.assert_array_equal(draws.bernoulli(key, p, shape), expected)


def test_a_thousand_thresholds_are_rounded_as_jax_rounds_them():
    probabilities = np.random.default_rng(0).random(1000)
    index = jnp.arange(4096, dtype=jnp.uint32)
    key = jax.random.key(11)
    uniform = np.asarray(jax.random.uniform(key, index.shape))
    mask = jax.jit(draws.bernoulli, static_argnums=(1, 2))
    for p in probabilities[:5]:
        expected = uniform < np.float32(p)
        np.testing.assert_array_equal(mask(key, float(p), index.shape), expected)
    # The threshold itself: k / 2^23 is less than p for exactly ceil(p 2^23) of the k.
    scaled = np.ceil(np.float32(probabilities).astype(np.float64) * 2**23)
    for p, limit in zip(probabilities, scaled.astype(int), strict=True):
        assert np.float32((limit - 1) / 2**23) < np.float32(p)
        assert not np.float32(limit / 2**23) < np.float32(p)


@pytest.mark.parametrize(
    "key",
    [
        jax.random.PRNGKey(5),
        jax.random.key(5, impl="rbg"),
        jax.random.key(5, impl="unsafe_rbg"),
    ],
    ids=["raw", "rbg", "unsafe_rbg"],
)
def test_any_key_will_do(key):
    expected = jax.random.bernoulli(key, np.float32(0.3), (4, 5))
    np.testing.assert_array_equal(draws.bernoulli(key, 0.3, (4, 5)), expected)


def test_vectorises_over_keys():
    keys = jax.random.split(jax.random.key(0), 6)
    ours = jax.vmap(lambda key: draws.bernoulli(key, 0.3, (5, 2)))(keys)
    for key, mask in zip(keys, ours, strict=True):
        expected = jax.random.bernoulli(key, np.float32(0.3), (5, 2))
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_is_that_of_flax(dtype):
    x = jnp.arange(1, 61, dtype=dtype).reshape(3, 4, 5)
    rngs = {"dropout": jax.random.key(1)}
    ours, flax = (
        layer(0.3, deterministic=False).apply({}, x, rngs=rngs)
        for layer in (layers.Dropout, nn.Dropout)
    )
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, flax)


def test_dropout_that_is_off_changes_nothing():
    x = jnp.ones((3, 4))
    np.testing.assert_array_equal(
        layers.Dropout(0.3, deterministic=True).apply({}, x), x
    )
    np.testing.assert_array_equal(
        layers.Dropout(0.0, deterministic=False).apply({}, x), x
    )
