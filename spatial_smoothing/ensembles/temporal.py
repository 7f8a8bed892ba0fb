"""Temporal smoothing: the prediction of a frame averaged with those around it.

Contract of this file: `probs` are f[T, ..., K], frames first, the oldest first, K
probabilities that sum to one. A frame t frames away weighs exp(-decay |t|). Averages
are of probabilities, in at least float32; each frame is predicted once. Source:
Park et al., "Vector Quantized Bayesian Neural Network Inference for Data Streams", AAAI
2021, whose time constant tau is 1 / decay.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.ensembles import sampling
from spatial_smoothing.ensembles.apply import (
    Variables,
    as_apply,
    is_stochastic,
    variables_of,
)
from spatial_smoothing.ensembles.mixtures import Mixture


def importance(*, past: int = 5, future: int = 0, decay: float = 0.8) -> jax.Array:
    """Weights of the frames of a window: exp(-decay |t|), normalised.

    Args:
      past: Number of frames before the present one, at least 0.
      future: Number of frames after the present one, at least 0. They delay the
        prediction.
      decay: Decay of the weights per frame, at least 0; with 0 all frames weigh the
        same.

    Returns:
      f32[past + 1 + future], oldest first, of sum one.

    Raises:
      ValueError: for numbers out of range.
    """
    return jnp.asarray(np.exp(_log_importance(past, future, decay)), jnp.float32)


def temporal_smooth(
    probs: jax.Array, *, past: int = 5, future: int = 0, decay: float = 0.8
) -> jax.Array:
    """Smooths the predictions of a sequence: a weighted mean over a sliding window.

    Args:
      probs: f[T, ..., K], one prediction a frame.
      past: Number of frames before the present one, at least 0.
      future: Number of frames after the present one, at least 0.
      decay: Decay of the weights per frame, at least 0.

    Returns:
      f32[T - past - future, ..., K], of the frames that have a whole window: `past` to
      T - future - 1.

    Raises:
      ValueError: if no frame has a whole window, and as `importance`.
    """
    weights = np.exp(_log_importance(past, future, decay))
    return sum(
        float(weight) * part
        for weight, part in zip(weights, _shifted(probs, past, future), strict=True)
    )


def temporal_log_smooth(
    log_probs: jax.Array, *, past: int = 5, future: int = 0, decay: float = 0.8
) -> jax.Array:
    """Logarithm of `temporal_smooth`, without underflow: a log-sum-exp.

    Args:
      log_probs: f[T, ..., K], log-probabilities, one prediction a frame.
      past: Number of frames before the present one, at least 0.
      future: Number of frames after the present one, at least 0.
      decay: Decay of the weights per frame, at least 0.

    Returns:
      f32[T - past - future, ..., K]; finite wherever one of the frames is.
    """
    weights = _log_importance(past, future, decay)
    parts = _shifted(log_probs, past, future)
    terms = [part + float(w) for w, part in zip(weights, parts, strict=True)]
    # Rounding may leave the mean of certain predictions slightly above log 1.
    return jnp.minimum(jax.nn.logsumexp(jnp.stack(terms), axis=0), 0)


def smooth_mixtures(frames: Mixture, *, past: int = 5, decay: float = 0.8) -> Mixture:
    """Smooths ensembles over time: `temporal_log_smooth` of all that they sum up.

    Predictions of different frames may disagree, as those of different samples do.

    Args:
      frames: Mixtures with a leading axis of T frames, all of one size.
      past: Number of frames before the present one, at least 0.
      decay: Decay of the weights per frame, at least 0.

    Returns:
      Mixtures with a leading axis of T - past frames.

    Raises:
      ValueError: as `temporal_smooth`.
    """
    weights = np.exp(_log_importance(past, 0, decay))
    parts = zip(
        weights, *(_shifted(x, past, 0) for x in jax.tree.leaves(frames)), strict=True
    )
    structure = jax.tree.structure(frames)
    windows = [
        jax.tree.unflatten(structure, leaves).weighted(
            jnp.full(leaves[0].shape, weight, jnp.float32)
        )
        for weight, *leaves in parts
    ]
    return functools.reduce(operator.add, windows)


@flax.struct.dataclass
class LogState:
    """What has been seen of B streams, on the scale of logarithms.

    It does what `TemporalState` does, without underflow, and each stream may begin at
    another time.

    Attributes:
      log_total: f32[B, ..., K], logarithm of the weighted sum of the probabilities of
        all frames of a stream.
      weight: f32[B], sum of the weights; 0 before the first frame.
    """

    log_total: jax.Array
    weight: jax.Array


def init_log_state(like: jax.Array) -> LogState:
    """Returns the state of B streams before their first frames.

    Args:
      like: f[B, ..., K], predictions of the shape of those to come.
    """
    log_total = jnp.full(like.shape, -jnp.inf, jnp.float32)
    return LogState(log_total, jnp.zeros(like.shape[0], jnp.float32))


def forget(state: LogState, is_over: jax.Array) -> LogState:
    """Returns the state in which some of the streams have not begun.

    Args:
      state: State of B streams.
      is_over: bool[B], the streams of which nothing is kept.
    """
    over = is_over.reshape(-1, *[1] * (state.log_total.ndim - 1))
    return LogState(
        jnp.where(over, -jnp.inf, state.log_total), jnp.where(is_over, 0, state.weight)
    )


def log_update(
    state: LogState, log_probs: jax.Array, starts: jax.Array, *, decay: float = 0.8
) -> tuple[LogState, jax.Array]:
    """Takes in one frame of each of B streams: `update`, on the scale of logarithms.

    Args:
      state: State after the frames before.
      log_probs: f[B, ..., K], log-probabilities of this frame.
      starts: bool[B], the streams whose first frame this is: what was before is
        forgotten.
      decay: Decay of the weights per frame, at least 0.

    Returns:
      The new state, and f32[B, ..., K], log of the mean of all frames so far, weighed
      by exp(-decay age).

    Raises:
      ValueError: for a negative decay.
    """
    kept = math.exp(-_checked_decay(decay))
    before = forget(state, starts)
    wide = log_probs.astype(jnp.float32)
    log_total = jnp.logaddexp(wide, before.log_total - decay)
    weight = 1 + kept * before.weight
    log_weight = jnp.log(weight).reshape(-1, *[1] * (wide.ndim - 1))
    # Rounding may leave the mean of certain predictions slightly above log 1.
    return LogState(log_total, weight), jnp.minimum(log_total - log_weight, 0)


@flax.struct.dataclass
class TemporalState:
    """What has been seen of a stream, however long.

    Attributes:
      total: f32[..., K], weighted sum of the probabilities of all frames.
      weight: f32[], sum of the weights; tends to 1 / (1 - exp(-decay)).
    """

    total: jax.Array
    weight: jax.Array


def init_state(shape: tuple[int, ...]) -> TemporalState:
    """Returns the state before the first frame, for predictions of `shape`."""
    return TemporalState(jnp.zeros(shape, jnp.float32), jnp.zeros((), jnp.float32))


def steady_state(probs: jax.Array, *, decay: float = 0.8) -> TemporalState:
    """Returns the state as if all frames so far had been predicted as `probs`.

    From the steady state of the first prediction, `update` is the plain exponential
    moving average of the paper: q = a p + (1 - a) q with a = 1 - exp(-decay).

    Args:
      probs: f[..., K], class probabilities.
      decay: Decay of the weights per frame, above 0, because the weight is 1 / a.

    Raises:
      ValueError: for another decay.
    """
    rate = 1 - math.exp(-_checked_decay(decay))
    if rate == 0:
        raise ValueError("a decay of 0 has no steady state")
    return TemporalState(probs.astype(jnp.float32) / rate, jnp.float32(1 / rate))


def update(
    state: TemporalState, probs: jax.Array, *, decay: float = 0.8
) -> tuple[TemporalState, jax.Array]:
    """Takes in one frame: the mean of all so far, weighed by exp(-decay age).

    With d = exp(-decay): S <- p + d S and Z <- 1 + d Z, the mean is S / Z. Weights sum
    to one from the first frame on, and rounding errors decay with the frames.

    Args:
      state: State after the frames before; the first is that of `init_state`.
      probs: f[..., K], class probabilities of this frame.
      decay: Decay of the weights per frame, at least 0: a number, the same for all
        frames.

    Returns:
      The new state, and f32[..., K].

    Raises:
      ValueError: for a negative decay.
    """
    kept = math.exp(-_checked_decay(decay))
    total = probs.astype(jnp.float32) + kept * state.total
    weight = 1 + kept * state.weight
    return TemporalState(total, weight), total / weight


@flax.struct.dataclass
class StreamState:
    """Where a stream of frames stands.

    Attributes:
      frame: i32[], number of the next frame, which draws from `fold_in(key, frame)`.
      smoothing: State of the smoothing after the predictions so far.
      latest: f32[B, ..., K], the last frame's own prediction, not smoothed.
    """

    frame: jax.Array
    smoothing: TemporalState
    latest: jax.Array


class Stream(NamedTuple):
    """A network that classifies or segments streams, as two pure functions.

    Attributes:
      init: Frame u8[B, H, W, 3] -> the state before the first; only shapes matter.
      step: (state, key, frame) -> the new state, and smoothed probabilities
        f32[B, ..., K]: [B, K] of a classifier, [B, H, W, K] of a network that segments.
        Give the same key at every step.
    """

    init: Callable[[jax.Array], StreamState]
    step: Callable[[StreamState, jax.Array, jax.Array], tuple[StreamState, jax.Array]]


def stream(
    model: Any,
    variables: Variables,
    *,
    prepare: Callable[[jax.Array], jax.Array],
    num_samples: int = 1,
    decay: float = 0.8,
    chunk: int | None = None,
) -> Stream:
    """Makes a network one that classifies or segments streams.

    Args:
      model: A Linen module, an NNX module, or a function `(variables, images, key) ->
        logits`; see `as_apply`.
      variables: Variables of the network; None for those of an NNX module itself.
      prepare: Raw frames to those that the network takes.
      num_samples: Number of dropout samples of each frame, at least 1: passes of the
        network. A network without dropout makes one pass whatever this says.
      decay: Decay of the weights per frame, at least 0.
      chunk: Number of samples computed at once; see `mc_logits`.

    Returns:
      Functions for `jit`, and for `lax.scan` over the frames.

    Raises:
      ValueError: for numbers out of range.
    """
    _checked_decay(decay)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    network = as_apply(model)
    variables = variables_of(model, variables)

    def logits(key: jax.Array, frame: jax.Array) -> jax.Array:
        images = prepare(frame)
        if not is_stochastic(network, variables, images, key):
            return network.predictions(variables, images, None)
        return sampling.mc_logits(
            key, network, variables, images, num_samples=num_samples, chunk=chunk
        )

    def init(frame: jax.Array) -> StreamState:
        shape = jax.eval_shape(logits, jax.random.key(0), frame).shape[1:]
        latest = jnp.zeros(shape, jnp.float32)
        return StreamState(jnp.int32(0), init_state(shape), latest)

    def step(
        state: StreamState, key: jax.Array, frame: jax.Array
    ) -> tuple[StreamState, jax.Array]:
        samples = logits(jax.random.fold_in(key, state.frame), frame)
        latest = jax.nn.softmax(samples.astype(jnp.float32)).mean(0)
        smoothing, probs = update(state.smoothing, latest, decay=decay)
        return StreamState(state.frame + 1, smoothing, latest), probs

    return Stream(init, step)


def _checked_decay(decay: float) -> float:
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay must be at least 0 and finite, got {decay}")
    return decay


def _log_importance(past: int, future: int, decay: float) -> np.ndarray:
    """The logarithm of `importance`, in float64 on the host."""
    for name, value in (("past", past), ("future", future)):
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    exponents = -_checked_decay(decay) * np.abs(np.arange(-past, future + 1))
    return exponents - np.log(np.exp(exponents).sum())


def _shifted(values: jax.Array, past: int, future: int) -> list[jax.Array]:
    """The sequence, shifted to each frame of the window, oldest first."""
    window = past + 1 + future
    length = len(values) - window + 1
    if length < 1:
        raise ValueError(
            f"a window of {past} past and {future} future frames needs a sequence of "
            f"at least {window} frames, got {len(values)}"
        )
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return [wide[start : start + length] for start in range(window)]
