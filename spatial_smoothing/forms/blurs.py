"""The blur of a feature map, in the form that suits the platform.

Contract of this file: all forms take and return the same, and agree to rounding. Each
is linear in the map, so that a gradient needs nothing of the map. The platform is the
one that a program is lowered for, and not the one it is traced on: programs that are
exported or compiled ahead of time have the right form too.

What the compilers say of `ops.smooth` of 128x32x32x64 in bfloat16, as a multiple of the
bytes of one read and one write (of the gradient: two reads and one write):

    platform   form               forward   gradient
    TPU v5e    shifted adds          2.94       4.80
               sums of windows       1.00       1.00
    H200       shifted adds          2.94       1.00
               narrow map            1.98       1.00
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.lookup import unknown

PADDINGS = ("full", "zero", "reflect", "edge", "wrap")
"""Names that `blur` takes for `padding`; "same" is another name for "zero"."""

_PAD_MODES = {
    "zero": "constant",
    "same": "constant",
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}


def blur(
    x: jax.Array, weights: Sequence[float], *, padding: str, dtype: jnp.dtype
) -> jax.Array:
    """Correlates with the outer product of `weights` with itself.

    Args:
      x: Feature map, `[..., H, W, C]`, floating, of `dtype` or wider.
      weights: k weights of the one-dimensional kernel, at least one.
      padding: What lies outside the map; see `ops.blur`.
      dtype: Type of the result. Sums are in at least float32.

    Returns:
      `[..., H, W, C]`, or `[..., H+k-1, W+k-1, C]` for "full".

    Raises:
      ValueError: for an unknown padding, or a map too small to reflect.
    """

    def of_form(form: Callable[..., jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return lambda x: form(x, weights, padding=padding, dtype=dtype)

    by_windows = len(set(weights)) == 1 and len(weights) > 1
    on_gpu = of_form(narrow_map)
    return jax.lax.platform_dependent(
        x,
        tpu=of_form(sums_of_windows if by_windows else shifted_adds),
        cuda=on_gpu,
        rocm=on_gpu,
        default=of_form(shifted_adds),
    )


def shifted_adds(
    x: jax.Array, weights: Sequence[float], *, padding: str, dtype: jnp.dtype
) -> jax.Array:
    """Adds up shifted maps: the form for CPUs, and for unequal weights on TPUs.

    Args:
      x: See `blur`, as for the other arguments and the result.
      weights: Weights of the kernel.
      padding: What lies outside the map.
      dtype: Type of the result.
    """
    y = x.astype(at_least_float32(x.dtype))
    for axes in _passes(weights):
        y = _correlate(_pad(y, len(weights), axes, padding), weights, axes)
    return y.astype(dtype)


def narrow_map(
    x: jax.Array, weights: Sequence[float], *, padding: str, dtype: jnp.dtype
) -> jax.Array:
    """Rounds the map to the type of the result, then adds up: the form for GPUs.

    The compiler for GPUs does not repeat a tanh for each tap: it writes the squashed
    map to memory, and blurs it in a second kernel. In float32 this map is as large as
    input and output together are in bfloat16.

    Args:
      x: See `blur`, as for the other arguments and the result.
      weights: Weights of the kernel.
      padding: What lies outside the map.
      dtype: Type of the result.
    """
    y = x.astype(dtype)
    for axes in _passes(weights):
        # The padding stands between the two conversions, which XLA removes where one
        # follows the other.
        padded = _pad(y, len(weights), axes, padding)
        y = _correlate(padded.astype(at_least_float32(y.dtype)), weights, axes)
    return y.astype(dtype)


def sums_of_windows(
    x: jax.Array, weights: Sequence[float], *, padding: str, dtype: jnp.dtype
) -> jax.Array:
    """Adds up windows: the form for equal weights on TPUs.

    Args:
      x: See `blur`, as for the other arguments and the result.
      weights: Weights of the kernel, all the same.
      padding: What lies outside the map.
      dtype: Type of the result.
    """
    size = len(weights)
    y = x.astype(at_least_float32(x.dtype))
    # Zeros outside the map cost nothing here; the others have to be written.
    if padding == "full":
        edges = (size - 1, size - 1)
    elif _PAD_MODES.get(padding) == "constant":
        edges = _edges(size)
    else:
        edges = (0, 0)
        y = _pad(y, size, (-3, -2), padding)
    leading = [(0, 0)] * (y.ndim - 3)
    y = jax.lax.reduce_window(
        y,
        np.zeros((), y.dtype),  # a known zero: sums can be differentiated, others not
        jax.lax.add,
        window_dimensions=(*[1] * len(leading), size, size, 1),
        window_strides=(1,) * y.ndim,
        padding=(*leading, edges, edges, (0, 0)),
    )
    return (y * weights[0] ** 2).astype(dtype)


def check_padding(padding: str) -> None:
    """Raises ValueError for a padding that `blur` does not know.

    Args:
      padding: Name of the padding.
    """
    if padding not in (*PADDINGS, *_PAD_MODES):
        raise unknown("padding", padding, PADDINGS)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the type to compute in: float64 for float64, else float32.

    `jnp.promote_types` is no help where JAX_NUMPY_DTYPE_PROMOTION is "strict".

    Args:
      dtype: Type of the values.
    """
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def _passes(weights: Sequence[float]) -> list[tuple[int, ...]]:
    """Returns the axes of each pass over the map, of -3 (rows) and -2 (columns)."""
    # A kernel of two taps is applied to both axes at once, which saves one pass over
    # memory, and two for the gradient. Longer ones are cheaper one axis at a time.
    return [(-3, -2)] if len(weights) == 2 else [(-3,), (-2,)]


def _edges(size: int) -> tuple[int, int]:
    """Returns how many values to add before and after, to preserve the size."""
    extra = size - 1
    return extra // 2, extra - extra // 2


def _pad(x: jax.Array, size: int, axes: Sequence[int], padding: str) -> jax.Array:
    """Adds to some axes what a kernel sees outside the map.

    Args:
      x: Feature map, `[..., H, W, C]`.
      size: Number of taps of the kernel.
      axes: Axes to pad, of -3 (rows) and -2 (columns).
      padding: See `ops.blur`.

    Returns:
      The map, longer along `axes` by `size - 1`, or `2 (size - 1)` for "full".
    """
    check_padding(padding)
    if padding == "full":
        width, mode = (size - 1, size - 1), "constant"
    else:
        width, mode = _edges(size), _PAD_MODES[padding]
    if mode == "reflect" and any(width[1] >= x.shape[axis] for axis in axes):
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
    """Correlates with the outer product of `weights` over `axes`, inside the map.

    Args:
      x: Padded feature map, `[..., H, W, C]`.
      weights: k weights of the kernel.
      axes: Axes of the kernel, of -3 (rows) and -2 (columns).

    Returns:
      The map, shorter along `axes` by k - 1.
    """
    # Pairs of a weight and the map shifted by one of the kernel's offsets.
    parts = [(1.0, x)]
    for axis in axes:
        size = x.shape[axis] - len(weights) + 1
        parts = [
            (factor * w, jax.lax.slice_in_dim(part, start, start + size, axis=axis))
            for factor, part in parts
            for start, w in enumerate(weights)
        ]
    if len(set(weights)) == 1:  # one product, not one for each tap
        return sum(part for _, part in parts) * parts[0][0]
    return sum(part * factor for factor, part in parts)
