"""Normalisation by the statistics of a batch, in the form that suits the platform.

Contract of this file: both forms take and return the same, and agree to rounding. The
platform is the one that a program is lowered for, and not the one it is traced on:
programs that are exported or compiled ahead of time have the right form too.

On a CPU the variance takes a second pass over the map, around the mean of the first. On
TPUs and GPUs a pass over memory is what costs time. There the sums of the values and of
their squares are taken in one pass, which a TPU makes while the convolution before it
writes its result, and the gradient has two sums over the map in place of four. By the
compiler, a training step of a network with one residual block on one TPU v5e (128
images of 32x32, 64 channels, bfloat16) moves 0.47 GB in place of 0.57 GB.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Normalized(NamedTuple):
    """A normalised batch, and its statistics.

    Attributes:
      values: f[B, ..., C], the result, of the type that was asked for.
      mean: f[C], mean of each channel over the examples in the mask.
      var: f[C], their biased variance.
      count: f[], number of values that they were taken over.
    """

    values: jax.Array
    mean: jax.Array
    var: jax.Array
    count: jax.Array


class Options(NamedTuple):
    """What is known of a normalisation before its arrays are.

    Attributes:
      epsilon: Is added to the variance before its root is taken, above 0.
      relu: Whether the result is rectified.
      compute_dtype: Type of the statistics, float32 or float64.
      dtype: Type of the result.
    """

    epsilon: float
    relu: bool
    compute_dtype: jnp.dtype
    dtype: jnp.dtype


class Uses(NamedTuple):
    """The same batch for each of its uses, f[B, ..., C], in the type to compute in."""

    values: jax.Array
    variance: jax.Array
    mean: jax.Array


def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array,
    near: jax.Array,
    options: Options,
) -> Normalized:
    """Returns `(x - mean) / sqrt(var + epsilon) * scale + bias` for each channel.

    Args:
      x: f[B, ..., C], the batch.
      scale: f32[C], factor of each channel.
      bias: f32[C], what is added to each channel.
      mask: bool[B], the examples that count in the statistics.
      near: f32[C], a guess of the mean, such as the running mean. It changes no more
        than the rounding, and is not differentiated.
      options: Types, epsilon, and whether to rectify.
    """
    # bfloat16 has 8 bits; see `one_pass`.
    near = None if x.dtype != jnp.bfloat16 else jax.lax.stop_gradient(near)
    # The map is given once for each use. Its cotangents then add up, with those of its
    # other uses in the network, in the order that they have without a choice of forms:
    # the bits of training on a CPU depend on it.
    wide = x.astype(options.compute_dtype)
    return _chosen(Uses(wide, wide, wide), scale, bias, mask, near, options)


# Networks have many layers of the same shape. JAX traces and differentiates a function
# of `jax.jit` once for all of them; with `inline`, the program is the same as without.
@functools.partial(jax.jit, static_argnames="options", inline=True)
def _chosen(
    uses: "Uses",
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array,
    near: jax.Array | None,
    options: Options,
) -> Normalized:
    """Applies the form of the platform; see `normalize` and `two_passes`."""
    return jax.lax.platform_dependent(
        uses,
        scale,
        bias,
        mask,
        near,
        cpu=lambda *arrays: two_passes(*arrays, options),
        default=lambda *arrays: one_pass(*arrays, options),
    )


def two_passes(
    uses: Uses,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array,
    near: jax.Array | None,
    options: Options,
) -> Normalized:
    """The form for CPUs. Arguments and result are those of `normalize`, except `uses`.

    Args:
      uses: The batch.
      scale: Factor of each channel.
      bias: What is added to each channel.
      mask: The examples that count.
      near: Is not used.
      options: See `Options`.
    """
    count = _count(uses.mean, mask)

    def mean_of(values: jax.Array) -> jax.Array:
        # Examples one by one, then the mask: no masked copy of the map is made.
        each = values.sum(tuple(range(1, values.ndim - 1)))
        return (each * mask[:, None].astype(each.dtype)).sum(0) / count

    mean = mean_of(uses.mean)
    var = mean_of(jnp.square(uses.variance - row(mean, uses.variance)))
    factor = factor_of(scale, var, epsilon=options.epsilon, dtype=options.compute_dtype)
    values = affine(uses.values, mean, factor, bias, options)
    return Normalized(values, mean, var, count)


def one_pass(
    uses: Uses,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array,
    near: jax.Array | None,
    options: Options,
) -> Normalized:
    """The form for TPUs and GPUs. Arguments and result are those of `normalize`.

    The variance is `mean((x - near)^2) - mean(x - near)^2`. It loses as many digits as
    the square of `mean(x - near)` is larger than it. A bfloat16 has 8 bits, so that
    values which are not all the same differ by at least 1/256 of their size: float32
    has enough digits for any guess. The running mean is one that a TPU knows before it
    computes the map, so that it can add up what the convolution returns. Values of
    other types may be closer together. There the guess is the mean of the batch at one
    position, which costs one more reading on a TPU, and next to nothing on a GPU.

    Args:
      uses: The batch.
      scale: Factor of each channel.
      bias: What is added to each channel.
      mask: The examples that count.
      near: A guess of the mean for values that were bfloat16; None for others.
      options: See `Options`.
    """
    x = uses.values
    count = _count(x, mask)
    weights = mask.astype(x.dtype) / count
    if near is None:
        near = jax.lax.stop_gradient(_mean_of_first_position(x, mask))
    mean, var = _moments(uses.mean, near.astype(x.dtype), weights)
    # The mean is subtracted as a constant, and a zero that has its derivative is added
    # to the bias: a sum over the cotangents less than where the map is subtracted from.
    center = jax.lax.stop_gradient(mean)
    factor = scale.astype(x.dtype) * jax.lax.rsqrt(var + options.epsilon)
    bias = bias.astype(x.dtype) - factor * (mean - center)
    values = row(factor, x) * (x - row(center, x)) + row(bias, x)
    # Rectified before it is rounded: the compiler for GPUs then keeps the sign beside
    # the value. The other way round it writes the gradient once more.
    values = jax.nn.relu(values) if options.relu else values
    return Normalized(values.astype(options.dtype), mean, var, count)


def affine(
    x: jax.Array,
    mean: jax.Array,
    factor: jax.Array,
    bias: jax.Array,
    options: Options,
) -> jax.Array:
    """Returns `factor * (x - mean) + bias` for each channel.

    Args:
      x: f[B, ..., C], the batch, in the type to compute in.
      mean: f[C], mean of each channel.
      factor: f[C], what each channel is multiplied by; see `factor_of`.
      bias: f32[C], what is added to each channel.
      options: See `Options`.

    Returns:
      f[B, ..., C], in the type of the result.
    """
    # In the type of `x`, which is wider than that of the parameters if it differs.
    mean, factor, bias = (v.astype(x.dtype) for v in (mean, factor, bias))
    values = row(factor, x) * (x - row(mean, x)) + row(bias, x)
    values = values.astype(options.dtype)
    return jax.nn.relu(values) if options.relu else values


def factor_of(
    scale: jax.Array, var: jax.Array, *, epsilon: float, dtype: jnp.dtype
) -> jax.Array:
    """Returns `scale / sqrt(var + epsilon)`, what each channel is multiplied by.

    Args:
      scale: f32[C], factor of each channel.
      var: f[C], variance of each channel.
      epsilon: Is added to the variance before its root is taken, above 0.
      dtype: Type to compute in and of the result, float32 or float64.
    """
    return scale.astype(dtype) * jax.lax.rsqrt(var.astype(dtype) + epsilon)


def row(values: jax.Array, x: jax.Array) -> jax.Array:
    """Gives `values[C]` the rank of `x`.

    Args:
      values: f[C], a value for each channel.
      x: f[B, ..., C], a batch.
    """
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


@jax.custom_jvp
def _moments(
    x: jax.Array, near: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance of each channel, f[C], in one pass.

    Args:
      x: f[B, ..., C], the batch.
      near: f[C], a guess of the mean.
      weights: f[B], what each value of an example counts; their sum over all values
        is one.
    """
    shifted = x - row(near, x)
    offset = _weighted_sum(shifted, weights)
    square = _weighted_sum(jnp.square(shifted), weights)
    return near + offset, jnp.maximum(square - jnp.square(offset), 0)


@_moments.defjvp
def _moments_jvp(primals, tangents):
    # The derivative of the variance by its definition: that of the difference above
    # would lose digits too. A guess and weights have no tangents here.
    x, near, weights = primals
    x_dot, _, _ = tangents
    mean, var = _moments(x, near, weights)
    var_dot = 2 * _weighted_sum((x - row(mean, x)) * x_dot, weights)
    return (mean, var), (_weighted_sum(x_dot, weights), var_dot)


def _weighted_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Sums each channel of f[B, ..., C] with weights f[B]."""
    weights = weights.reshape(weights.shape + (1,) * (x.ndim - 1))
    return (x * weights).sum(tuple(range(x.ndim - 1)))


def _mean_of_first_position(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean over the examples in the mask, f[C], of the first pixel."""
    # All examples, and not one of them: on several devices this is a sum, which is
    # moved as the other statistics are, and no broadcast from the device that has it.
    first = x.reshape(x.shape[0], -1, x.shape[-1])[:, 0]
    weights = mask.astype(x.dtype)
    return (first * weights[:, None]).sum(0) / weights.sum()


def _count(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the number of values of each channel that are in the mask."""
    return mask.sum(dtype=x.dtype) * (x[0].size // x.shape[-1])
