"""ResNet, pre-activation ResNet, ResNeXt, WideResNet and WRN: one network.

The topology is the reference's in its details: a bottleneck strides on its 3x3
convolution, padding is explicit and symmetric, and dropout comes after the last
activation before the last convolution of a block.
"""

from collections.abc import Iterator

import flax.linen as nn
import jax

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.network import Function, Network, chain, max_pool


class Block(nn.Module):
    """A residual block: basic or bottleneck, post- or pre-activation.

    Attributes:
      layers: Layer constructors of the network.
      features: Channels C of the stage; a bottleneck returns 4C.
      stride: Stride of the first 3x3 convolution.
      bottleneck: Whether it is 1x1, 3x3, 1x1 convolutions in place of 3x3, 3x3.
      preactivation: Whether normalisation and ReLU come before each convolution.
      widening: Width of the inner convolutions of a bottleneck, in units of C.
      groups: Number of groups of the 3x3 convolution of a bottleneck.
      shortcut_norm: Whether a projected shortcut is normalised.
    """

    layers: Layers
    features: int
    stride: int = 1
    bottleneck: bool = False
    preactivation: bool = False
    widening: int = 1
    groups: int = 1
    shortcut_norm: bool = True

    def _convolutions(self) -> list[tuple[int, int, int, int]]:
        """Features, size, stride and groups of each convolution."""
        if not self.bottleneck:
            return [(self.features, 3, self.stride, 1), (self.features, 3, 1, 1)]
        inner = self.features * self.widening
        return [
            (inner, 1, 1, 1),
            (inner, 3, self.stride, self.groups),
            (4 * self.features, 1, 1, 1),
        ]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C']` to `[B, H/stride, W/stride, C or 4C]`."""
        conv, norm = self.layers.conv, self.layers.norm
        dropout, more_dropout = self.layers.dropout, self.layers.more_dropout
        convolutions = self._convolutions()
        shortcut = y = x
        for number, (features, size, stride, groups) in enumerate(convolutions, 1):
            last = number == len(convolutions)
            if self.preactivation:
                y = norm(name=f"norm{number}", relu=True)(y)
            if number == 1:
                projected = y  # what a projection acts on: activated if the block is
            y = dropout()(y) if last else more_dropout()(y)
            y = conv(
                features, size, stride=stride, groups=groups, name=f"conv{number}"
            )(y)
            if not self.preactivation:
                # The last one is rectified after the shortcut is added.
                y = norm(name=f"norm{number}", relu=not last)(y)
        y = more_dropout()(y)
        if y.shape != x.shape:
            shortcut = conv(features, 1, stride=self.stride, name="shortcut_conv")(
                projected
            )
            if self.shortcut_norm:
                shortcut = norm(name="shortcut_norm")(shortcut)
            shortcut = more_dropout()(shortcut)
        return y + shortcut if self.preactivation else nn.relu(y + shortcut)


class ResNet(Network):
    """The residual family; see `Network` for the attributes all networks share.

    Attributes:
      bottleneck: Whether blocks are 1x1, 3x3, 1x1 convolutions in place of 3x3, 3x3.
      preactivation: Whether blocks are pre-activation, and the stem is without
        normalisation and ReLU.
      widening: Inner width of a bottleneck, in units of its stage's.
      groups: Number of groups of the 3x3 convolutions of bottlenecks.
      shortcut_norm: Whether projected shortcuts are normalised.
      stem_width: Channels of the stem; None for as many as the first stage has.
    """

    bottleneck: bool = False
    preactivation: bool = False
    widening: int = 1
    groups: int = 1
    shortcut_norm: bool = True
    stem_width: int | None = None

    def parts(self, layers: Layers) -> Iterator[tuple[str, Function]]:
        """Yields the stem and each stage."""
        yield "stem", self._stem(layers)
        for stage, depth in enumerate(self.stages):
            of_stage = self.layers_of(stage + 1, layers)
            blocks = [
                Block(
                    of_stage,
                    features=self.width * 2**stage,
                    stride=2 if stage and not block else 1,
                    bottleneck=self.bottleneck,
                    preactivation=self.preactivation,
                    widening=self.widening,
                    groups=self.groups,
                    shortcut_norm=self.shortcut_norm,
                    name=f"stage{stage + 1}_block{block}",
                )
                for block in range(depth)
            ]
            # Dropout behind the stem is the beginning of the first stage, so that the
            # stem is computed once for all samples.
            behind_stem = [] if stage else [of_stage.more_dropout()]
            yield f"stage{stage + 1}", chain(*behind_stem, *blocks)

    def _stem(self, layers: Layers) -> Function:
        imagenet = self.stem == "imagenet"
        size, stride = (7, 2) if imagenet else (3, 1)
        features = self.stem_width or self.width
        functions = [layers.conv(features, size, stride=stride, name="stem_conv")]
        if not self.preactivation:
            functions.append(layers.norm(name="stem_norm", relu=True))
        if imagenet:
            functions.append(lambda x: max_pool(x, 3, padding=1))
        return chain(*functions)
