"""SegNet: the decoder puts values back to where the pools of the encoder took them.

A block is convolution, batch normalisation, ReLU: the map that is smoothed and pooled
has no negative values for the ReLU of the smoothing to cut.
"""

from collections.abc import Iterator

from spatial_smoothing.layers import Layers
from spatial_smoothing.models.segmentation import (
    Maps,
    Part,
    SegmentationNetwork,
    cropped,
    on_map,
    places_of_maxima,
    pool,
    unpool,
)


class SegNet(SegmentationNetwork):
    """SegNet; see `SegmentationNetwork` for the attributes.

    Level i of the encoder has `width * min(2**(i - 1), 8)` channels. The decoder has a
    stage for each level, as deep as that of the encoder; the last convolution of each
    has the channels of the level above, and of the last stage it is the one that
    classifies. Smoothing comes before the pool, whose maxima are those of the smoothed
    map.
    """

    def num_stages(self) -> int:
        """D stages of the encoder, and D of the decoder."""
        return 2 * len(self.stages)

    def default_dropout(self) -> set[int]:
        """Encoder and decoder from level 3, or the last one, downwards."""
        depth = len(self.stages)
        levels = range(min(3, depth), depth + 1)
        return {*levels, *(2 * depth + 1 - level for level in levels)}

    def segmentation_parts(self, layers: Layers) -> Iterator[Part]:
        """Yields the encoder and the decoder."""
        depth = len(self.stages)
        widths = [self.width * min(2**level, 8) for level in range(depth)]
        for stage, count in enumerate(self.stages, 1):
            convolutions = self.convolutions(
                stage, [widths[stage - 1]] * count, layers, relu_first=False
            )
            yield on_map(convolutions, name=f"stage{stage}")
            if stage < depth:
                yield Part(self._down(stage, layers))
            yield from self.dropped(stage, layers)
        for level in range(depth, 0, -1):
            stage, width = 2 * depth + 1 - level, widths[level - 1]
            channels = [width] * (self.stages[level - 1] - 1)
            if level > 1:
                channels.append(widths[level - 2])
            if level < depth:
                yield Part(_up)
            convolutions = self.convolutions(stage, channels, layers, relu_first=False)
            yield on_map(convolutions, name=f"stage{stage}")
            yield from self.dropped(stage, layers)

    def _down(self, stage: int, layers: Layers):
        """Returns a function that smooths and pools, and keeps the places of maxima."""
        smoothed = self.smoothed(stage, layers)

        def down(maps: Maps) -> Maps:
            x = smoothed.apply(maps).x
            # With padding="full" the smoothed map is larger than the level.
            places = cropped(places_of_maxima(x), maps.x)
            return Maps(pool(x), (*maps.kept, places))

        return down


def _up(maps: Maps) -> Maps:
    """Unpools to the level above."""
    *kept, places = maps.kept
    return Maps(unpool(maps.x, places), tuple(kept))
