"""What all networks share: stages, smoothing between them, a head on top.

Contract: images are f32[B, H, W, 3], normalised; logits are f32[B, K], or f32[M, B, K]
of a network with an `ensemble`, whose pass makes M predictions. The output of each part
can be captured as the intermediate of its name: `stem`, `stage1`, `smooth1`, ...,
`logits` (`apply(..., mutable=["intermediates"])`).
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax

from spatial_smoothing import layers as layers_lib
from spatial_smoothing.layers import Function, Layers, SpatialSmoothing
from spatial_smoothing.lookup import lookup, unknown
from spatial_smoothing.models import heads, rivals
from spatial_smoothing.models.rivals import spectral

HEAD = "head"  # as an entry of `mc_stages`
MASKS = ("element", "channel")
PLACEMENTS = ("residual", "all", "last")
HALVES = ("deterministic", "stochastic")
STEMS = {"cifar": "for images of about 32x32", "imagenet": "for about 224x224"}


class Network(nn.Module):
    """A convolutional network of stages, each followed by spatial smoothing or not.

    Attributes:
      num_classes: Number of classes K.
      stem: "cifar" or "imagenet": how soon the first layers subsample.
      width: Channels of the first stage; the others are multiples of it.
      stages: Number of blocks, or convolutions, of each stage.
      rate: Probability of block dropout to drop a value, in [0, 1). Dropout is live
        exactly when `apply` is given an rng named "dropout", in training and
        evaluation alike.
      stage_rates: Rates of the stages, in place of `rate`: one for each stage and,
        where `mc_stages` names the head, one more for it. A stage of rate 0 has no
        dropout. None for `rate` everywhere.
      mask: What one draw of dropout decides: "element" is one value of the map of an
        example, "channel" is a whole channel of it.
      dropout_placement: Where a stage with dropout has it. "residual" is the paper's:
        in front of the last convolution of a residual block, and behind every
        convolution of VGG and AlexNet. "all" adds all other places: at the beginning of
        the first stage, which is behind the stem; in front of every convolution of a
        residual block, behind the last one, and behind a projected shortcut. VGG and
        AlexNet have no more places. "last" is in front of the last dense layer alone.
      smoothing: Number of smoothing layers after each stage.
      temperature: Scale t > 0 of the squashing function; None for its own default.
      squash: Squashing function of the smoothing: "tanh", "sigmoid", "softmax", "clip",
        "scale" or "none".
      taps: One-dimensional blur kernel of the smoothing; None for no blur.
      padding: "full", the paper's, or "zero", "reflect", "edge", "wrap", which preserve
        the size and make a different model.
      smoothing_norm: Whether each smoothing layer begins with batch normalisation.
      mc_stages: Where dropout is: numbers of stages, as in the name `stage4`, and
        "head", in front of the last dense layer; None for the paper's, all stages.
      head: A key of `heads.HEADS`.
      head_temperature: Scale t > 0 of the values that the head "gap_clip" bounds.
      ensemble: How one pass makes several predictions, a key of `rivals.ENSEMBLES`:
        "batch" (BatchEnsemble), "packed" (Packed-Ensembles), "masksembles" or "mimo";
        None for one prediction.
      ensemble_size: Number of predictions M of a pass, at least 2, if there is an
        `ensemble`.
      alpha: Number of channels of all members of "packed" together, in units of those
        of this network, above 0.
      gamma: Number of groups of the channels of each member of "packed", at least 1.
      scale: How little the masks of the members of "masksembles" overlap, in [1, 6].
      repetition: Probability, in [0, 1], that a place of a training batch of "mimo" has
        the same image for all members.
      batch_repetitions: How often a training batch of "mimo" has each image, at least
        1.
      spectral_bound: Bound, above 0, of the largest singular value of the kernels of
        convolutions, as DDU trains with; None for no bound.
      dtype: Compute type; parameters, statistics and logits stay float32.
    """

    # What a label is of, as in `data.sources.Source`.
    task: ClassVar[str] = "classification"

    num_classes: int
    stem: str = "cifar"
    width: int = 64
    stages: Sequence[int] = (2, 2, 2, 2)
    rate: float = 0.0
    stage_rates: Sequence[float] | None = None
    mask: str = "element"
    dropout_placement: str = "residual"
    smoothing: Sequence[int] = (0, 0, 0, 0)
    temperature: float | None = None
    squash: str = "tanh"
    taps: Sequence[float] | None = (1, 1)
    padding: str = "full"
    smoothing_norm: bool = False
    mc_stages: Sequence[int | str] | None = None
    head: str = "gap"
    head_temperature: float = 2.0
    ensemble: str | None = None
    ensemble_size: int = 4
    alpha: float = 2.0
    gamma: int = 1
    scale: float = 2.0
    repetition: float = 0.0
    batch_repetitions: int = 1
    spectral_bound: float | None = None
    dtype: Any = None

    first_stage: ClassVar[int] = 1  # number of the first stage in the names of parts

    def parts(self, layers: Layers) -> Iterator[tuple[str, Function]]:
        """Yields name and function of each part below the head, in order.

        Smoothing follows the parts called `stage*`.
        """
        raise NotImplementedError

    def head_grid(self) -> int:
        """Side of the grid that the head "mlp" pools to."""
        return 7

    @property
    def has_dropout(self) -> bool:
        """Whether samples of the network differ, where an rng "dropout" is given."""
        return self._largest_rate() > 0

    @property
    def num_predictions(self) -> int:
        """Number of predictions of one pass: M with an `ensemble`, else 1."""
        return 1 if self.ensemble is None else self.ensemble_size

    def layers_of(self, part: int | str, layers: Layers) -> Layers:
        """Returns the layers for a stage, by number, or the "head".

        They have dropout only where `mc_stages` and `dropout_placement` say, and with
        the rate of the part.
        """
        if not self._has_dropout(part):
            return layers.without_dropout()
        if self.stage_rates is None:
            return layers
        return layers.with_rate(self._rate_of(part))

    def _check_dropout(self) -> None:
        """Raises ValueError for fields of dropout that do not fit each other."""
        lookup(dict.fromkeys(MASKS), self.mask, "mask")
        lookup(dict.fromkeys(PLACEMENTS), self.dropout_placement, "dropout_placement")
        if self.dropout_placement == "last":
            for field in ("mc_stages", "stage_rates"):
                if getattr(self, field) is not None:
                    raise ValueError(
                        f"dropout_placement 'last' is dropout in the head alone, and "
                        f"{field} is {getattr(self, field)}; leave one of the two out"
                    )
        if self.stage_rates is None:
            return
        has_head = HEAD in (self.mc_stages or ())
        if len(self.stage_rates) != len(self.stages) + has_head:
            head = " and one for the head" if has_head else ""
            raise ValueError(
                f"stage_rates {self.stage_rates} must have one rate for each of the "
                f"{len(self.stages)} stages{head}"
            )
        if not all(0 <= rate < 1 for rate in self.stage_rates):
            raise ValueError(f"stage_rates must be in [0, 1), got {self.stage_rates}")
        if self.ensemble == "masksembles" and not self._largest_rate():
            raise ValueError(
                "the ensemble 'masksembles' has masks where dropout may be, and "
                f"stage_rates {self.stage_rates} leave no place: all members would be "
                "equal; leave them out"
            )

    def _has_dropout(self, part: int | str) -> bool:
        if self.dropout_placement == "last":
            return part == HEAD
        listed = part != HEAD if self.mc_stages is None else part in self.mc_stages
        # What comes before the first part with a rate is the same for all samples.
        return listed and (self.stage_rates is None or self._rate_of(part) > 0)

    def _rate_of(self, part: int | str) -> float:
        """Returns the rate of a stage, by number, or of the "head"."""
        if self.stage_rates is None:
            return self.rate
        if part == HEAD:
            return self.stage_rates[-1]
        return self.stage_rates[part - self.first_stage]

    def _largest_rate(self) -> float:
        if self.stage_rates is None:
            return self.rate
        stages = range(self.first_stage, self.first_stage + len(self.stages))
        parts = [part for part in (*stages, HEAD) if self._has_dropout(part)]
        return max(map(self._rate_of, parts), default=0.0)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        half: str | None = None,
    ) -> jax.Array:
        """Classifies images.

        Args:
          images: f32[B, H, W, 3], normalised. With the ensemble "mimo" they may be
            f32[B, H, W, 3 M], the images of the members side by side.
          train: Whether to normalise by the statistics of the batch.
          mask: bool[B], the examples that are not padding; None for all.
          half: "deterministic" runs the part before the first dropout only, which
            is the same for all samples. "stochastic" runs the rest, which takes the
            result of the former in place of `images`. None runs both.

        Returns:
          Logits, f32[B, K], or f32[M, B, K] of a network with an `ensemble`; of the
          deterministic half, a feature map `[B, H, W, C]`.

        Raises:
          ValueError: if training has dropout to do and there is no rng "dropout", and
            for unusable fields.
        """
        lookup(STEMS, self.stem, "stem")
        if half not in (None, *HALVES):
            raise unknown("half", half, HALVES)
        if images.ndim != 4:
            raise ValueError(f"images are [B, H, W, 3], got shape {images.shape}")
        self._check_dropout()
        rival = rivals.of(self)
        layers = layers_lib.bind(
            self,
            train=train,
            mask=mask if rival is None else rival.mask(mask),
            rate=self._largest_rate(),
            dtype=self.dtype,
            dropout_of_channels=self.mask == "channel",
            dropout_everywhere=self.dropout_placement == "all",
        )
        x = images if self.dtype is None else images.astype(self.dtype)
        if self.spectral_bound is not None:
            layers = self._with_bounded_kernels(layers, train=train)
        if rival is not None:
            layers = rival.layers(layers)
            if half != "stochastic":  # whose input is a map
                x = rival.spread(x)
        parts = list(self.parts(layers))
        counts = dict(zip(self._stages(parts), self.smoothing, strict=True))
        is_stochastic = False
        for name, part in parts:
            stage = _stage(name)
            if stage is not None and self._has_dropout(stage):
                is_stochastic = True  # and so is all that follows
            if half == "deterministic" and is_stochastic:
                break
            if half == "stochastic" and not is_stochastic:
                continue
            x = part(x)
            if 0 in x.shape[1:3]:
                height, width = images.shape[1:3]
                raise ValueError(
                    f"nothing is left of images of {height}x{width} after {name!r}; "
                    "take larger ones, or a network that subsamples less"
                )
            self.sow("intermediates", name, x)
            if stage is not None:
                x = self._smooth(x, layers, stage, counts[stage])
        if half == "deterministic":
            return x
        logits = heads.head(
            self.head,
            num_classes=self.num_classes,
            layers=self.layers_of(HEAD, layers),
            temperature=self.head_temperature,
            grid=self.head_grid(),
            train=train,
            name="head",
        )(x)
        if rival is not None:
            logits = rival.collect(logits)
        self.sow("intermediates", "logits", logits)
        return logits

    def _with_bounded_kernels(self, layers: Layers, *, train: bool) -> Layers:
        """Returns layers with spectral normalisation of their convolutions."""
        if not self.spectral_bound > 0:
            raise ValueError(
                f"spectral_bound must be above 0, got {self.spectral_bound}"
            )
        if self.ensemble == "packed":
            raise ValueError(
                "spectral_bound is of whole kernels, which members of the ensemble "
                "'packed' divide among them; leave one of the two out"
            )
        return spectral.layers(layers, bound=self.spectral_bound, train=train)

    def _stages(self, parts: Sequence[tuple[str, Function]]) -> list[int]:
        """Returns the numbers of the stages, having checked `mc_stages` by them."""
        numbers = [number for name, _ in parts if (number := _stage(name)) is not None]
        choices = [*numbers, HEAD]
        given = choices if self.mc_stages is None else self.mc_stages
        if not given or not set(given) <= set(choices):
            raise ValueError(
                f"mc_stages {tuple(given)} must name some of {tuple(choices)}; "
                "for no dropout take rate=0"
            )
        return numbers

    def _smooth(
        self, x: jax.Array, layers: Layers, stage: int, count: int
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


def _stage(part: str) -> int | None:
    """The number of a part that is a stage."""
    return int(part.removeprefix("stage")) if part.startswith("stage") else None


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
