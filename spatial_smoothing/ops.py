"""Spatial smoothing as pure functions of arrays.

Contract of this file: feature maps are `[..., H, W, C]` (NHWC with any number of
leading axes) of any floating dtype; the result has the input's dtype, while sums are
accumulated in at least float32. Every function works under `jit`, `vmap`, `grad`,
`scan` and sharding, and is linear-time: blurs are shifted adds, because XLA compiles a
depthwise convolution to something many times slower.

Reference: Park & Kim, "Blurs Behave Like Ensembles: Spatial Smoothings to Improve
Accuracy, Uncertainty, and Robustness", ICML 2022, section 2.
"""

import math
import numbers
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp

from spatial_smoothing.lookup import lookup, unknown

PADDINGS = ("full", "zero", "reflect", "edge", "wrap")
"""Names that `blur` takes for `padding`; "same" is another name for "zero"."""

_PAD_MODES = {
    "zero": "constant",
    "same": "constant",
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}


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
    """
    _check_map(x)
    taps = tuple(float(tap) for tap in taps)
    if not taps or sum(taps) == 0 or not math.isfinite(sum(taps)):
        raise ValueError(
            f"taps {taps} cannot be normalised; give numbers with a non-zero sum"
        )
    weights = [tap / sum(taps) for tap in taps]
    y = x.astype(_accumulator(x))
    # All of two taps at once: one pass over memory less, and two for the gradient.
    for axes in [(-3, -2)] if len(taps) == 2 else [(-3,), (-2,)]:
        y = _correlate(_pad(y, len(taps), axes, padding), weights, axes)
    return y.astype(x.dtype)


def _pad(x: jax.Array, size: int, axes: Sequence[int], padding: str) -> jax.Array:
    """Adds to some axes what a kernel of `size` taps sees outside the map."""
    extra = size - 1
    if padding == "full":
        width, mode = (extra, extra), "constant"
    elif padding in _PAD_MODES:
        width, mode = (extra // 2, extra - extra // 2), _PAD_MODES[padding]
    else:
        raise unknown("padding", padding, PADDINGS)
    if mode == "reflect" and width[1] >= min(x.shape[axis] for axis in axes):
        raise ValueError(
            f"padding 'reflect' with {size} taps needs a map larger than {width[1]}, "
            f"got shape {x.shape}; use 'edge' or 'zero'"
        )
    widths = [(0, 0)] * x.ndim
    for axis in axes:
        widths[axis] = width
    return jnp.pad(x, widths, mode=mode)


def _correlate(
    x: jax.Array, weights: Sequence[float], axes: Sequence[int]
) -> jax.Array:
    """Correlates with the outer product of `weights` over `axes`, inside the map."""
    parts = [(1.0, x)]
    for axis in axes:
        size = x.shape[axis] - len(weights) + 1
        parts = [
            (factor * w, jax.lax.slice_in_dim(part, start, start + size, axis=axis))
            for factor, part in parts
            for start, w in enumerate(weights)
        ]
    if len(set(weights)) == 1:  # one product in place of one a tap
        return sum(part for _, part in parts) * parts[0][0]
    return sum(part * factor for factor, part in parts)


def scaled_tanh(x: jax.Array, temperature: float = 10.0) -> jax.Array:
    """Squashes to (-t, t): `t * tanh(x / t)`, the identity near zero.

    Args:
      x: Any shape, floating.
      temperature: t > 0, in the units of `x`.

    Returns:
      As `x`. Source: the "Prob" function of section 2.
    """
    return temperature * jnp.tanh(x / temperature)


def scaled_sigmoid(x: jax.Array, temperature: float = 10.0) -> jax.Array:
    """Squashes to (-2t, 2t): `4t * (sigmoid(x / t) - 1/2)`, slope one at zero.

    The same function as `scaled_tanh` at 2t. Arguments as there.
    """
    return 4 * temperature * (jax.nn.sigmoid(x / temperature) - 0.5)


def scaled_softmax(x: jax.Array, temperature: float = 10.0) -> jax.Array:
    """Shares t out over the channels: `t * softmax(x / t)` along the last axis.

    Arguments as `scaled_tanh`; the result is positive and sums to t.
    """
    return temperature * jax.nn.softmax(x / temperature, axis=-1)


def clip(x: jax.Array, temperature: float = 6.0) -> jax.Array:
    """Clips to [0, t]; ReLU6 at the default. Arguments as `scaled_tanh`."""
    return jnp.clip(x, 0, temperature)


def scale(x: jax.Array, temperature: float = 5.0) -> jax.Array:
    """Divides by t, with no bound. Arguments as `scaled_tanh`."""
    return x / temperature


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
      temperature: t > 0, in the units of `x`; None is the squash's own default, 10
        for "tanh".
      squash: "tanh", "sigmoid" and "softmax" (each rectified), "clip" (ReLU6-like),
        "scale" or "none".
      taps: One-dimensional kernel of `blur`; None for no blur.
      padding: See `blur`. The default is the paper's, which grows the map by one;
        the others make a different model.

    Returns:
      `[..., H+1, W+1, C]` by default, in the dtype of `x`.

    Raises:
      ValueError: for an unknown name, or unusable taps or temperature.

    Example:
      >>> smooth(jnp.ones((1, 8, 8, 16))).shape
      (1, 9, 9, 16)
    """
    _check_map(x)
    function, default = lookup(SQUASHES, squash, "squash")
    t = default if temperature is None else temperature
    if isinstance(t, numbers.Real) and not t > 0:
        raise ValueError(f"temperature must be positive, got {t}")
    y = function(x.astype(_accumulator(x)), t)
    y = y if taps is None else blur(y, taps, padding=padding)
    return y.astype(x.dtype)


def _accumulator(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _check_map(x: jax.Array) -> None:
    if jnp.ndim(x) < 3:
        raise ValueError(f"a feature map is [..., H, W, C], got shape {jnp.shape(x)}")
    chex.assert_type(x, float)
