"""Flax Linen modules over `ops`, and the layers that the networks are made of.

Contract of this file: feature maps are NHWC; parameters and batch statistics are
float32 whatever the compute type `dtype` is (None: that of the inputs and parameters
together). Initial values, epsilon, momentum and padding are the reference's, that is
PyTorch's defaults, so that training starts from the same distribution.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from spatial_smoothing import ops
from spatial_smoothing.forms import batch_statistics

Function = Callable[[jax.Array], jax.Array]

# Uniform in +-1/sqrt(fan_in): variance 1 / (3 fan_in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

EPSILON = 1e-5  # of norms, unless they are given another one
FACTOR = "factor"  # what `precomputed` adds to the statistics of a norm
_HEAD = "head"  # the module of a network that makes logits, in at least float32


class SpatialSmoothing(nn.Module):
    """Spatial smoothing as a layer without parameters; see `ops.smooth`.

    Put it after a stage of a network, before the next subsampling. By default an HxW
    map becomes (H+1)x(W+1).

    Attributes:
      temperature: Scale t > 0 of the squashing function; None for its own default.
      squash: "tanh", "sigmoid", "softmax", "clip", "scale" or "none".
      taps: One-dimensional blur kernel; None for no blur.
      padding: "full" (the paper's), or "zero", "reflect", "edge", "wrap", which
        preserve the size and make a different model.
      norm: Constructor of a normalisation layer to put first, called as
        `norm(name="norm")`; None for none.
    """

    temperature: float | None = None
    squash: str = "tanh"
    taps: Sequence[float] | None = (1, 1)
    padding: str = "full"
    norm: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Smooths a map `[..., H, W, C]`."""
        if self.norm is not None:
            x = self.norm(name="norm")(x)
        return ops.smooth(
            x,
            self.temperature,
            squash=self.squash,
            taps=self.taps,
            padding=self.padding,
        )


class BatchNorm(nn.Module):
    """Batch normalisation that stores the unbiased variance and can leave out padding.

    Differs from `flax.linen.BatchNorm`, whose variable names it keeps, in the running
    variance, which is scaled by n / (n - 1) as in PyTorch. Statistics are those of the
    logical batch: under `jit` over a mesh they span all devices.

    Attributes:
      use_running_average: Whether to normalise by the running statistics, as in
        evaluation, and not by those of the batch.
      mask: bool[B], the examples that count in the statistics; None for all.
      momentum: Weight of the old running statistics, in [0, 1].
      epsilon: Is added to the variance before its root is taken.
      dtype: Type of the result; statistics are computed in at least float32.
      relu: Whether the result is rectified. Values are those of a ReLU behind the
        layer; accelerators need fewer bytes for the gradient.
    """

    use_running_average: bool
    mask: jax.Array | None = None
    momentum: float = 0.9
    epsilon: float = EPSILON
    dtype: Any = None
    relu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `[B, ..., C]` per channel; ValueError if the mask is not [B]."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        # The types are said because under JAX_ENABLE_X64 the default is float64.
        typed = (shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, *typed)
        running_var = self.variable("batch_stats", "var", jnp.ones, *typed)
        wide = ops.at_least_float32(x.dtype)
        options = batch_statistics.Options(
            self.epsilon, self.relu, compute_dtype=wide, dtype=self.dtype or wide
        )
        if self.use_running_average:
            if self.has_variable("batch_stats", FACTOR) and self.epsilon == EPSILON:
                factor = self.get_variable("batch_stats", FACTOR)  # of `precomputed`
            else:
                factor = batch_statistics.factor_of(
                    scale, running_var.value, epsilon=self.epsilon, dtype=wide
                )
            mean = running_mean.value
            return batch_statistics.affine(x.astype(wide), mean, factor, bias, options)
        mask = jnp.ones(len(x), bool) if self.mask is None else jnp.asarray(self.mask)
        # Of another length it could be broadcast, and statistics would be wrong.
        if mask.shape != x.shape[:1] or not len(x):
            raise ValueError(
                "batch statistics need a batch of at least one example and a mask "
                f"[B], got shapes {list(x.shape)} and {list(mask.shape)}"
            )
        normalized = batch_statistics.normalize(
            x, scale, bias, mask, running_mean.value, options
        )
        if not self.is_initializing():
            count = normalized.count
            unbiased = normalized.var * count / jnp.maximum(count - 1, 1)
            self._update(running_mean, normalized.mean)
            self._update(running_var, unbiased)
        return normalized.values

    def _update(self, running: nn.Variable, value: jax.Array) -> None:
        """Moves a running statistic towards the value of a batch; its type stays."""
        old, new = self.momentum, 1 - self.momentum
        wide = old * running.value.astype(value.dtype) + new * value
        running.value = wide.astype(running.value.dtype)


class Dense(nn.Module):
    """A dense layer with the reference's initial values, in at least float32.

    Attributes:
      features: Number of values of the result.
      use_bias: Whether a bias is added.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, F]` to `[B, features]`."""
        bound = x.shape[-1] ** -0.5
        shape = (x.shape[-1], self.features)
        # The type is said because under JAX_ENABLE_X64 the default is float64.
        kernel = self.param("kernel", uniform_fan_in, shape, jnp.float32)
        dtype = ops.at_least_float32(x.dtype)
        y = x.astype(dtype) @ kernel.astype(dtype)
        if not self.use_bias:
            return y
        bias = self.param(
            "bias",
            lambda key, shape, dtype: (
                jax.random.uniform(key, shape, dtype, minval=-1, maxval=1) * bound
            ),
            (self.features,),
            jnp.float32,
        )
        return y + batch_statistics.row(bias.astype(dtype), y)


def _dense(features: int, *, last: bool = False, name: str | None = None) -> Dense:
    """Returns a dense layer; whether it is the last one makes no difference to it."""
    return Dense(features, name=name)


def _no_dropout(**options: float) -> Function:
    return lambda x: x


class Layers(NamedTuple):
    """Layer constructors with the mode of a network bound, for its blocks to use.

    Attributes:
      conv: Returns a convolution; see `bind`.
      norm: Returns a batch normalisation.
      dropout: Returns the dropout of the place that the paper gives it.
      conv_transpose: Returns a transposed convolution; see `bind`.
      more_dropout: Returns the dropout of all other places; an identity unless the
        network has dropout everywhere.
      dense: Returns a dense layer, which is told whether it is the last one.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dropout: Callable[..., Function]
    conv_transpose: Callable[..., nn.Module]
    more_dropout: Callable[..., Function] = _no_dropout
    dense: Callable[..., Function] = _dense

    def without_dropout(self) -> "Layers":
        """Returns the same constructors with identities in the place of dropout."""
        return self._replace(dropout=_no_dropout, more_dropout=_no_dropout)

    def with_rate(self, rate: float) -> "Layers":
        """Returns the same constructors, with another rate of dropout.

        Args:
          rate: Probability to drop a value, in [0, 1).
        """
        return self._replace(
            dropout=functools.partial(self.dropout, rate=rate),
            more_dropout=functools.partial(self.more_dropout, rate=rate),
        )


@functools.partial(jax.jit, static_argnames=("dtype", "compute_dtype"))
def precomputed(variables: Any, *, dtype: Any, compute_dtype: Any) -> Any:
    """Computes once what each of many passes would compute of the variables alone.

    Passes in evaluation have the same results with the variables that are returned: the
    factors of norms are computed, and kernels of convolutions rounded, as in a pass. In
    the loop over dropout samples these are two kernels of a GPU for each convolution.

    Args:
      variables: Variables of a network of the layers of `bind`, `{"params",
        "batch_stats"}`.
      dtype: Compute type of the network; None for that of the inputs and parameters.
      compute_dtype: Type that norms compute in, float32 or float64.

    Returns:
      Variables for passes in evaluation: `batch_stats` have the factors of norms, too,
      and kernels of convolutions below the head are of `dtype`.
    """
    flat = traverse_util.flatten_dict(variables)
    found = dict(flat)
    for path, value in flat.items():
        collection, *layer, name = path
        scale = flat.get(("params", *layer, "scale"))
        if name == "kernel" and value.ndim == 4 and dtype is not None:
            # The head of a network for segmentation is a convolution that is not in
            # `dtype`: rounded logits would be other predictions.
            if layer[:1] != [_HEAD]:
                found[path] = value.astype(dtype)
        elif collection == "batch_stats" and name == "var" and scale is not None:
            found[(collection, *layer, FACTOR)] = batch_statistics.factor_of(
                scale, value, epsilon=EPSILON, dtype=compute_dtype
            )
    return traverse_util.unflatten_dict(found)


def bind(
    network: nn.Module,
    *,
    train: bool,
    mask: jax.Array | None,
    rate: float,
    dtype: Any,
    dropout_of_channels: bool = False,
    dropout_everywhere: bool = False,
) -> Layers:
    """Binds mode, mask and types once, at the top of a network.

    Args:
      network: The module being called; tells whether an rng named "dropout" is there.
      train: Whether to normalise by batch statistics.
      mask: bool[B], the examples that are not padding; None for all.
      rate: Probability of block dropout to drop a value, in [0, 1); where stages have
        rates of their own, the largest of them.
      dtype: Compute type; None for that of the inputs and parameters together.
      dropout_of_channels: Whether dropout draws once for each example and channel, and
        drops whole channels, in place of once for each value.
      dropout_everywhere: Whether `more_dropout` drops.

    Returns:
      Constructors `conv(features, size, stride=1, groups=1)` (explicit symmetric
      padding, no bias unless asked for), `conv_transpose(features, size, stride,
      kernel_init)` (the size is multiplied by the stride, no bias),
      `norm(relu=False)`, `dropout()` and `more_dropout()`, live exactly when the rng is
      given, and `dense(features, last=False)`, which is told whether it is the last.

    Raises:
      ValueError: if training has dropout to do and no rng to do it with.
    """
    live = rate > 0 and network.has_rng("dropout")
    if train and rate > 0 and not live and not network.is_initializing():
        raise without_key(rate)

    def conv(
        features,
        size,
        *,
        stride=1,
        groups=1,
        padding=None,
        bias=False,
        kernel_init=uniform_fan_in,
        conv_general_dilated=None,
        name=None,
    ):
        return nn.Conv(
            features,
            (size, size),
            strides=stride,
            padding=size // 2 if padding is None else padding,
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init,
            dtype=dtype,
            conv_general_dilated=conv_general_dilated,
            name=name,
        )

    def conv_transpose(features, size, *, stride, kernel_init, name=None):
        return nn.ConvTranspose(
            features,
            (size, size),
            strides=(stride, stride),
            use_bias=False,
            kernel_init=kernel_init,
            dtype=dtype,
            name=name,
        )

    def dropout(*, rate=rate):
        if not live or rate == 0:
            return lambda x: x
        of_values = nn.Dropout(rate, deterministic=False)
        if not dropout_of_channels:
            return of_values
        # In front of the last dense layer, each of the values [B, F] is a channel.
        of_maps = nn.Dropout(rate, broadcast_dims=(1, 2), deterministic=False)
        return lambda x: of_maps(x) if x.ndim == 4 else of_values(x)

    norm = functools.partial(
        BatchNorm, use_running_average=not train, mask=mask, dtype=dtype
    )
    more_dropout = dropout if dropout_everywhere else _no_dropout
    return Layers(conv, norm, dropout, conv_transpose, more_dropout)


def without_key(rate: float) -> ValueError:
    """Returns the error of training with dropout and without an rng."""
    return ValueError(
        f"training with dropout rate {rate} needs a key; "
        "pass rngs={'dropout': key} to apply"
    )
