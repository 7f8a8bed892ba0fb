"""What reports draw of segmented videos: short windows of frames, frame by frame.

Contract of this file: a window is the frames up to a labelled one, all of which are
segmented by two methods, with and without temporal smoothing: by the method that is
drawn for itself, and by the one with one prediction a frame, which flickers most.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.batches import VOID
from spatial_smoothing.ensembles import temporal
from spatial_smoothing.ensembles.apply import ApplyFunction
from spatial_smoothing.ensembles.mixtures import mc_readings


class Window(NamedTuple):
    """A window of T frames and what is predicted of it, on the host.

    Attributes:
      images: u8[T, H, W, 3], oldest first.
      label: u8[H, W], classes of the last frame, `VOID` where a pixel has none.
      classes: Whether predictions are smoothed -> u8[T, H, W], most probable classes of
        the method with many predictions of a frame.
      entropy: Whether predictions are smoothed -> f16[H, W], entropy of the last frame
        by the same method, in nats.
      single: Whether predictions are smoothed -> u8[T, H, W], most probable classes of
        the method with one prediction of a frame.
    """

    images: np.ndarray
    label: np.ndarray
    classes: dict[bool, np.ndarray]
    entropy: dict[bool, np.ndarray]
    single: dict[bool, np.ndarray]


def compile_windows(
    network: ApplyFunction,
    *,
    prepare: Callable[[jax.Array], jax.Array],
    num_samples: int,
    dropout: bool,
    decay: float = 0.8,
    chunk: int | None = None,
) -> Callable[..., Window]:
    """Compiles `window(variables, key, dataset, position)`.

    Args:
      network: The network, with logits f[B, H, W, K].
      prepare: Raw images to those that the network takes.
      num_samples: Number of dropout samples of the method that is drawn for itself.
      dropout: Whether the network has dropout; if not, both methods are one pass.
      decay: Temporal smoothing weighs a frame t frames ago by exp(-decay t).
      chunk: Number of samples computed at once; see `mc_logits`.

    Returns:
      A function of variables, a key, a `SegmentationDataset`, the position of the
      example in it and the number of frames before the example, to a `Window`.
    """
    sizes = (1,) if num_samples == 1 or not dropout else (1, num_samples)

    def of_frame(variables, key, image) -> jax.Array:
        """Log-probabilities f32[S, H, W, K] of one frame."""
        prepared = prepare(image[None])
        alone = network.apply(variables, prepared, None).astype(jnp.float32)
        if not dropout:
            return jax.nn.log_softmax(alone)
        found = mc_readings(
            key,
            network,
            variables,
            prepared,
            sizes=sizes,
            read=lambda mean, _: mean.log_probs(),
            given=jnp.zeros((len(sizes), *alone.shape)),
            chunk=chunk,
        )
        return found[:, 0]

    @jax.jit
    def predict(variables, key, images, is_there):
        def advance(state, inputs):
            index, image, there = inputs
            frame = of_frame(variables, jax.random.fold_in(key, index), image)
            starts = jnp.full(len(sizes), ~there)
            state, smooth = temporal.log_update(state, frame, starts, decay=decay)
            both = jnp.stack([frame, smooth])
            entropy = jax.scipy.special.entr(jnp.exp(both)).sum(-1)
            # What comes before the first frame of a video is forgotten.
            kept = temporal.forget(state, starts)
            return kept, (both.argmax(-1).astype(jnp.uint8), entropy)

        shape = jax.eval_shape(of_frame, variables, key, images[0]).shape
        state = temporal.init_log_state(jax.ShapeDtypeStruct(shape, jnp.float32))
        frames = (jnp.arange(len(images)), images, is_there)
        _, (classes, entropy) = jax.lax.scan(advance, state, frames)
        return classes, entropy[-1]

    def window(variables, key, dataset: Any, position: int, past: int) -> Window:
        (batch,) = dataset.subset(np.array([position])).windows(1, past=past)
        images, there = batch["image"][0], batch["frame_mask"][0]
        classes, entropy = jax.device_get(predict(variables, key, images, there))
        label = np.where(batch["mask"][0], batch["label"][0], VOID)
        kinds = (False, True)
        return Window(
            images=images[there],
            label=label.astype(np.uint8),
            classes={kind: classes[there, int(kind), -1] for kind in kinds},
            entropy={kind: entropy[int(kind), -1].astype(np.float16) for kind in kinds},
            single={kind: classes[there, int(kind), 0] for kind in kinds},
        )

    return window
