import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from jax.test_util import check_grads

import spatial_smoothing as ss
from spatial_smoothing import ops

GOLDEN = golden.arrays("ops")
SCIPY_MODES = {"zero": "constant", "reflect": "mirror", "edge": "nearest"} | {
    "same": "constant",
    "wrap": "grid-wrap",
}
TAPS = [(1,), (1, 1), (1, 3), (3, 1, 2), (1, 5, 2, 7)]

modes = pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])


def feature_map(shape=(2, 7, 8, 5), *, seed=0, scale=1.0, dtype=np.float32):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def assert_close(actual, expected, *, tolerance=2e-6):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def nhwc(array):
    return array.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("case", [k for k in GOLDEN if k.startswith("blur/")])
def test_blur_equals_golden_values(case):
    _, taps, padding = case.split("/")
    taps = [int(tap) for tap in taps.split("-")]
    actual = ss.blur(nhwc(GOLDEN["input"]), taps, padding=padding)
    assert_close(actual, nhwc(GOLDEN[case]))


@pytest.mark.parametrize("case", [k for k in GOLDEN if k.startswith("smooth/")])
def test_smooth_equals_golden_values(case):
    _, squash, temperature = case.split("/")
    temperature = None if temperature == "default" else float(temperature)
    actual = ss.smooth(8 * nhwc(GOLDEN["input"]), temperature, squash=squash)
    assert_close(actual, nhwc(GOLDEN[case]))


def correlated(x, taps, padding):
    """`blur` by SciPy, in the type of `x`."""
    # SciPy would cast what it has not written yet, if the types were different.
    weights = (np.asarray(taps) / np.sum(taps)).astype(x.dtype)
    if padding == "full":
        kernel = np.outer(weights, weights)[None, :, :, None]
        return scipy.signal.correlate(x, kernel, mode="full", method="direct")
    # For an even number of taps SciPy looks further up, `blur` further down.
    origin = -1 if len(taps) % 2 == 0 else 0
    for axis in (1, 2):
        x = scipy.ndimage.correlate1d(
            x, weights, axis, mode=SCIPY_MODES[padding], origin=origin
        )
    return x


@modes
@pytest.mark.parametrize("padding", [*ops.PADDINGS, "same"])
@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_blur_equals_scipy(taps, padding, mode):
    x = feature_map()
    blur = mode(functools.partial(ss.blur, taps=taps, padding=padding))
    assert_close(blur(x), correlated(x.astype(np.float64), taps, padding))


@modes
def test_box_blur_averages_every_window(mode):
    x = feature_map()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.empty((2, 8, 9, 5))
    for row in range(8):
        for column in range(9):
            window = padded[:, row : row + 2, column : column + 2]
            expected[:, row, column] = window.mean((1, 2))
    assert_close(mode(ss.box_blur)(x), expected)


def test_box_blur_keeps_the_sum_and_weakens_borders():
    x = feature_map()
    assert_close(ss.box_blur(x).sum((1, 2)), x.sum((1, 2)), tolerance=1e-5)
    ones = ss.box_blur(jnp.ones((3, 4, 1)))[..., 0]
    rows, columns = np.ones(4), np.ones(5)
    rows[[0, -1]] = columns[[0, -1]] = 0.5
    np.testing.assert_array_equal(ones, np.outer(rows, columns))


@pytest.mark.parametrize("padding", ops.PADDINGS)
def test_blur_is_linear(padding):
    x, y = feature_map(seed=1), feature_map(seed=2)
    blur = functools.partial(ss.blur, taps=(1, 3, 2), padding=padding)
    assert_close(blur(2 * x - 3 * y), 2 * blur(x) - 3 * blur(y), tolerance=1e-5)


def test_blur_keeps_constants_and_shifts_where_there_is_no_border():
    for padding in ("reflect", "edge", "wrap"):
        assert_close(ss.blur(jnp.ones((4, 5, 2)), padding=padding), np.ones((4, 5, 2)))
    x = feature_map()
    rolled = ss.blur(np.roll(x, (2, 3), (1, 2)), (1, 3, 3, 1), padding="wrap")
    assert_close(
        rolled, np.roll(ss.blur(x, (1, 3, 3, 1), padding="wrap"), (2, 3), (1, 2))
    )


def test_receptive_field_is_a_window_of_two():
    point = lambda x: ss.box_blur(x)[0, 3, 4, 2]
    expected = np.zeros((1, 7, 8, 5))
    expected[0, 2:4, 3:5, 2] = 0.25
    np.testing.assert_array_equal(jax.grad(point)(jnp.ones((1, 7, 8, 5))), expected)


def test_gradient_of_box_blur_averages_windows_of_the_cotangent():
    cotangent = feature_map((2, 8, 9, 5), seed=1)
    actual = jax.vjp(ss.box_blur, feature_map())[1](cotangent)[0]
    windows = np.lib.stride_tricks.sliding_window_view(cotangent, (2, 2), (1, 2))
    assert_close(actual, windows.mean((-1, -2)))


@pytest.mark.parametrize("padding", ops.PADDINGS)
@pytest.mark.usefixtures("x64")
def test_gradient_of_blur_is_its_adjoint(padding):
    x = feature_map((1, 5, 6, 2), dtype=np.float64)
    taps = (1, 5, 2, 7)
    cotangent = feature_map(correlated(x, taps, padding).shape, seed=1, dtype=float)
    gradient = jax.vjp(lambda x: ss.blur(x, taps, padding=padding), x)[1](cotangent)[0]
    expected = np.vdot(correlated(x, taps, padding), cotangent)
    np.testing.assert_allclose(np.vdot(x, gradient), expected, rtol=1e-12)


@modes
def test_smooth_is_box_blur_of_a_rectified_tanh(mode):
    x = feature_map(scale=20)
    for temperature in (10.0, 2.5):
        squashed = np.maximum(temperature * np.tanh(x / temperature), 0)
        smooth = mode(functools.partial(ss.smooth, temperature=temperature))
        assert_close(smooth(x), correlated(squashed, (1, 1), "full"), tolerance=5e-6)
    np.testing.assert_array_equal(ss.smooth(x), ss.smooth(x, 10.0))


SQUASHED = {
    "tanh": lambda x, t: np.maximum(t * np.tanh(x / t), 0),
    "sigmoid": lambda x, t: np.maximum(4 * t * (1 / (1 + np.exp(-x / t)) - 0.5), 0),
    "softmax": lambda x, t: t * np.exp(x / t) / np.exp(x / t).sum(-1, keepdims=True),
    "clip": lambda x, t: np.minimum(np.maximum(x, 0), t),
    "scale": lambda x, t: x / t,
    "none": lambda x, t: x,
}


DEFAULTS = {"tanh": 10, "sigmoid": 10, "softmax": 10, "clip": 6, "scale": 5, "none": 1}


@pytest.mark.usefixtures("x64")
def test_squashes_equal_numpy():
    assert set(SQUASHED) == set(ops.SQUASHES)
    x = feature_map(scale=8, dtype=np.float64)
    for squash, expected in SQUASHED.items():
        for given, temperature in ((1.5, 1.5), (7.0, 7.0), (None, DEFAULTS[squash])):
            actual = ss.smooth(x, given, squash=squash, taps=None)
            assert_close(actual, expected(x, temperature), tolerance=1e-13)


@pytest.mark.usefixtures("x64")
def test_sigmoid_is_tanh_at_twice_the_temperature():
    x = feature_map(scale=30, dtype=np.float64)
    assert_close(ops.scaled_sigmoid(x, 4.0), ss.scaled_tanh(x, 8.0), tolerance=1e-12)
    assert jax.grad(ops.scaled_sigmoid)(0.0) == jax.grad(ss.scaled_tanh)(0.0) == 1


@pytest.mark.usefixtures("x64")
def test_gradient_of_smooth():
    x = feature_map((2, 3, 2), scale=8, dtype=np.float64)
    assert np.abs(x).min() > 1e-2  # finite differences stay off the kink
    check_grads(ss.smooth, (x, 5.0), order=1, modes=["fwd", "rev"], eps=1e-4)
    slope = jax.grad(lambda x: ss.smooth(x, 5.0).sum())(x)
    assert_close(slope, (x > 0) / np.cosh(x / 5) ** 2, tolerance=1e-12)


def test_smoothing_below_global_average_pooling_is_a_constant_factor():
    x = feature_map((2, 4, 6, 3), scale=8)
    pooled = np.maximum(10 * np.tanh(x / 10), 0).mean((1, 2))
    assert_close(ss.smooth(x).mean((1, 2)), pooled * (4 * 6) / (5 * 7))


def test_bfloat16_is_accumulated_in_float32():
    x = jnp.asarray(feature_map((1, 9, 9, 3), scale=5), jnp.bfloat16)
    wide = x.astype(jnp.float32)
    for function in (ss.box_blur, ss.smooth, lambda x: ss.blur(x, (1, 4, 6, 4, 1))):
        assert function(x).dtype == jnp.bfloat16
        np.testing.assert_array_equal(function(x), function(wide).astype(jnp.bfloat16))
    # Lost one by one in bfloat16, whose next number after 256 is 258.
    ones = jnp.ones((1, 1, 1), jnp.bfloat16)
    column = jnp.concatenate([ones * 256, ones, ones, ones, ones])
    assert ss.blur(column, (1, 1, 1, 1, 1))[2] * 25 == 260


@pytest.mark.usefixtures("x64")
def test_float64_stays_float64():
    x = feature_map(dtype=np.float64)
    assert ss.smooth(x).dtype == np.float64
    assert_close(ss.blur(x), correlated(x, (1, 2, 1), "zero"), tolerance=1e-15)
    assert ss.smooth(x.astype(np.float32)).dtype == np.float32


def test_leading_axes_vmap_and_scan_agree():
    x = feature_map((3, 2, 4, 5, 2), scale=8)
    expected = np.stack([np.stack([ss.smooth(image) for image in row]) for row in x])
    assert_close(ss.smooth(x), expected)
    assert_close(jax.vmap(ss.smooth)(x), expected)
    assert_close(jax.lax.map(ss.smooth, x), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ss.blur(x, ()), r"taps \(\) cannot be normalised; give numbers"),
        (lambda x: ss.blur(x, (1, -1)), r"taps \(1.0, -1.0\) cannot be normalised"),
        (lambda x: ss.blur(x, (1, np.nan)), r"taps \(1.0, nan\) cannot be normalised"),
        (lambda x: ss.blur(x, (0.1, 0.2, -0.3)), "cannot be normalised; give numbers"),
        (lambda x: ss.blur(x, 3), "taps must be a sequence of numbers, got 3"),
        (lambda x: ss.smooth(x, np.float32(0)), "temperature must be positive, got 0"),
        (lambda x: ss.smooth(x, "warm"), "temperature must be a number, got 'warm'"),
        (lambda x: ss.smooth(x, taps=None, padding="edges"), "unknown padding 'edges'"),
        (
            lambda x: ss.blur(x, padding="edges"),
            "unknown padding 'edges'; did you mean 'edge'\\? choices: full, zero",
        ),
        (
            lambda x: ss.blur(x, (1, 1, 1, 1, 1), padding="reflect"),
            r"padding 'reflect' with 5 taps needs a map larger than 2, got shape "
            r"\(2, 2, 3\); use 'edge' or 'zero'",
        ),
        (lambda x: ss.smooth(x, 0), "temperature must be positive, got 0"),
        (lambda x: ss.smooth(x, -2.0), "temperature must be positive, got -2.0"),
        (lambda x: ss.smooth(x, float("nan")), "temperature must be positive, got nan"),
        (lambda x: ss.smooth(x, squash="tan"), "unknown squash 'tan'; did you mean"),
        (lambda x: ss.smooth(x[0]), r"\[..., H, W, C\], got shape \(2, 3\)"),
        (lambda x: ss.box_blur(x[0]), r"\[..., H, W, C\], got shape \(2, 3\)"),
    ],
)
def test_mistakes_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 2, 3)))


@modes
@pytest.mark.parametrize("temperature", [np.inf, 1e39, 1e35, 1e8])
def test_an_infinite_temperature_is_the_identity(mode, temperature):
    x = feature_map(scale=5)
    for squash, expected in (
        ("tanh", np.maximum(x, 0)),
        ("sigmoid", np.maximum(x, 0)),
        ("clip", np.maximum(x, 0)),
        ("none", x),
    ):
        smooth = functools.partial(ss.smooth, squash=squash, taps=None)
        fixed = functools.partial(smooth, temperature=temperature)
        assert_close(mode(fixed)(x), expected)
        with np.errstate(over="ignore"):
            given = np.float32(temperature)
        assert_close(mode(smooth)(x, temperature=given), expected)
    for function in (ss.scaled_tanh, ops.scaled_sigmoid):
        assert_close(function(x.astype(np.float16), temperature), np.float16(x))
        slope = jax.grad(lambda x: function(x, temperature).sum())(x)  # noqa: B023
        np.testing.assert_allclose(slope, np.ones_like(x), rtol=1e-6)


@pytest.mark.parametrize("squash", ["softmax", "scale"])
def test_an_infinite_temperature_without_a_limit_is_refused(squash):
    for temperature in (np.inf, jnp.float32(np.inf)):
        with pytest.raises(ValueError, match="temperature must be finite, got inf"):
            ss.smooth(feature_map(), temperature, squash=squash)
    with pytest.raises(ValueError, match=r"positive, at least 1\.2e-38, got 1e-50"):
        ss.smooth(feature_map(), 1e-50)


SQUASHING = (
    *(ss.scaled_tanh, ops.scaled_sigmoid, ops.scaled_softmax, ops.clip, ops.scale),
)


@pytest.mark.parametrize("function", [ss.smooth, *SQUASHING])
def test_whole_numbers_are_refused(function):
    with pytest.raises(AssertionError, match=r"type int32 but expected.*float"):
        function(jnp.ones((2, 2, 3), jnp.int32))


def test_a_half_is_a_temperature():
    x = feature_map()
    assert_close(ss.smooth(x, np.float16(5)), ss.smooth(x, 5.0))


@pytest.mark.parametrize("temperature", [np.inf, 6.0])
def test_the_gradient_of_clip_is_that_of_relu(temperature):
    x = jnp.array([-1.0, 0.0, 2.0, 7.0])
    slope = jax.grad(lambda x: ops.clip(x, temperature).sum())(x)
    last = 1 if temperature == np.inf else 0
    np.testing.assert_array_equal(slope, [0, 0, 1, last])
