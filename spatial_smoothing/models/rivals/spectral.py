"""Spectral normalisation of convolutions, the training of DDU.

DDU (Mukhoti et al., CVPR 2023) is the rival here that makes a single prediction in a
pass. It is chosen over SNGP because it asks for nothing of training but this
normalisation, in a network with residual connections, and because its uncertainty, the
density of the features, is fitted afterwards as other confidences of features are. SNGP
replaces the last layer and needs a covariance that is reset in every epoch.

A kernel W, as a matrix of its inputs and outputs, is divided by `max(1, sigma / c)`,
with an estimate sigma of its largest singular value by one step of power iteration in
each training step. Source: Miyato et al., ICLR 2018, algorithm 1; the soft bound c is
that of SNGP and DDU.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing.layers import Layers

_EPSILON = 1e-12  # added to norms


class SpectralConv(nn.Module):
    """A convolution whose kernel has a bounded largest singular value.

    Attributes:
      make: Function `(name, form) -> module` that makes the convolution; `form` takes
        the place of `jax.lax.conv_general_dilated`.
      bound: c, the largest singular value that a kernel keeps, above 0.
      train: Whether a step of power iteration is made and kept.
    """

    make: Callable[[str, Callable[..., jax.Array]], nn.Module]
    bound: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` as the convolution does."""

        def convolve(x: jax.Array, kernel: jax.Array, *args: Any, **options: Any):
            return jax.lax.conv_general_dilated(
                x, self._bounded(kernel), *args, **options
            )

        return self.make("conv", convolve)(x)

    def _bounded(self, kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
        # Kept among the statistics, so that checkpoints have it and no gradient does.
        vector = self.variable("batch_stats", "u", self._start, kernel.shape[-1])
        constant = jax.lax.stop_gradient(matrix)
        left = _unit(constant @ vector.value)
        # A moving average of unit vectors, as of evaluation, is no unit vector.
        right = _unit(vector.value)
        if self.train and not self.is_initializing():
            right = _unit(left @ constant)
            vector.value = right
        sigma = left @ matrix @ right
        return kernel / jnp.maximum(1, sigma / self.bound).astype(kernel.dtype)

    def _start(self, size: int) -> jax.Array:
        key = self.make_rng("params")
        return _unit(jax.random.normal(key, (size,), jnp.float32))


def layers(layers: Layers, *, bound: float, train: bool) -> Layers:
    """Returns layer constructors whose convolutions are bounded.

    Args:
      layers: Those of the network.
      bound: Largest singular value c of a kernel, above 0.
      train: Whether the network trains.
    """

    def conv(features, size, *, name=None, **options):
        def make(name: str, form: Callable[..., jax.Array]) -> nn.Module:
            return layers.conv(
                features, size, name=name, conv_general_dilated=form, **options
            )

        return SpectralConv(make, bound, train, name=name)

    return layers._replace(conv=conv)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / (jnp.linalg.norm(vector) + _EPSILON)
