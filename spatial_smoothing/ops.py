"""Spatial smoothing as pure functions of arrays.

Contract of this file: feature maps are `[..., H, W, C]` (NHWC with any number of
leading axes) of any floating dtype; the result has the input's dtype, while sums are
accumulated in at least float32. Every function works under `jit`, `vmap`, `grad`,
`scan`, sharding and export, and is linear-time. How a blur is computed depends on the
platform, and its result only to rounding; see `blurs`.

Reference: Park & Kim, "Blurs Behave Like Ensembles: Spatial Smoothings to Improve
Accuracy, Uncertainty, and Robustness", ICML 2022, section 2.
"""

import math
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.forms import blurs
from spatial_smoothing.lookup import lookup

PADDINGS = blurs.PADDINGS
"""Names that `blur` takes for `padding`; "same" is another name for "zero"."""

# Temperatures at which x / t would leave float32: there, squashing functions are their
# limits.
_LEAST = float(np.finfo(np.float32).tiny)
_INFINITE = 1e30


def box_blur(x: jax.Array, *, padding: str = "full") -> jax.Array:
    """Averages every 2x2 window with stride 1, zeros outside the map included.

    The paper's blur. With the default padding of one zero row on all four sides the
    map grows by one, borders are halved and corners quartered, and the sum over the
    map is conserved.

    Args:
      x: Feature map, `[..., H, W, C]`, floating.
      padding: "full" for the paper's layer, or a size-preserving mode of `blur`,
        which makes a different model.

    Returns:
      `[..., H+1, W+1, C]` for "full", else `[..., H, W, C]`, in the dtype of `x`.

    Raises:
      ValueError: for an unknown padding, or a map too small to reflect.
      AssertionError: for a map that is not floating.
    """
    return blur(x, (1, 1), padding=padding)


def blur(
    x: jax.Array, taps: Sequence[float] = (1, 2, 1), *, padding: str = "zero"
) -> jax.Array:
    """Blurs with the outer product of `taps` with itself, normalised to sum one.

    With k taps, the size-preserving modes pad `(k-1)//2` rows before and `k//2` after
    (columns alike), so that an even kernel looks further down and to the right.

    Args:
      x: Feature map, `[..., H, W, C]`, floating.
      taps: One-dimensional kernel, at least one number, with a non-zero sum.
      padding: What lies outside the map: "zero", "reflect" (edge not repeated),
        "edge" (edge repeated) or "wrap", each of which preserves the size; or "full",
        `k-1` zeros on every side, which grows the map to `H+k-1`.

    Returns:
      `[..., H, W, C]`, or `[..., H+k-1, W+k-1, C]` for "full", in the dtype of `x`.

    Raises:
      ValueError: for unusable taps, an unknown padding, or a map too small to reflect.
      AssertionError: for a map that is not floating.
    """
    x = _checked_map(x)
    return blurs.blur(x, _weights(taps), padding=padding, dtype=x.dtype)


def _weights(taps: Sequence[float]) -> tuple[float, ...]:
    """Returns taps that sum to one."""
    try:
        taps = tuple(float(tap) for tap in taps)
    except TypeError:
        raise ValueError(f"taps must be a sequence of numbers, got {taps!r}") from None
    total, size = sum(taps), sum(map(abs, taps))
    # What is left of a sum of zero by rounding, as of (0.1, 0.2, -0.3), is no sum.
    if not math.isfinite(size) or abs(total) <= 1e-9 * size:
        raise ValueError(
            f"taps {taps} cannot be normalised; give numbers with a non-zero sum"
        )
    return tuple(tap / total for tap in taps)


def scaled_tanh(x: jax.Array, temperature: float = 10.0) -> jax.Array:
    """Squashes to (-t, t): `t * tanh(x / t)`, the identity near zero.

    Args:
      x: Values, any shape, floating.
      temperature: t, positive, in the units of `x`; of infinity this is the identity.

    Returns:
      The squashed values, in the shape and dtype of `x`. Source: the "Prob" function of
      section 2.

    Raises:
      ValueError: for a temperature that is not positive.
      AssertionError: for values that are not floating.
    """
    x, t = _floating(x), _checked_temperature(temperature)
    if isinstance(t, float):
        return _scaled_tanh(x, t) if t < _INFINITE else x
    is_infinite = t >= _INFINITE
    finite = jnp.where(is_infinite, 1, t)
    return jnp.where(is_infinite, x, _scaled_tanh(x, finite))


def _scaled_tanh(x: jax.Array, temperature: float | jax.Array) -> jax.Array:
    wide = x.astype(at_least_float32(x.dtype))
    t = jnp.asarray(temperature, wide.dtype)
    return (t * jnp.tanh(wide / t)).astype(x.dtype)


def scaled_sigmoid(x: jax.Array, temperature: float = 10.0) -> jax.Array:
    """Squashes to (-2t, 2t): `4t * (sigmoid(x / t) - 1/2)`, slope one at zero.

    It is computed as `2t * tanh(x / 2t)`, which is the same function, and precise for
    large t too, where the difference from 1/2 would lose its digits.

    Args:
      x: Values, any shape, floating.
      temperature: t, positive, in the units of `x`; of infinity this is the identity.

    Returns:
      The squashed values, in the shape and dtype of `x`.

    Raises:
      ValueError: for a temperature that is not positive.
      AssertionError: for values that are not floating.
    """
    return scaled_tanh(x, 2 * _checked_temperature(temperature))


def scaled_softmax(x: jax.Array, temperature: float = 10.0) -> jax.Array:
    """Shares t out over the channels: `t * softmax(x / t)` along the last axis.

    Args:
      x: Values, `[..., C]`, floating.
      temperature: t, positive and finite, in the units of `x`.

    Returns:
      Positive values that sum to t over the channels, in the shape and dtype of `x`.

    Raises:
      ValueError: for a temperature that is not positive and finite.
      AssertionError: for values that are not floating.
    """
    x, t = _floating(x), _checked_temperature(temperature, must_be_finite=True)
    wide = x.astype(at_least_float32(x.dtype))
    t = jnp.asarray(t, wide.dtype)
    return (t * jax.nn.softmax(wide / t, axis=-1)).astype(x.dtype)


def clip(x: jax.Array, temperature: float = 6.0) -> jax.Array:
    """Clips to [0, t]; ReLU6 at the default.

    Args:
      x: Values, any shape, floating.
      temperature: t, positive, in the units of `x`; of infinity this is ReLU.

    Returns:
      The clipped values, in the shape and dtype of `x`.

    Raises:
      ValueError: for a temperature that is not positive.
      AssertionError: for values that are not floating.
    """
    x, t = _floating(x), _checked_temperature(temperature)
    wide = x.astype(at_least_float32(x.dtype))
    if isinstance(t, float) and t >= _INFINITE:
        t = math.inf  # it may be too large for float32
    # The values are those of `jnp.clip`, whose gradient at 0 is a half: that of a ReLU,
    # behind which many values are 0, is none.
    rectified = jax.nn.relu(wide)
    return jnp.minimum(rectified, jnp.asarray(t, wide.dtype)).astype(x.dtype)


def scale(x: jax.Array, temperature: float = 5.0) -> jax.Array:
    """Divides by t, with no bound.

    Args:
      x: Values, any shape, floating.
      temperature: t, positive and finite.

    Returns:
      `x / t`, in the shape and dtype of `x`.

    Raises:
      ValueError: for a temperature that is not positive and finite.
      AssertionError: for values that are not floating.
    """
    x, t = _floating(x), _checked_temperature(temperature, must_be_finite=True)
    wide = x.astype(at_least_float32(x.dtype))
    return (wide / jnp.asarray(t, wide.dtype)).astype(x.dtype)


# Name -> (function applied before the blur, its default temperature). The bounded
# ones are rectified, the linear ones are not: so the reference's blocks do it.
SQUASHES: dict[str, tuple[Callable[[jax.Array, float], jax.Array], float]] = {
    "tanh": (lambda x, t: jax.nn.relu(scaled_tanh(x, t)), 10.0),
    "sigmoid": (lambda x, t: jax.nn.relu(scaled_sigmoid(x, t)), 10.0),
    "softmax": (scaled_softmax, 10.0),
    "clip": (clip, 6.0),
    "scale": (scale, 5.0),
    "none": (lambda x, t: x, 1.0),
}


def smooth(
    x: jax.Array,
    temperature: float | None = None,
    *,
    squash: str = "tanh",
    taps: Sequence[float] | None = (1, 1),
    padding: str = "full",
) -> jax.Array:
    """Spatial smoothing: `box_blur(relu(t * tanh(x / t)))`.

    Averages neighbouring points of a feature map, which ensembles their predictions.

    Args:
      x: Feature map, `[..., H, W, C]`, floating.
      temperature: t, positive, in the units of `x`; None is the squash's own default,
        10 for "tanh". Infinity makes "tanh" and "sigmoid" the identity (before they are
        rectified) and "clip" ReLU; "softmax" and "scale" refuse it.
      squash: "tanh", "sigmoid" and "softmax" (each rectified), "clip" (ReLU6-like),
        "scale" or "none".
      taps: One-dimensional kernel of `blur`; None for no blur.
      padding: See `blur`. The default is the paper's, which grows the map by one;
        the others make a different model.

    Returns:
      `[..., H+1, W+1, C]` by default, in the dtype of `x`.

    Raises:
      ValueError: for an unknown name, or unusable taps or temperature.
      AssertionError: for a map that is not floating.

    Example:
      >>> smooth(jnp.ones((1, 8, 8, 16))).shape
      (1, 9, 9, 16)
    """
    x = _checked_map(x)
    function, default = lookup(SQUASHES, squash, "squash")
    t = _checked_temperature(default if temperature is None else temperature)
    # The squashed map is not rounded here: only some platforms gain from that.
    y = function(x.astype(at_least_float32(x.dtype)), t)
    if taps is None:
        blurs.check_padding(padding)
        return y.astype(x.dtype)
    return blurs.blur(y, _weights(taps), padding=padding, dtype=x.dtype)


at_least_float32 = blurs.at_least_float32


def _checked_temperature(
    temperature: float | jax.Array, *, must_be_finite: bool = False
) -> float | jax.Array:
    """Returns a temperature, as a float if it is a number that is known now.

    Raises:
      ValueError: It is not positive. Of one that is traced this is not known.
    """
    if isinstance(temperature, jax.core.Tracer):
        return temperature
    try:
        t = np.asarray(temperature, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"temperature must be a number, got {temperature!r}") from None
    # A smaller one would be 0 in float32, and 0 / 0 is NaN.
    if not np.all(t >= _LEAST):
        limit = f", at least {_LEAST:.2g}" if np.all(t > 0) else ""
        raise ValueError(f"temperature must be positive{limit}, got {temperature}")
    if must_be_finite and not np.all(t < _INFINITE):
        raise ValueError(f"temperature must be finite, got {temperature}")
    return temperature if t.ndim else float(t)


def _floating(x: jax.Array) -> jax.Array:
    """Returns an array; AssertionError if it is not floating."""
    x = jnp.asarray(x)
    # The result has the type of `x`, and whole numbers would be rounded to 0.
    chex.assert_type(x, float)
    return x


def _checked_map(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    if x.ndim < 3:
        raise ValueError(f"a feature map is [..., H, W, C], got shape {x.shape}")
    return _floating(x)
