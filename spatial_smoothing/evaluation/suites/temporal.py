"""Temporal smoothing of ensembles, on sequences made of a data set's images.

Contract of this file: the last frame of a sequence is the image itself, so that its
label holds. Each frame is predicted once, and the last one for all ensembles together:
temporal smoothing takes what they have of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.data import streams
from spatial_smoothing.ensembles import Lineup, Predict, Predictions, temporal
from spatial_smoothing.ensembles.mixtures import Mixture
from spatial_smoothing.metrics import consistency

# Name -> score of how steady the predictions of a sequence of frames are.
_STEADINESS = {
    "consistency": consistency.consistency,
    "cec": consistency.cec,
    "cec_sum": consistency.cec_sum,
}


@dataclasses.dataclass(frozen=True)
class Window:
    """How sequences are made and smoothed.

    Attributes:
      past: Number of frames before the present one that smoothing takes in.
      decay: A frame t frames ago weighs exp(-decay t).
      num_frames: Length of the sequences, at least past + 1.

    Raises:
      ValueError: for numbers out of range.
    """

    past: int = 5
    decay: float = 0.8
    num_frames: int = 8

    def __post_init__(self):
        # It raises ValueError if one of the two is out of range.
        temporal.importance(past=self.past, decay=self.decay)
        if self.num_frames <= self.past:
            raise ValueError(
                f"num_frames must be at least {self.past + 1}, one more than past, "
                f"got {self.num_frames}"
            )


def predictor(
    present: Predict,
    before: Predict,
    *,
    sizes: Sequence[int],
    num_members: int,
    window: Window,
) -> Predict:
    """Adds temporal smoothing to ensembles.

    Args:
      present: Predicts the image itself, by a `Lineup`.
      before: Predicts an earlier frame, by a `Lineup` of `sizes`.
      sizes: Numbers of samples of a frame to smooth over time with; `present` predicts
        with these too.
      num_members: Number of members M. They draw from `fold_in(key, index)`, and the
        frame t frames ago from `fold_in(key, M + t)`.
      window: Length and weights of the window.

    Returns:
      A function to the mixtures of `present` and, in a second `Lineup`, those smoothed
      over time. The extra scores say how steady the last num_frames - past frames are,
      of the ensembles that see more than one.
    """

    def predict(variables: Any, key: jax.Array, images: jax.Array) -> Predictions:
        frames = streams.moving_crop(images, num_frames=window.num_frames)
        now = present(variables, key, frames[-1]).mixtures

        def of_earlier(inputs: tuple[jax.Array, jax.Array]) -> Lineup:
            age, frame = inputs
            frame_key = jax.random.fold_in(key, num_members + age)
            return before(variables, frame_key, frame).mixtures

        # Frame by frame: all at once would need the memory of so many batches.
        ages = jnp.arange(window.num_frames - 1, 0, -1)
        earlier = jax.lax.map(of_earlier, (ages, frames[:-1]))
        # The last frame is the image itself, which is predicted already.
        single = jax.tree.map(
            lambda past, one: jnp.concatenate([past, one[None]]),
            earlier,
            now.at_sizes(sizes),
        )
        smooth = _over_mixtures(
            lambda frames: temporal.smooth_mixtures(
                frames, past=window.past, decay=window.decay
            ),
            single,
        ).replace(temporal=True)
        last = jax.tree.map(lambda leaf: leaf[-1], smooth)
        # Smoothing leaves out the first `past` frames: they have no whole window.
        recent = jax.tree.map(lambda leaf: leaf[window.past :], single)
        return Predictions([now, last], _steadiness([recent, smooth]))

    return predict


def _steadiness(frames: list[Lineup]) -> dict[str, list[Lineup]]:
    """Returns the scores of how steady predictions are.

    Args:
      frames: Line-ups of mixtures with a leading axis of frames.

    Returns:
      Name of the score -> for each of `frames` a line-up of f32[..., B]; none for a
      single frame.
    """
    if len(frames[0].each.size) < 2:
        return {}

    def of_mixture(
        score: Callable[[jax.Array], jax.Array], mixture: Mixture
    ) -> jax.Array:
        # The first axis is that of frames, which the score takes; it is vectorised over
        # those that follow: members and sizes.
        mapped = score
        for _ in range(mixture.size.ndim - 1):
            mapped = jax.vmap(mapped, 1)
        return mapped(mixture.log_probs())

    return {
        name: [
            _over_mixtures(functools.partial(of_mixture, score), lineup)
            for lineup in frames
        ]
        for name, score in _STEADINESS.items()
    }


def _over_mixtures(function: Callable[[Mixture], Any], lineup: Lineup) -> Lineup:
    """Applies a function to every mixture of a line-up, with its leading axes."""
    is_mixture = lambda x: isinstance(x, Mixture)
    return jax.tree.map(function, lineup, is_leaf=is_mixture)
