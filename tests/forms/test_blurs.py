"""The forms of the blur: all equal SciPy's, and each platform has its own."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import spatial_smoothing as ss
from spatial_smoothing.forms import blurs

FORMS = [blurs.shifted_adds, blurs.narrow_map, blurs.sums_of_windows]
PLATFORMS = ("cpu", "tpu", "cuda")


def weights(size):
    return (1 / size,) * size


def feature_map(shape=(2, 5, 6, 3), *, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize(
    ("padding", "size"),
    [
        *[("full", 2), ("full", 3), ("zero", 2), ("same", 3), ("reflect", 3)],
        *[("edge", 2), ("wrap", 2)],
    ],
)
@pytest.mark.usefixtures("x64")
def test_forms_agree_with_their_gradients(form, padding, size):
    x = feature_map(dtype=np.float64)

    def value_and_gradient(form, x):
        blur = lambda x: form(x, weights(size), padding=padding, dtype=x.dtype)
        y, pullback = jax.vjp(blur, x)
        return y, pullback(jnp.cos(y))[0]

    expected = value_and_gradient(blurs.shifted_adds, x)
    if padding == "full":
        kernel = np.outer(weights(size), weights(size))[None, :, :, None]
        full = scipy.signal.correlate(x, kernel, mode="full", method="direct")
        np.testing.assert_allclose(expected[0], full, rtol=1e-12, atol=1e-12)
    for actual in (
        value_and_gradient(form, x),
        # More leading axes, and those of vmap.
        [v[0] for v in value_and_gradient(form, x[None])],
        [v[0] for v in jax.vmap(lambda x: value_and_gradient(form, x))(x[None])],
    ):
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_forms_round_bfloat16_by_one_unit_at_most(form):
    wide = 10 * np.abs(feature_map((2, 9, 9, 8), seed=1))
    kernel = np.full((1, 2, 2, 1), 0.25)
    exact = scipy.signal.correlate(wide.astype(float), kernel, mode="full")
    actual = form(jnp.asarray(wide), weights(2), padding="full", dtype=jnp.bfloat16)
    assert actual.dtype == jnp.bfloat16
    units = np.abs(np.asarray(actual, float) - exact) / exact * 2**7
    # Half a unit for the result, and for GPUs another half for what is blurred.
    assert units.max() <= (1.0 if form is blurs.narrow_map else 0.501)


def operations(function, *args, platform):
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,))
    return lowered.as_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platform_has_its_form(platform):
    x = jnp.zeros((2, 8, 8, 4), jnp.bfloat16)
    gradient = jax.grad(lambda x: jnp.square(ss.smooth(x)).sum().astype(jnp.float32))
    for function in (ss.smooth, ss.box_blur, jax.vmap(ss.smooth), gradient):
        text = operations(function, x[None], platform=platform)
        assert ("reduce_window" in text) == (platform == "tpu")
    text = operations(ss.smooth, x, platform=platform)
    # On a GPU it is the narrow map that is padded.
    assert ("-> tensor<2x10x10x4xbf16>" in text) == (platform == "cuda")
    # Sums of windows have no weights.
    text = operations(lambda x: ss.blur(x, (1, 2, 1)), x, platform=platform)
    assert "reduce_window" not in text


def test_one_export_serves_several_platforms():
    x = jnp.asarray(feature_map())
    exported = jax.export.export(jax.jit(ss.smooth), platforms=PLATFORMS)(x)
    assert "reduce_window" in exported.mlir_module()
    restored = jax.export.deserialize(exported.serialize())
    np.testing.assert_array_equal(restored.call(x), jax.jit(ss.smooth)(x))


def test_products_with_the_hessian_differentiate_twice():
    x, v = jnp.asarray(feature_map()), jnp.asarray(feature_map(seed=2))

    def loss(form, x):
        squashed = 3 * jnp.tanh(x / 3)
        y = form(squashed, weights(2), padding="full", dtype=x.dtype)
        return jnp.sum(y**3)

    def product(form):
        return jax.jvp(jax.grad(lambda x: loss(form, x)), (x,), (v,))[1]

    expected = product(blurs.shifted_adds)
    for form in (*FORMS, blurs.blur):
        np.testing.assert_allclose(product(form), expected, rtol=1e-4, atol=1e-4)
