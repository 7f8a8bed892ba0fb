"""VGG with batch normalisation, post- and pre-activation: one network.

There is one form for any image size. Each stage but the first begins with a 2x2 max
pool, and so does the head; an odd last row or column is dropped by it.
"""

from collections.abc import Iterator
from typing import ClassVar

import flax.linen as nn
import jax

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.network import Function, Network, chain, max_pool


class Block(nn.Module):
    """A 3x3 convolution with normalisation, ReLU and dropout.

    Attributes:
      layers: Layer constructors of the network.
      features: Channels of the result.
      preactivation: Whether normalisation and ReLU come before the convolution.
    """

    layers: Layers
    features: int
    preactivation: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C']` to `[B, H, W, features]`."""
        norm = self.layers.norm(name="norm", relu=True)
        conv = self.layers.conv(self.features, 3, name="conv")
        dropout = self.layers.dropout()
        order = (norm, conv) if self.preactivation else (conv, norm)
        return chain(*order, dropout)(x)


class VGG(Network):
    """The VGG family; see `Network` for the attributes all networks share.

    Attributes:
      preactivation: Whether normalisation and ReLU come before each convolution; the
        first then act on the image itself.
    """

    preactivation: bool = False

    first_stage: ClassVar[int] = 0

    def parts(self, layers: Layers) -> Iterator[tuple[str, Function]]:
        """Yields each stage, and the pool below the head."""
        for stage, depth in enumerate(self.stages):
            pool = [lambda x: max_pool(x, 2)] if stage else []
            blocks = [
                Block(
                    self.layers_of(stage, layers),
                    features=self.width * min(2**stage, 8),
                    preactivation=self.preactivation,
                    name=f"stage{stage}_block{block}",
                )
                for block in range(depth)
            ]
            yield f"stage{stage}", chain(*pool, *blocks)
        yield "pool", lambda x: max_pool(x, 2)
