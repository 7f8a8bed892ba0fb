"""What networks for segmentation share: an encoder, a decoder, a class for each pixel.

Contract: images are f32[B, H, W, 3], normalised, of any height and width; logits are
f32[B, H, W, K]. An encoder of D levels halves the map between two levels, and a decoder
goes back up. The output of each part can be captured as the intermediate of its name:
`stage1` to `stageD` of the encoder, those that follow of the decoder, `smooth1`, ...,
and `logits`.

Sizes: pools round up, and what the decoder has doubled is cropped at the lower and
right edges to the size that the map of its level had. The blur keeps the size by
default, `padding="zero"`, as maps of two paths have to fit. The paper's `"full"` works
too: the larger map is then pooled, and its decoder is cropped alike.

Source: the networks of the code of Park et al., "Vector Quantized Bayesian Neural
Network Inference for Data Streams", AAAI 2021, with spatial smoothing before each
subsampling layer of the encoder, as in section 4 of Park & Kim, ICML 2022.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing import layers as layers_lib
from spatial_smoothing import ops
from spatial_smoothing.layers import Layers
from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.models.network import (
    HALVES,
    HEAD,
    MASKS,
    STEMS,
    Function,
    Network,
    chain,
)

EPSILON = 1e-3  # of batch normalisation, Keras's


class Maps(NamedTuple):
    """What a part of the network hands to the next one.

    Attributes:
      x: f[B, h, w, C], the feature map.
      kept: Arrays [B, h, w, C] of the encoder that the decoder is still to use, the
        highest level first: maps of a U-Net, places of maxima of a SegNet.
    """

    x: jax.Array
    kept: tuple[jax.Array, ...] = ()


class Part(NamedTuple):
    """A part of the network.

    Attributes:
      apply: `Maps -> Maps`.
      name: Name under which the feature map can be captured; None for none.
      has_dropout: Whether the result depends on the dropout masks.
    """

    apply: Callable[[Maps], Maps]
    name: str | None = None
    has_dropout: bool = False


class ConvBlock(nn.Module):
    """A 3x3 convolution with bias, batch normalisation and ReLU.

    Attributes:
      layers: Layer constructors of the network.
      features: Channels of the result.
      relu_first: Whether the ReLU comes before the normalisation.
      momentum: Weight of the old running statistics of the normalisation, in [0, 1].
    """

    layers: Layers
    features: int
    relu_first: bool
    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C']` to `[B, H, W, features]`."""
        conv = self.layers.conv(
            self.features,
            3,
            bias=True,
            kernel_init=nn.initializers.glorot_uniform(),
            name="conv",
        )
        norm = self.layers.norm(
            momentum=self.momentum,
            epsilon=EPSILON,
            relu=not self.relu_first,
            name="norm",
        )
        x = conv(x)
        return norm(nn.relu(x) if self.relu_first else x)


class SegmentationNetwork(Network):
    """An encoder and a decoder; see `Network` for the attributes that all share.

    `stages` counts the convolutions of each level of the encoder, D levels; `smoothing`
    counts the smoothing layers of each, of which the last has none, because no
    subsampling follows. Smoothing acts on the map that is pooled, and not on what the
    decoder takes from the encoder.

    Dropout drops single values, or whole channels with `mask="channel"`. Its default
    places are the reference's: the encoder from level 3, and the decoder but for its
    last stages; see `default_dropout`. `mc_stages` chooses others, by the numbers of
    `stage1`, ..., and "head". `stage_rates` and `dropout_placement` are for
    classifiers.

    `stem`, `head` and `head_temperature` have no meaning here.

    Attributes:
      stages: Number of convolutions of each level of the encoder.
      smoothing: Number of smoothing layers of each level of the encoder.
      padding: "zero", "reflect", "edge" or "wrap", which preserve the size, or "full".
        With an even number of taps, those that preserve the size move the map by half
        a pixel; `taps=(1, 2, 1)` does not.
      norm_momentum: Weight of the old running statistics of batch normalisation, in
        [0, 1]. The default is the reference's, Keras's; it suits small batches, and
        takes some hundred steps to forget its first values.
    """

    task: ClassVar[str] = "segmentation"

    stages: Sequence[int] = (2, 2, 3, 3, 3)
    smoothing: Sequence[int] = (0, 0, 0, 0, 0)
    padding: str = "zero"
    norm_momentum: float = 0.99

    def segmentation_parts(self, layers: Layers) -> Iterator[Part]:
        """Yields the parts below the last convolution, in order."""
        raise NotImplementedError

    def num_stages(self) -> int:
        """Number of stages of encoder and decoder together."""
        raise NotImplementedError

    def default_dropout(self) -> set[int]:
        """Numbers of the stages that have dropout where `mc_stages` is None."""
        raise NotImplementedError

    def parts(self, layers: Layers) -> Iterator[tuple[str, Function]]:
        """Is for networks that are a chain of functions; this one has `Part`s."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        images: jax.Array | Maps,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        half: str | None = None,
    ) -> jax.Array | Maps:
        """Classifies the pixels of images.

        Args:
          images: f32[B, H, W, 3], normalised.
          train: Whether to normalise by the statistics of the batch.
          mask: bool[B], the images that are not padding; None for all.
          half: "deterministic" runs the part before the first dropout only, which
            is the same for all samples. "stochastic" runs the rest, which takes the
            result of the former in place of `images`. None runs both.

        Returns:
          Logits, f32[B, H, W, K]; of the deterministic half, `Maps`.

        Raises:
          ValueError: if training has dropout to do and there is no rng "dropout", and
            for unusable fields.
        """
        lookup(STEMS, self.stem, "stem")
        if half not in (None, *HALVES):
            raise unknown("half", half, HALVES)
        numbers = range(1, self.num_stages() + 1)
        self._stages([(f"stage{number}", None) for number in numbers])
        if self.ensemble is not None:
            raise ValueError(
                f"ensemble {self.ensemble!r} is for classifiers, and "
                f"{type(self).__name__} classifies pixels; leave it out"
            )
        if self.spectral_bound is not None:
            raise ValueError(
                f"spectral_bound {self.spectral_bound} is for classifiers, and "
                f"{type(self).__name__} classifies pixels; leave it out"
            )
        if self.smoothing[-1]:
            raise ValueError(
                f"smoothing {tuple(self.smoothing)} must end with 0: no subsampling "
                "follows the last level of the encoder"
            )
        self._check_dropout_of_stages()
        layers = layers_lib.bind(
            self,
            train=train,
            mask=mask,
            rate=self.rate,
            dtype=self.dtype,
            dropout_of_channels=self.mask == "channel",
        )
        maps = images
        if half != "stochastic":
            if images.ndim != 4:
                raise ValueError(f"images are [B, H, W, 3], got shape {images.shape}")
            x = images if self.dtype is None else images.astype(self.dtype)
            maps = Maps(x)
        is_stochastic = False
        # All parts are made in both halves, so that layers get the same names.
        for part in list(self.segmentation_parts(layers)):
            is_stochastic = is_stochastic or part.has_dropout  # and so is all below
            if half == "deterministic" and is_stochastic:
                break
            if half == "stochastic" and not is_stochastic:
                continue
            maps = part.apply(maps)
            if part.name is not None:
                self.sow("intermediates", part.name, maps.x)
        if half == "deterministic":
            return maps
        x = self.layers_of(HEAD, layers).dropout()(maps.x)
        # Logits are float32 whatever the network computes in.
        wide = ops.at_least_float32(x.dtype)
        logits = nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=nn.initializers.glorot_uniform(),
            dtype=wide,
            name="head",
        )(x.astype(wide))
        self.sow("intermediates", "logits", logits)
        return logits

    def _check_dropout_of_stages(self) -> None:
        """Raises ValueError for fields of dropout that these networks do not have."""
        lookup(dict.fromkeys(MASKS), self.mask, "mask")
        if self.stage_rates is not None:
            raise ValueError(
                f"stage_rates {tuple(self.stage_rates)} are for classifiers; a network "
                "for segmentation has one rate, and mc_stages says where"
            )
        if self.dropout_placement != "residual":
            raise ValueError(
                f"dropout_placement {self.dropout_placement!r} is for classifiers; of "
                "a network for segmentation, mc_stages says where dropout is"
            )

    def _has_dropout(self, part: int | str) -> bool:
        if self.mc_stages is None:
            return part in self.default_dropout()
        return part in self.mc_stages

    def convolutions(
        self,
        stage: int,
        widths: Sequence[int],
        layers: Layers,
        *,
        relu_first: bool,
    ) -> Function:
        """Returns the convolutions of a stage.

        Args:
          stage: Number of the stage.
          widths: Number of channels of each convolution.
          layers: Layer constructors of the network.
          relu_first: Whether the ReLU comes before the normalisation.
        """
        blocks = [
            ConvBlock(
                layers,
                features=width,
                relu_first=relu_first,
                momentum=self.norm_momentum,
                name=f"stage{stage}_block{number}",
            )
            for number, width in enumerate(widths)
        ]
        return chain(*blocks)

    def dropped(self, stage: int, layers: Layers) -> Iterator[Part]:
        """Yields the dropout behind a stage, where there is one.

        Args:
          stage: Number of the stage.
          layers: Layer constructors of the network.
        """
        if self._has_dropout(stage):
            yield on_map(layers.dropout(), has_dropout=True)

    def smoothed(self, stage: int, layers: Layers) -> Part:
        """Returns the smoothing of a level of the encoder, which may be none.

        Args:
          stage: Number of the level, from 1.
          layers: Layer constructors of the network.
        """
        count = self.smoothing[stage - 1]
        return on_map(lambda x: self._smooth(x, layers, stage, count))


def on_map(
    function: Function, *, name: str | None = None, has_dropout: bool = False
) -> Part:
    """Returns a part that changes the feature map only.

    Args:
      function: Function of the map f[B, h, w, C].
      name: Name under which the result can be captured; None for none.
      has_dropout: Whether the function is a dropout.
    """
    return Part(lambda maps: maps._replace(x=function(maps.x)), name, has_dropout)


def pool(x: jax.Array) -> jax.Array:
    """Takes the largest of each 2x2 window, stride 2; odd sizes are rounded up.

    Args:
      x: f[B, H, W, C].
    """
    # By Flax's function, so that `add_smoothing` finds the pool.
    return nn.max_pool(x, (2, 2), (2, 2), "SAME")


def cropped(x: jax.Array, like: jax.Array) -> jax.Array:
    """Returns the upper left part of a map, of the height and width of another.

    Args:
      x: f[B, h, w, C], at least as high and wide as `like`.
      like: [B, H, W, C'].
    """
    height, width = like.shape[1:3]
    return x[:, :height, :width]


def places_of_maxima(x: jax.Array) -> jax.Array:
    """Tells which values `pool` takes: of each window one, the first of equal ones.

    Args:
      x: f[B, H, W, C].

    Returns:
      bool[B, H, W, C].
    """
    height, width = x.shape[1:3]
    edges = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    padded = jnp.pad(x, edges, constant_values=-jnp.inf)
    batch, high, wide, channels = padded.shape
    windows = padded.reshape(batch, high // 2, 2, wide // 2, 2, channels)
    is_largest = windows == windows.max((2, 4), keepdims=True)
    # In the order of rows: a value is taken if none before it is.
    upper_left, upper_right = is_largest[:, :, 0, :, 0], is_largest[:, :, 0, :, 1]
    lower_left, lower_right = is_largest[:, :, 1, :, 0], is_largest[:, :, 1, :, 1]
    upper_right &= ~upper_left
    upper = upper_left | upper_right
    lower_left &= ~upper
    lower_right &= ~(upper | lower_left)
    rows = [
        jnp.stack(pair, axis=3)
        for pair in ((upper_left, upper_right), (lower_left, lower_right))
    ]
    places = jnp.stack(rows, axis=2).reshape(padded.shape)
    return places[:, :height, :width]


def unpool(x: jax.Array, places: jax.Array) -> jax.Array:
    """Puts values back to where a pool had taken them from, zeros elsewhere.

    Args:
      x: f[B, h, w, C], of the size of the pooled map, or larger.
      places: bool[B, H, W, C], from `places_of_maxima`.

    Returns:
      f[B, H, W, C].
    """
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    # A product, and not `where`, which would hide that a network returns NaN.
    return cropped(doubled, places) * places.astype(x.dtype)
