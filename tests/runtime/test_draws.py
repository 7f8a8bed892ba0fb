import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing.runtime import random_bits

KEY = jax.random.key(3)


def assert_same(draw, key=KEY):
    fused = random_bits.fused(key)
    if hasattr(key, "dtype") and key.dtype == KEY.dtype:
        assert fused.dtype != key.dtype
    ours, theirs = draw(fused), draw(key)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 5, 4), (0, 3)])
@pytest.mark.parametrize(
    "draw",
    [
        jax.random.uniform,
        lambda key, shape: jax.random.bernoulli(key, 0.3, shape),
        lambda key, shape: jax.random.bits(key, shape, "uint8"),
        lambda key, shape: jax.random.normal(jax.random.split(key, 3)[1], shape),
        lambda key, shape: jax.random.normal(jax.random.fold_in(key, 5), shape),
    ],
)
def test_numbers_are_those_of_jax_random(draw, shape):
    assert_same(lambda key: draw(key, shape))


@pytest.mark.usefixtures("x64")
def test_double_precision():
    assert_same(lambda key: jax.random.uniform(key, (3, 4)))


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
    assert_same(lambda key: jax.random.bernoulli(key, 0.3, (4, 5)), key)


def test_vectorises_over_keys():
    draw = lambda key: jax.random.bernoulli(key, 0.3, (5, 2))
    assert_same(jax.jit(jax.vmap(draw)), jax.random.split(KEY, 6))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_has_the_same_masks(dtype):
    x = jnp.arange(1, 61, dtype=dtype).reshape(3, 4, 5)
    layer = nn.Dropout(0.3, deterministic=False)
    assert_same(lambda key: layer.apply({}, x, rngs={"dropout": key}))


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("seed", [0, 5, 2**31 + 5, 2**32 - 1])
def test_keys_are_those_of_threefry_whatever_the_process_is_set_to(
    implementation, seed
):
    expected = np.array([0, seed], np.uint32)
    with jax.default_prng_impl(implementation):
        for x64 in (False, True):
            with jax.enable_x64(x64):
                key = random_bits.key(seed)
            assert str(jax.random.key_impl(key)) == "threefry2x32"
            np.testing.assert_array_equal(jax.random.key_data(key), expected)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5])
def test_seeds_that_would_wrap_are_refused(seed):
    with pytest.raises(ValueError, match=rf"seed must be in .*, got {seed};"):
        random_bits.key(seed)
