"""AlexNet without batch normalisation, as the reference has it."""

from collections.abc import Iterator
from typing import ClassVar

import flax.linen as nn
import jax

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.network import Function, Network, chain, max_pool


class Block(nn.Module):
    """A convolution with ReLU and dropout.

    Attributes:
      layers: Layer constructors of the network.
      features: Channels of the result.
      size: Side of the kernel.
      stride: Stride of the convolution.
      padding: Number of zeros on every side; None for half the kernel.
      bias: Whether the convolution adds a bias.
    """

    layers: Layers
    features: int
    size: int = 3
    stride: int = 1
    padding: int | None = None
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C']` to `[B, H/stride, W/stride, features]`."""
        conv = self.layers.conv(
            self.features,
            self.size,
            stride=self.stride,
            padding=self.padding,
            bias=self.bias,
            name="conv",
        )
        return chain(conv, nn.relu, self.layers.dropout())(x)


class AlexNet(Network):
    """AlexNet; see `Network` for the attributes.

    `stages` counts the convolutions of each stage, five at most; their widths are 1, 3,
    6, 4 and 4 times `width`.

    Attributes:
      conv_bias: Whether convolutions add biases, as torchvision's AlexNet does; the
        reference's has none. They start at zero.
    """

    conv_bias: bool = False

    first_stage: ClassVar[int] = 0

    def head_grid(self) -> int:
        """Side of the grid that the head "mlp" pools to."""
        return 6 if self.stem == "imagenet" else 2

    def parts(self, layers: Layers) -> Iterator[tuple[str, Function]]:
        """Yields each stage, and the pool below the head."""
        if sum(self.stages) > 5:
            raise ValueError(f"AlexNet has 5 convolutions, got stages {self.stages}")
        imagenet = self.stem == "imagenet"
        first = {"size": 11, "stride": 4, "padding": 2} if imagenet else {"stride": 2}
        options = iter((first, {"size": 5}, {}, {}, {}))
        widths = iter((1, 3, 6, 4, 4))
        pool = lambda x: max_pool(x, 3 if imagenet else 2)
        for stage, depth in enumerate(self.stages):
            blocks = [
                Block(
                    self.layers_of(stage, layers),
                    features=self.width * next(widths),
                    bias=self.conv_bias,
                    name=f"stage{stage}_block{block}",
                    **next(options),
                )
                for block in range(depth)
            ]
            yield f"stage{stage}", chain(*([pool] if stage else []), *blocks)
        yield "pool", pool
