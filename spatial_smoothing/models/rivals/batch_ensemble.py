"""BatchEnsemble: members share their kernels, up to a factor of rank one.

Source: Wen et al., ICLR 2020. Member m has the kernel `W * (r_m s_m^T)`, so that
`y_m = ((x * r_m) W) * s_m` (equation 5): one matrix product for all members. As in
uncertainty-baselines, the batch is repeated M times, in training too; biases and batch
normalisation are each member's own; and the gradients of r and s are halved.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing.layers import Dense, Layers
from spatial_smoothing.models.rivals.rival import Tiled, by_member

_FAST_GRADIENT = 0.5  # factor of the gradients of r and s
# Names of the parameters r and s, factors of the channels before and after a layer.
INPUT_FACTORS, _OUTPUT_FACTORS = "r", "s"


def _random_signs(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
    """Draws -1 or 1, each with probability 1/2."""
    # The type is said, so that JAX_ENABLE_X64 does not change what is drawn.
    is_plus = jax.random.bernoulli(key, jnp.float32(0.5), shape)
    return jnp.where(is_plus, 1, -1).astype(dtype)


class FastWeights(nn.Module):
    """A layer whose kernel each member multiplies by a matrix of rank one.

    Attributes:
      layer: Function `(name) -> module` that makes the shared layer, without bias.
      size: Number of members M.
      bias_init: Initialiser of the bias f32[M, C'], given the number of input channels
        C; None for no bias.
    """

    layer: Callable[[str], nn.Module]
    size: int
    bias_init: Callable[[int], Callable[..., jax.Array]] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[M B, ..., C]` to `[M B, ..., C']`."""
        inputs = x.shape[-1]
        x = self._times(x, INPUT_FACTORS)
        x = self._times(self.layer("shared")(x), _OUTPUT_FACTORS)
        if self.bias_init is None:
            return x
        shape = (self.size, x.shape[-1])
        bias = self.param("bias", self.bias_init(inputs), shape, jnp.float32)
        members = by_member(x, self.size)
        return (members + _like(bias, members)).reshape(x.shape)

    def _times(self, x: jax.Array, name: str) -> jax.Array:
        """Multiplies each member's channels by its own factors."""
        factors = self.param(name, _random_signs, (self.size, x.shape[-1]), jnp.float32)
        factors = factors * _FAST_GRADIENT + jax.lax.stop_gradient(
            factors * (1 - _FAST_GRADIENT)
        )
        members = by_member(x, self.size)
        return (members * _like(factors, members)).reshape(x.shape)


class MemberNorm(nn.Module):
    """Batch normalisation of each member by itself.

    Attributes:
      norm: Function `(name) -> module` that makes a normalisation of channels.
      size: Number of members M.
    """

    norm: Callable[[str], nn.Module]
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `[M B, ..., C]` per member and channel."""
        # The channels of all members are M C channels of one normalisation.
        members = by_member(x, self.size)
        aside = jnp.moveaxis(members, 0, -2)
        folded = aside.reshape(*aside.shape[:-2], -1)
        normalized = self.norm("members")(folded).reshape(aside.shape)
        return jnp.moveaxis(normalized, -2, 0).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class BatchEnsemble(Tiled):
    """M members with shared kernels and factors of rank one."""

    def mask(self, mask: jax.Array | None) -> jax.Array | None:
        """Returns the mask as it is: normalisation sees one member at a time."""
        return mask

    def layers(self, layers: Layers) -> Layers:
        """Puts factors around each convolution and dense layer."""

        def conv(features, size, *, bias=False, name=None, **options):
            shared = lambda name: layers.conv(features, size, name=name, **options)
            bias_init = (lambda inputs: nn.initializers.zeros) if bias else None
            return FastWeights(shared, self.size, bias_init=bias_init, name=name)

        def dense(features, *, last=False, name=None):
            shared = lambda name: Dense(features, use_bias=False, name=name)
            return FastWeights(shared, self.size, bias_init=_uniform, name=name)

        def norm(*, name=None, **options):
            make = lambda name: layers.norm(name=name, **options)
            return MemberNorm(make, self.size, name=name)

        return layers._replace(conv=conv, dense=dense, norm=norm)


def _uniform(inputs: int) -> Callable[..., jax.Array]:
    """Initialiser of the biases of a dense layer with so many input values."""
    bound = inputs**-0.5
    return lambda key, shape, dtype: jax.random.uniform(
        key, shape, dtype, minval=-bound, maxval=bound
    )


def _like(values: jax.Array, members: jax.Array) -> jax.Array:
    """Gives f[M, C] the rank of `members`, f[M, B, ..., C], and its type."""
    axes = tuple(range(1, members.ndim - 1))
    return jnp.expand_dims(values, axes).astype(members.dtype)
