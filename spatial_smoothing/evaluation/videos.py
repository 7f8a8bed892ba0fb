"""A pass over videos that segments every frame once, by all methods at once.

Contract of this file: a pass takes `Step`s: frame t of B streams, each of which may
begin at any step. The memory of the device depends neither on the number of images nor
on that of dropout samples: what is carried are sums and, for temporal smoothing, one
map of probabilities for each number of samples. Step number t draws from
`fold_in(key, t)`, so that every frame has fresh dropout masks. The host keeps a few
hundred numbers for each scored image and method, which the bootstrap resamples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.ensembles import temporal
from spatial_smoothing.ensembles.apply import ApplyFunction
from spatial_smoothing.ensembles.mixtures import mc_readings, single_mean
from spatial_smoothing.evaluation.scores import one_ahead
from spatial_smoothing.metrics import Tally, pixels
from spatial_smoothing.metrics.pixels import PixelSums
from spatial_smoothing.runtime import sharding

# Sums of a tally that the bootstrap does not need of each image.
_OF_TOTAL = ("class_count", "class_probability", "class_labelled")


class Method(NamedTuple):
    """Names a way to segment a frame.

    Attributes:
      dropout: Whether predictions are dropout samples; if not, there is one prediction,
        that of the network without dropout.
      num_samples: Number of predictions of a frame that are averaged.
      temporal: Whether they are smoothed over the frames before.
    """

    dropout: bool
    num_samples: int
    temporal: bool


@flax.struct.dataclass
class Step:
    """Frame t of B streams.

    Attributes:
      image: u8[B, H, W, 3].
      label: i32[B, H, W], classes in [0, K).
      mask: bool[B, H, W], the pixels that count.
      starts: bool[B], whether it is the first frame of a video.
      scored: bool[B], whether the frame is scored; others are only seen.
    """

    image: Any
    label: Any
    mask: Any
    starts: Any
    scored: Any


@flax.struct.dataclass
class Measured:
    """What is measured of a frame of B streams.

    Attributes:
      sums: Sums over its pixels.
      same: u32[B], pixels of the class that the frame before has there.
      compared: u32[B], pixels that are compared; 0 in the first frame of a video.
    """

    sums: PixelSums
    same: jax.Array
    compared: jax.Array


@flax.struct.dataclass
class Seen:
    """What is carried from frame to frame, for one number of samples.

    Attributes:
      smoothing: State of temporal smoothing.
      classes: i32[2, B, H, W], the most probable classes of the frame before, without
        and with temporal smoothing; i32[1, B, H, W] where there is none.
      measured: What is measured of the latest frame; leading axes as of `classes`.
    """

    smoothing: temporal.LogState
    classes: jax.Array
    measured: Measured


def stream_steps(dataset: Any, batch_size: int) -> Iterator[Step]:
    """Yields the steps of all videos from their first frames on, one pass a frame.

    Args:
      dataset: A `SegmentationDataset`.
      batch_size: B, number of videos that are shown at once.
    """
    for batch in dataset.streams(batch_size):
        yield Step(
            image=batch["image"],
            label=batch["label"],
            mask=batch["mask"],
            starts=batch["start"],
            scored=batch["example"] >= 0,
        )


def window_steps(dataset: Any, batch_size: int, *, past: int) -> Iterator[Step]:
    """Yields the steps of the windows of all labelled frames, each from its beginning.

    Temporal smoothing then averages over `past` frames before the present one, and not
    over all. Where few frames of long videos have labels, it takes fewer passes, too.

    Args:
      dataset: A `SegmentationDataset`.
      batch_size: B, number of windows that are shown at once.
      past: Number of frames before the labelled one, at least 0.
    """
    for batch in dataset.windows(batch_size, past=past):
        is_there = batch["frame_mask"]
        for time in range(past + 1):
            before = is_there[:, time - 1] if time else np.zeros(len(is_there), bool)
            yield Step(
                image=batch["image"][:, time],
                label=batch["label"],
                mask=batch["mask"],
                starts=~before,
                scored=is_there[:, time] & (time == past),
            )


class Scored(NamedTuple):
    """Sums over the scored images of a pass, on the host.

    Attributes:
      total: Sums over all pixels.
      histogram: i64[4096, 2], wrong and right pixels by confidence.
      images: Sums over the pixels of each of n images; leading axis n.
      shares: Name -> i64[n] and i64[n]: of `pavpu` the good windows and all windows, of
        `consistency` the pixels that keep their class and those that are compared.
    """

    total: Tally
    histogram: np.ndarray
    images: Tally
    shares: dict[str, tuple[np.ndarray, np.ndarray]]


def compile_scores(
    network: ApplyFunction,
    *,
    prepare: Callable[[jax.Array], jax.Array],
    sizes: Sequence[int],
    dropout: bool,
    smooths: bool = True,
    decay: float = 0.8,
    chunk: int | None = None,
) -> Callable[..., dict[Method, Scored]]:
    """Compiles `scores(variables, key, steps)`.

    Args:
      network: The network, with logits f[B, H, W, K].
      prepare: Raw images to those that the network takes.
      sizes: Increasing numbers of dropout samples N.
      dropout: Whether the network has dropout, so that there are samples of it beside
        the prediction without.
      smooths: Whether predictions are smoothed over frames too; if not, each frame is
        an image by itself.
      decay: Temporal smoothing weighs a frame t frames ago by exp(-decay t).
      chunk: Number of samples computed at once; see `mc_logits`.

    Returns:
      A function of variables, a key and an iterable of `Step`s to method -> `Scored`.
      It is compiled once for steps of one shape. It raises ValueError if no frame is
      scored.
    """
    # Whether it has dropout -> numbers of samples.
    groups = {False: (1,)} | ({True: tuple(sizes)} if dropout else {})

    def read_for(step: Step) -> Callable[[Any, Seen], Seen]:
        return lambda mean, seen: _seen(mean.log_probs(), seen, step, decay=decay)

    def advance(variables, key, index, step: Step, seen: dict[bool, Seen]):
        images = prepare(step.image)
        # One pass without dropout is a group with one size.
        first = jax.tree.map(lambda leaf: leaf[0], seen[False])
        mean = single_mean(network.apply(variables, images, None))
        alone = read_for(step)(mean, first)
        found = {False: jax.tree.map(lambda leaf: leaf[None], alone)}
        if dropout:
            found[True] = mc_readings(
                jax.random.fold_in(key, index),
                network,
                variables,
                images,
                sizes=groups[True],
                read=read_for(step),
                given=seen[True],
                chunk=chunk,
            )
        return found

    def unseen(variables, step: Step) -> dict[bool, Seen]:
        def logits(image: jax.Array) -> jax.Array:
            return network.apply(variables, prepare(image), None).astype(jnp.float32)

        first = _unseen(jax.eval_shape(logits, step.image), step, smooths=smooths)
        stacked = lambda count: jax.tree.map(
            lambda leaf: jnp.stack([leaf] * count), first
        )
        return {name: stacked(len(group)) for name, group in groups.items()}

    compiled = jax.jit(advance)

    def scores(variables, key, steps: Iterable[Step]) -> dict[Method, Scored]:
        seen = None

        def measured() -> Iterable[tuple[Any, Any]]:
            nonlocal seen
            for index, step in enumerate(steps):
                if seen is None:
                    seen = unseen(variables, step)
                seen = compiled(variables, key, index, step, seen)
                yield {k: one.measured for k, one in seen.items()}, step.scored

        collected: dict[Method, _Collected] = {}
        for found, scored in one_ahead(iter(measured())):
            found, scored = sharding.gather(found), sharding.gather(scored)
            for method, one in _by_method(found, groups):
                collected.setdefault(method, _Collected()).add(one, scored)
        return {method: each.result() for method, each in collected.items()}

    return scores


def _seen(log_probs: jax.Array, seen: Seen, step: Step, *, decay: float) -> Seen:
    """Takes in the predictions of a frame, f[B, H, W, K]."""
    smoothing, smooth = temporal.log_update(
        seen.smoothing, log_probs, step.starts, decay=decay
    )
    mask = step.mask & step.scored[:, None, None]
    is_pair = step.scored & ~step.starts

    def measure(log_probs: jax.Array, before: jax.Array) -> tuple[Any, Measured]:
        classes = log_probs.argmax(-1).astype(before.dtype)
        pairs = jnp.broadcast_to(is_pair[:, None, None], classes.shape)
        same, compared = pixels.agreement(classes, before, pairs)
        sums = pixels.pixel_sums(log_probs, step.label, mask)
        return classes, Measured(sums, same, compared)

    # `classes` has as many leading axes as there are kinds of predictions: one without
    # temporal smoothing, two with.
    kinds = jnp.stack([log_probs, smooth][: len(seen.classes)])
    classes, measured = jax.lax.map(lambda args: measure(*args), (kinds, seen.classes))
    return Seen(smoothing, classes, measured)


def _unseen(logits: jax.ShapeDtypeStruct, step: Step, *, smooths: bool) -> Seen:
    """What is carried before the first step: nothing seen, of the right shapes."""
    nothing = Seen(
        temporal.init_log_state(logits),
        jnp.zeros((1 + smooths, *logits.shape[:3]), jnp.int32),
        None,
    )
    like = jax.eval_shape(
        lambda seen, log_probs: _seen(log_probs, seen, step, decay=0.0), nothing, logits
    )
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like.measured)
    return nothing.replace(measured=empty)


def _by_method(found: dict[bool, Measured], groups: dict[bool, tuple[int, ...]]):
    """Yields each method and what is measured by it, without leading axes."""
    num_kinds = found[False].same.shape[1]
    for is_temporal in (False, True)[:num_kinds]:
        for dropout, sizes in groups.items():
            for index, size in enumerate(sizes):
                one = jax.tree.map(
                    lambda leaf, at=(index, int(is_temporal)): leaf[at], found[dropout]
                )
                yield Method(dropout, size, is_temporal), one


class _Collected:
    """Sums of one method over the steps so far."""

    def __init__(self):
        self._total = self._histogram = None
        self._images: list[Any] = []

    def add(self, found: Measured, scored: np.ndarray) -> None:
        """Adds the images that are scored."""
        sums = found.sums
        counted = jax.tree.map(lambda leaf: leaf[scored], sums.tally)
        part = jax.tree.map(_added_up, counted)
        histogram = sums.histogram.astype(np.int64)
        if self._total is None:
            self._total, self._histogram = part, histogram
        else:
            self._total = jax.tree.map(np.add, self._total, part)
            self._histogram = self._histogram + histogram
        counts = (sums.good_windows, sums.windows, found.same, found.compared)
        shares = tuple(each[scored].astype(np.int64) for each in counts)
        small = counted.replace(**dict.fromkeys(_OF_TOTAL))
        self._images.append((small, shares))

    def result(self) -> Scored:
        """Returns the sums, if any image was scored."""
        join = lambda *parts: np.concatenate(parts)
        images, counts = jax.tree.map(join, *self._images)
        if not len(images.count):
            raise ValueError("there is nothing to evaluate: no labelled frames")
        good, windows, same, compared = counts
        shares = {"pavpu": (good, windows), "consistency": (same, compared)}
        return Scored(self._total, self._histogram, images, shares)


def _added_up(values: np.ndarray) -> np.ndarray:
    """Sums over images, in 64 bits: exact for counts."""
    wide = np.float64 if values.dtype.kind == "f" else np.int64
    return values.astype(wide).sum(0)
