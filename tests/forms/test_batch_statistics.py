"""Both forms of batch normalisation, against float64 and against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import layers
from spatial_smoothing.forms import batch_statistics as bs


def of_form(form):
    """Returns a function like `bs.normalize` that always takes the same form."""

    def normalize(x, scale, bias, mask, near, options):
        wide = x.astype(options.compute_dtype)
        uses = bs.Uses(wide, wide, wide)
        near = near if x.dtype == jnp.bfloat16 else None
        return form(uses, scale, bias, mask, near, options)

    return normalize


two_passes, one_pass = of_form(bs.two_passes), of_form(bs.one_pass)
FORMS = [two_passes, one_pass]
MASK = np.array([False, True, True, False, True, True])


def options(dtype=jnp.float32, *, relu=False):
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    return bs.Options(1e-5, relu, compute_dtype=wide, dtype=dtype)


def arrays(*, mean=0.0, std=1.0, dtype=np.float32, shape=(6, 3, 4, 5)):
    """A batch, scale, bias, mask and guess of the mean."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(mean + std * rng.standard_normal(shape), dtype)
    scale = jnp.asarray(rng.uniform(0.5, 2, 5), jnp.float32)
    bias = jnp.asarray(rng.standard_normal(5), jnp.float32)
    return x, scale, bias, jnp.asarray(MASK), jnp.zeros(5)


def reference(x, scale, bias, mask, relu=False):
    """The same in NumPy, in float64."""
    x, scale, bias = (np.asarray(v, np.float64) for v in (x, scale, bias))
    counted = x[np.asarray(mask)].reshape(-1, x.shape[-1])
    mean, var = counted.mean(0), counted.var(0)
    values = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    return np.maximum(values, 0) if relu else values, mean, var


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.usefixtures("x64")
def test_forms_equal_numpy(form, relu):
    given = arrays(dtype=np.float64, mean=3)
    actual = form(*given, options(jnp.float64, relu=relu))
    for one, other in zip(actual, reference(*given[:4], relu), strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
    assert actual.count == MASK.sum() * 12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(6, 16, 16, 5), (6, 5)])
def test_variance_does_not_cancel(form, shape):
    # One value in float32 is 1/164 of the deviation here: nothing is left of the
    # difference of mean squares, and the running mean of a new network is zero.
    given = arrays(mean=1e3, std=1e-2, shape=shape)
    values, mean, var, _ = form(*given, options())
    expected = reference(*given[:4])
    np.testing.assert_allclose(mean, expected[1], rtol=2e-7)
    np.testing.assert_allclose(var, expected[2], rtol=2e-3)
    np.testing.assert_allclose(values, expected[0], atol=3e-2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("near", [0.0, 0.9, 1.0])
def test_coarse_values_do_not_need_a_near_guess(form, near):
    # In bfloat16 next to 1000 there are 996 and 1004. Also from a guess of zero, the
    # variance is right to the 8 bits that the values have.
    given = arrays(mean=1e3, std=5, dtype=jnp.bfloat16, shape=(6, 32, 32, 5))
    given = (*given[:4], jnp.full(5, 1e3 * near))
    values, mean, var, _ = form(*given, options(jnp.bfloat16))
    expected = reference(*given[:4])
    np.testing.assert_allclose(mean, expected[1], rtol=1e-6)
    np.testing.assert_allclose(var, expected[2], rtol=2**-7)
    assert values.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(values, float), expected[0], rtol=2**-7, atol=2**-6
    )


def loss(form, x, scale, bias, mask, near, options):
    values, mean, var, _ = form(x, scale, bias, mask, near, options)
    return jnp.sum(jnp.sin(values)) + jnp.sum(mean * var)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.usefixtures("x64")
def test_gradients_and_hessian_products_agree(relu, mode):
    *floating, mask, near = arrays(dtype=np.float64, mean=3)
    tangents = [jnp.cos(v) for v in floating]

    def derivatives(form):
        gradient = jax.grad(
            lambda *v: loss(form, *v, mask, near, options(jnp.float64, relu=relu)),
            argnums=(0, 1, 2),
        )
        return jax.jvp(mode(gradient), floating, tangents)

    expected = jax.tree.leaves(derivatives(two_passes))
    for form in (one_pass, bs.normalize):
        for one, other in zip(
            jax.tree.leaves(derivatives(form)), expected, strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_does_not_cancel(form):
    given = arrays(mean=1e3, std=1e-2, shape=(6, 16, 16, 5))
    gradient = functools.partial(jax.grad(loss, argnums=1), form)
    actual = gradient(*given, options())
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(v), jnp.float64) for v in (given[0], given[4])]
        expected = jax.grad(loss, argnums=1)(
            two_passes, wide[0], *given[1:4], wide[1], options(jnp.float64)
        )
        expected = np.asarray(expected)
    scale = np.sqrt(MASK.sum() * 256)  # the size of a sum of so many numbers
    np.testing.assert_allclose(actual, expected, atol=0.1 * scale)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_guess_changes_rounding_only(dtype):
    given = arrays(dtype=dtype, mean=1)
    for near in (-1.0, 0.5, 3.0):
        values = one_pass(*given[:4], jnp.full(5, near), options(dtype))
        expected = reference(*given[:4])
        np.testing.assert_allclose(values.var, expected[2], rtol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_each_platform_has_its_form(platform):
    layer = layers.BatchNorm(use_running_average=False, mask=jnp.asarray(MASK))
    x = arrays()[0]
    variables = layer.init(jax.random.key(0), x)

    apply = jax.jit(lambda x: layer.apply(variables, x, mutable=["batch_stats"]))
    text = apply.trace(x).lower(lowering_platforms=(platform,)).as_text()
    # One pass sums over all axes of a map at once, two passes over examples at last.
    assert ("dimensions = [0, 1, 2]" in text) == (platform != "cpu")
