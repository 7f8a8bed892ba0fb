"""What all networks share: stages, smoothing between them, a head on top.

Contract: images are f32[B, H, W, 3], normalised; logits are f32[B, K]. The output of
each part can be captured as the intermediate of its name: `stem`, `stage1`, `smooth1`,
..., `logits` (`apply(..., mutable=["intermediates"])`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

from spatial_smoothing import layers as layers_lib
from spatial_smoothing.layers import Layers, SpatialSmoothing
from spatial_smoothing.lookup import lookup
from spatial_smoothing.models import heads

Function = Callable[[jax.Array], jax.Array]
STEMS = {"cifar": "for images of about 32x32", "imagenet": "for about 224x224"}


class Network(nn.Module):
    """A convolutional network of stages, each followed by spatial smoothing or not.

    Attributes:
      num_classes: K.
      stem: "cifar" or "imagenet": how soon the first layers subsample.
      width: Channels of the first stage; the others are multiples of it.
      stages: Blocks or convolutions of each stage.
      rate: Probability of block dropout to drop a value, in [0, 1). Dropout is live
        exactly when `apply` is given an rng named "dropout", in training and
        evaluation alike.
      smoothing: Number of smoothing layers after each stage.
      temperature: t > 0 of the smoothing; None for the squash's default.
      squash: See `SpatialSmoothing`, as for `taps` and `padding`.
      taps: One-dimensional blur kernel; None for no blur.
      padding: "full" is the paper's.
      smoothing_norm: Whether batch normalisation comes first in smoothing.
      head: A key of `heads.HEADS`.
      head_temperature: t > 0 of the head "gap_clip".
      dtype: Compute type; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stem: str = "cifar"
    width: int = 64
    stages: Sequence[int] = (2, 2, 2, 2)
    rate: float = 0.0
    smoothing: Sequence[int] = (0, 0, 0, 0)
    temperature: float | None = None
    squash: str = "tanh"
    taps: Sequence[float] | None = (1, 1)
    padding: str = "full"
    smoothing_norm: bool = False
    head: str = "gap"
    head_temperature: float = 2.0
    dtype: Any = None

    def parts(self, layers: Layers) -> Iterator[tuple[str, Function]]:
        """Yields name and function of each part below the head, in order.

        Smoothing follows the parts called `stage*`.
        """
        raise NotImplementedError

    def head_grid(self) -> int:
        """Side of the grid that the head "mlp" pools to."""
        return 7

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Classifies images.

        Args:
          images: f32[B, H, W, 3], normalised.
          train: Whether to normalise by the statistics of the batch.
          mask: bool[B], the examples that are not padding; None for all.

        Returns:
          Logits, f32[B, K].

        Raises:
          ValueError: if training has dropout to do and there is no rng "dropout".
        """
        lookup(STEMS, self.stem, "stem")
        if images.ndim != 4:
            raise ValueError(f"images are [B, H, W, 3], got shape {images.shape}")
        layers = layers_lib.bind(
            self, train=train, mask=mask, rate=self.rate, dtype=self.dtype
        )
        x = images if self.dtype is None else images.astype(self.dtype)
        smoothing = iter(self.smoothing)
        for name, part in self.parts(layers):
            x = part(x)
            self.sow("intermediates", name, x)
            if name.startswith("stage"):
                x = self._smooth(x, layers, name.removeprefix("stage"), next(smoothing))
        logits = heads.head(
            self.head,
            num_classes=self.num_classes,
            layers=layers,
            temperature=self.head_temperature,
            grid=self.head_grid(),
            train=train,
            name="head",
        )(x)
        self.sow("intermediates", "logits", logits)
        return logits

    def _smooth(
        self, x: jax.Array, layers: Layers, stage: str, count: int
    ) -> jax.Array:
        for number in range(count):
            x = SpatialSmoothing(
                temperature=self.temperature,
                squash=self.squash,
                taps=self.taps,
                padding=self.padding,
                norm=layers.norm if self.smoothing_norm else None,
                name=f"smoothing{stage}_{number}",
            )(x)
        if count:
            self.sow("intermediates", f"smooth{stage}", x)
        return x


def max_pool(
    x: jax.Array, size: int, *, stride: int = 2, padding: int = 0
) -> jax.Array:
    """Takes the largest of each window of `[B, H, W, C]`; padding never wins."""
    return nn.max_pool(
        x, (size, size), (stride, stride), [(padding, padding), (padding, padding)]
    )


def chain(*functions: Function) -> Function:
    """Composes functions, the first applied first."""

    def composed(x: jax.Array) -> jax.Array:
        for function in functions:
            x = function(x)
        return x

    return composed
