"""U-Net as the code of temporal smoothing has it: skips are added, not concatenated.

A block is convolution, ReLU, batch normalisation, so that the map that is smoothed and
pooled has negative values. Spatial smoothing rectifies, here as in the pre-activation
networks of the paper, and cuts them: what is below the mean of a channel is lost to the
levels below, unless the shift of the normalisation, which is learned, moves it up. The
default is that layer of the paper, so that a name means the same smoothing for every
network. `squash="none"` blurs alone, and cuts nothing. By `configs/moving_shapes.py`,
seeds 0 and 1, the test NLL of one dropout sample was 0.326 and 0.322 with it, 0.349 and
0.336 with the default, and 0.334 and 0.336 without smoothing.
"""

from collections.abc import Iterator

import flax.linen as nn
import jax

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.segmentation import (
    EPSILON,
    Maps,
    Part,
    SegmentationNetwork,
    cropped,
    on_map,
    pool,
)


class Upsampling(nn.Module):
    """A 3x3 transposed convolution of stride 2, ReLU and batch normalisation.

    Attributes:
      layers: Layer constructors of the network.
      features: Channels of the result.
      momentum: Weight of the old running statistics of the normalisation, in [0, 1].
    """

    layers: Layers
    features: int
    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, C]` to `[B, 2 h, 2 w, features]`."""
        conv = self.layers.conv_transpose(
            self.features,
            3,
            stride=2,
            kernel_init=nn.initializers.glorot_uniform(),
            name="conv",
        )
        x = conv(x)
        norm = self.layers.norm(momentum=self.momentum, epsilon=EPSILON, name="norm")
        return norm(nn.relu(x))


class UNet(SegmentationNetwork):
    """U-Net; see `SegmentationNetwork` for the attributes.

    Level i of the encoder has `width * 2**(i - 1)` channels. The decoder goes up from
    level D - 1 to 1, and each of its stages has as many convolutions as the level of
    the encoder below it. Its maps are added to those of the encoder as they were before
    dropout and smoothing.
    """

    def num_stages(self) -> int:
        """D stages of the encoder, and D - 1 of the decoder."""
        return 2 * len(self.stages) - 1

    def default_dropout(self) -> set[int]:
        """The encoder from level 3, or its last one, and the decoder to level 2."""
        depth = len(self.stages)
        encoder = range(min(3, depth), depth + 1)
        return {*encoder, *range(depth + 1, self.num_stages())}

    def segmentation_parts(self, layers: Layers) -> Iterator[Part]:
        """Yields the encoder and the decoder."""
        depth = len(self.stages)
        widths = [self.width * 2**level for level in range(depth)]
        for stage, count in enumerate(self.stages, 1):
            convolutions = self.convolutions(
                stage, [widths[stage - 1]] * count, layers, relu_first=True
            )
            yield on_map(convolutions, name=f"stage{stage}")
            if stage < depth:
                yield Part(lambda maps: maps._replace(kept=(*maps.kept, maps.x)))
            yield from self.dropped(stage, layers)
            if stage < depth:
                yield self.smoothed(stage, layers)
                yield on_map(pool)
        for level in range(depth - 1, 0, -1):
            stage, width = 2 * depth - level, widths[level - 1]
            yield Part(self._up(stage, width, layers))
            convolutions = self.convolutions(
                stage, [width] * self.stages[level], layers, relu_first=True
            )
            yield on_map(convolutions, name=f"stage{stage}")
            yield from self.dropped(stage, layers)

    def _up(self, stage: int, width: int, layers: Layers):
        """Returns a function that doubles the map and adds the encoder's."""
        double = Upsampling(
            layers, features=width, momentum=self.norm_momentum, name=f"stage{stage}_up"
        )

        def up(maps: Maps) -> Maps:
            *kept, skip = maps.kept
            return Maps(cropped(double(maps.x), skip) + skip, tuple(kept))

        return up
