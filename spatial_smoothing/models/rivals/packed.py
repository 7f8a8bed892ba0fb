"""Packed-Ensembles: M narrow networks side by side, as groups of channels.

Source: Laurent et al., ICLR 2023, and torch-uncertainty. All layers have alpha times
the channels of the network, in M groups, so that member m is a network of alpha / M
times the width (equation 5). gamma divides the channels of each member further. The
network is given M copies of the images side by side, which makes the members of its
first layer groups, too; that layer and the last one are not divided further.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing import ops
from spatial_smoothing.forms import grouped_convolutions
from spatial_smoothing.layers import Layers
from spatial_smoothing.models.rivals.rival import Rival

_IMAGE_CHANNELS = 3


class PackedDense(nn.Module):
    """A dense layer whose values are groups, in at least float32.

    Attributes:
      features: Number of values of the result, a multiple of the number of groups.
      groups: Number of groups G, which divides the number of inputs F.
    """

    features: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, F]` to `[B, features]`."""
        inputs, outputs = x.shape[-1] // self.groups, self.features // self.groups
        bound = inputs**-0.5
        # The leading axis is that of groups, not a part of the fan-in.
        kernel = self.param(
            "kernel",
            nn.initializers.variance_scaling(
                1 / 3, "fan_in", "uniform", in_axis=1, out_axis=2, batch_axis=0
            ),
            (self.groups, inputs, outputs),
            jnp.float32,
        )
        bias = self.param(
            "bias",
            lambda key, shape, dtype: (
                jax.random.uniform(key, shape, dtype, minval=-1, maxval=1) * bound
            ),
            (self.features,),
            jnp.float32,
        )
        x = x.astype(ops.at_least_float32(x.dtype))
        x = x.reshape(len(x), self.groups, inputs)
        y = jnp.einsum("bgi,gio->bgo", x, kernel.astype(x.dtype))
        return y.reshape(len(x), self.features) + bias.astype(x.dtype)[None]


@dataclasses.dataclass(frozen=True)
class Packed(Rival):
    """M members, each a group of the channels of every layer.

    Attributes:
      alpha: Number of channels of all members together, in units of those of the
        network, above 0.
      gamma: Number of groups in which the channels of each member are divided.
    """

    alpha: float = 2.0
    gamma: int = 1

    def spread(self, images: jax.Array) -> jax.Array:
        """Gives each member its own copy of the channels, to f[B, H, W, 3 M]."""
        return jnp.tile(images, (1, 1, 1, self.size))

    def layers(self, layers: Layers) -> Layers:
        """Widens each layer and divides it into groups."""

        def conv(features, size, *, groups=1, name=None, **options):
            outputs = self._channels(features, groups)

            def convolve(x: jax.Array) -> jax.Array:
                parts = self._num_parts(x.shape[-1], outputs)
                if x.shape[-1] % (parts * groups):
                    raise ValueError(
                        f"a Packed-Ensemble of {self.size} members has "
                        f"{x.shape[-1]} channels in front of {parts} x {groups} "
                        "groups, which do not divide them; take a larger width, or "
                        "another ensemble_size"
                    )
                form = functools.partial(grouped_convolutions.convolve, num_parts=parts)
                return layers.conv(
                    outputs,
                    size,
                    groups=parts * groups,
                    conv_general_dilated=form,
                    name=name,
                    **options,
                )(x)

            return convolve

        def dense(features, *, last=False, name=None):
            outputs = self.size * features if last else self._channels(features, 1)

            def apply(x: jax.Array) -> jax.Array:
                parts = self.size if last else self._num_parts(x.shape[-1], outputs)
                return PackedDense(outputs, parts, name=name)(x)

            return apply

        return layers._replace(conv=conv, dense=dense)

    def collect(self, logits: jax.Array) -> jax.Array:
        """Parts f[B, M K] to f[M, B, K]."""
        return logits.reshape(len(logits), self.size, -1).swapaxes(0, 1)

    def _channels(self, features: int, groups: int) -> int:
        """Returns alpha times the channels, up to a multiple of the groups."""
        unit = self.size * self.gamma * groups
        return max(-(-int(self.alpha * features) // unit), 1) * unit

    def _num_parts(self, inputs: int, outputs: int) -> int:
        """Returns the groups of a layer; the first layer has one for each member."""
        parts = self.size * self.gamma
        first = inputs == _IMAGE_CHANNELS * self.size
        return self.size if first or inputs % parts or outputs % parts else parts


# A smoothing of this kind shares values out over all channels, and so over members.
MIXING_SQUASH = "softmax"
