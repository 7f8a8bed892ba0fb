"""Temporal smoothing of ensembles, on sequences made of a data set's images.

Contract of this file: the last frame of a sequence is the image itself, so that its
label holds. Each frame is predicted once, and the last one for all ensembles together:
temporal smoothing takes what they have of it.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from spatial_smoothing.data import streams
from spatial_smoothing.ensembles import temporal
from spatial_smoothing.evaluation.scoring import Predict
from spatial_smoothing.metrics import consistency

_STEADINESS = {
    "consistency": consistency.consistency,
    "cec": consistency.cec,
    "cec_sum": consistency.cec_sum,
}


@dataclasses.dataclass(frozen=True)
class Window:
    """How sequences are made and smoothed.

    Attributes:
      past: Frames before the present one that smoothing takes in.
      decay: A frame t frames ago weighs exp(-decay t).
      num_frames: Length of the sequences, at least past + 1.

    Raises:
      ValueError: for numbers out of range.
    """

    past: int = 5
    decay: float = 0.8
    num_frames: int = 8

    def __post_init__(self):
        temporal.importance(past=self.past, decay=self.decay)  # refuses both
        if self.num_frames <= self.past:
            raise ValueError(
                f"num_frames must be at least {self.past + 1}, one more than past, "
                f"got {self.num_frames}"
            )


def predictor(
    present: Predict,
    before: Predict,
    *,
    shared: Sequence[int],
    num_members: int,
    window: Window,
) -> Predict:
    """Adds temporal smoothing to ensembles.

    Args:
      present: Predicts the image itself by R ensembles.
      before: Predicts an earlier frame by Q of them.
      shared: Which of the R these are.
      num_members: Members draw from `fold_in(key, index)`, and the frame t frames ago
        from `fold_in(key, num_members + t)`.
      window: Of the frames.

    Returns:
      A function to the mixtures of the R ensembles and of Q that are smoothed over
      time; and, of each of these R + Q, how steady the last num_frames - past frames
      are, f32[R + Q, B], NaN where that is not known: of ensembles that see the present
      frame only, or of a single frame.
    """

    def predict(variables, key, images):
        frames = streams.moving_crop(images, num_frames=window.num_frames)
        now = present(variables, key, frames[-1])
        ages = jnp.arange(window.num_frames - 1, 0, -1)
        earlier = jax.lax.map(
            lambda args: before(
                variables, jax.random.fold_in(key, num_members + args[0]), args[1]
            ),
            (ages, frames[:-1]),
        )
        every = jax.tree.map(
            lambda past, one: jnp.concatenate([past, one[None, jnp.asarray(shared)]]),
            earlier,
            now,
        )
        smooth = temporal.smooth_mixtures(every, past=window.past, decay=window.decay)
        both = jax.tree.map(
            lambda one, frames: jnp.concatenate([one, frames[-1]]), now, smooth
        )
        return both, _steadiness(
            every.log_probs()[window.past :],
            smooth.log_probs(),
            places=[*shared, *range(len(now.size), len(both.size))],
            count=len(both.size),
        )

    return predict


def _steadiness(
    frames: jax.Array, smooth: jax.Array, *, places: Sequence[int], count: int
) -> dict[str, jax.Array]:
    """Score -> f32[count, B], given log-probabilities f32[T, Q, B, K] of both kinds."""
    if len(frames) < 2:
        return {}
    log_probs = jnp.concatenate([frames, smooth], axis=1)
    unknown = jnp.full((count, log_probs.shape[2]), jnp.nan)
    return {
        name: unknown.at[jnp.asarray(places)].set(jax.vmap(score, 1)(log_probs))
        for name, score in _STEADINESS.items()
    }
