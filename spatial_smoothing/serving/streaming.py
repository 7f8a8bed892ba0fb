"""Streaming: trained networks that classify or segment the frames of a stream.

Contract of this file: frames are u8[B, H, W, 3], one of each of B streams, RGB and not
normalised, of the height and width of the data set. What is predicted for a frame
depends on the frames so far and the seed; each is given to the network once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from spatial_smoothing.data import augment
from spatial_smoothing.ensembles import temporal
from spatial_smoothing.ensembles.temporal import StreamState
from spatial_smoothing.runs import workdirs
from spatial_smoothing.runtime import random_bits
from spatial_smoothing.serving.loading import describe
from spatial_smoothing.serving.predictor import Description, checked_seed, count


class FramePrediction(NamedTuple):
    """Class probabilities of a frame, or of its pixels.

    Attributes:
      probs: f32[K], smoothed over the frames so far; of segmentation f32[H, W, K].
      entropy: Entropy of `probs`, in nats; of segmentation f32[H, W].
      frame_probs: f32[K] or f32[H, W, K], of this frame alone.
    """

    probs: np.ndarray
    entropy: float | np.ndarray
    frame_probs: np.ndarray


@dataclasses.dataclass(frozen=True)
class StreamPredictor:
    """Classifies or segments a stream, frame by frame.

    `init` and `step` are those of `temporal.Stream`, compiled, for any B; the call is a
    loop over them for one stream.

    Attributes:
      description: The network, its data set and its number of samples.
      decay: Decay of the weights per frame.
      init: Frame -> state before it.
      step: (state, key, frame) -> state, smoothed probabilities f32[B, K], or of
        segmentation f32[B, H, W, K].
    """

    description: Description
    decay: float
    init: Callable[[jax.Array], StreamState]
    step: Callable[[StreamState, jax.Array, jax.Array], tuple[StreamState, jax.Array]]

    def __call__(
        self, frames: Iterable[np.ndarray], *, seed: int = 0
    ) -> Iterator[FramePrediction]:
        """Yields the prediction of each frame as soon as it has come.

        Args:
          frames: u8[T, H, W, 3], or any source of u8[H, W, 3], without end if need be.
          seed: Seed of the dropout masks, in [0, 2^32).

        Raises:
          ValueError: for frames of another shape or type, or such a seed.
        """
        key = random_bits.key(checked_seed(seed))
        return self._predictions(frames, key)

    def _predictions(
        self, frames: Iterable[np.ndarray], key: jax.Array
    ) -> Iterator[FramePrediction]:
        state, shape = None, self.description.image_shape
        for number, frame in enumerate(frames):
            frame = np.asarray(frame)
            if frame.shape != shape or frame.dtype != np.uint8:
                raise ValueError(
                    f"frame {number} must be uint8 {list(shape)}, got "
                    f"{frame.dtype} {list(frame.shape)}"
                )
            if state is None:
                state = self.init(frame[None])
            state, (probs,) = self.step(state, key, frame[None])
            entropy = np.asarray(jax.scipy.special.entr(probs).sum(-1))
            yield FramePrediction(
                np.asarray(probs),
                entropy if entropy.ndim else float(entropy),
                np.asarray(state.latest[0]),
            )


def load_stream(
    workdir: epath.PathLike,
    *,
    num_samples: int = 1,
    decay: float = 0.8,
    chunk: int | None = None,
) -> StreamPredictor:
    """Loads the newest good checkpoint of a run, ready for streams.

    Args:
      workdir: Workdir of the run.
      num_samples: Number of dropout samples of each frame, at least 1; a network
        without dropout makes one pass whatever this says.
      decay: A frame t frames ago weighs exp(-decay t); at least 0.
      chunk: Number of samples computed at once; see `ensembles.mc_logits`.

    Raises:
      ValueError: if there is no run or checkpoint, or for unusable numbers.

    Example:
      >>> predictor = load_stream("runs/shapes")
      >>> for probs, entropy, frame_probs in predictor(frames):
      ...     print(probs.argmax(), entropy)
    """
    num_samples = count("num_samples", num_samples)
    run = workdirs.load(workdir)
    description = describe(run, num_samples=num_samples)
    make = functools.partial(
        temporal.stream,
        run.model,
        prepare=functools.partial(
            augment.normalize, mean=description.mean, std=description.std
        ),
        num_samples=description.num_samples,
        decay=decay,
        chunk=chunk,
    )
    make({})  # refuses unusable numbers now
    variables = jax.device_put(run.variables, jax.local_devices()[0])
    # Variables are arguments of the compiled programs, not constants in them.
    init = jax.jit(lambda variables, *args: make(variables).init(*args))
    step = jax.jit(lambda variables, *args: make(variables).step(*args))
    return StreamPredictor(
        description,
        decay,
        functools.partial(init, variables),
        functools.partial(step, variables),
    )
