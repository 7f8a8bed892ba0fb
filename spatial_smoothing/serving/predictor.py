"""Predictions with their uncertainty, for any number of images.

Contract of this file: images are uint8 in 0 to 255 or floating in [0, 1], RGB and not
normalised: `[B, H, W, 3]` with the height and width of the data set. A predict function
maps them and a seed to a dictionary of the fields of `Prediction`.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.sources import height_and_width
from spatial_smoothing.ensembles.mixtures import Mixture


class Prediction(NamedTuple):
    """Class probabilities of images, and how uncertain they are.

    Attributes:
      probs: f32[B, K], mean over the samples; of segmentation f32[B, H, W, K], those of
        every pixel.
      entropy: f32[B] or f32[B, H, W], of `probs`, in nats: the total uncertainty.
      mutual_information: f32[B] or f32[B, H, W], the part of `entropy` that is
        disagreement between predictions, in nats; 0 for a network that makes a single
        one: without dropout, and not several in a pass.
    """

    probs: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray


@dataclasses.dataclass(frozen=True)
class Description:
    """What a predictor predicts, and from what; JSON-able.

    Attributes:
      model: Name of the network.
      dataset: Name of the data set that it was trained on.
      step: Number of the training step at which the checkpoint was saved.
      num_samples: Number of Monte Carlo dropout samples; 1 for a network without
        dropout.
      image_size: Height and width of the images, in pixels, where they are equal; else
        both of them.
      mean: Mean of each channel, of images in [0, 1]; it is subtracted inside.
      std: Standard deviation of each channel; it is divided by inside.
      class_names: K names; numbers where those of the data set are not at hand.
      resize: Shorter side to which image files are resized before the centre is taken,
        in pixels; None where as much of the image is as has the right aspect.
      task: "classification" for a class of each image, "segmentation" for a class of
        each pixel.
      palette: Colours of the classes in pictures, K times (red, green, blue) in 0 to
        255; None for classification.
      num_predictions: Number of predictions of one pass: above 1 for networks that have
        an `ensemble`.
    """

    model: str
    dataset: str
    step: int
    num_samples: int
    image_size: int | Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    class_names: Sequence[str]
    resize: int | None = None
    task: str = "classification"
    palette: Sequence[Sequence[int]] | None = None
    num_predictions: int = 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of the images, in pixels."""
        return (*height_and_width(self.image_size), 3)


# Number of images at once, by task: maps of pixels take more memory than classes.
_BATCH_SIZES = {"classification": 256, "segmentation": 4}


class Predictor:
    """Predicts any number of images, compiled for a few batch sizes only.

    Args:
      predict: (u8 or f32 [B, H, W, 3], u32[] seed) -> the fields of `Prediction`.
      description: What is predicted, and from what; kept as an attribute.
      batch_size: Number of images at once; None for 256, and for segmentation 4. Fewer
        are padded to the next power of two.
      dtypes: Types of images that `predict` takes.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray, np.ndarray], dict[str, jax.Array]],
        description: Description,
        *,
        batch_size: int | None = None,
        dtypes: Sequence[str] = ("uint8", "float32"),
    ):
        if batch_size is None:
            batch_size = _BATCH_SIZES[description.task]
        self.description = description
        self._predict = predict
        self._batch_size = count("batch_size", batch_size)
        self._dtypes = dtypes

    def __call__(self, images: np.ndarray, *, seed: int = 0) -> Prediction:
        """Predicts.

        Args:
          images: u8[B, H, W, 3], or floating in [0, 1]; B may be 0.
          seed: Seed of the dropout masks, in [0, 2^32).

        Returns:
          A `Prediction` of NumPy arrays.

        Raises:
          ValueError: for images of another shape, type or range, or such a seed.
        """
        seed = checked_seed(seed)
        images = _checked(images, self.description.image_shape, self._dtypes)
        parts = [
            self._predict_batch(images[start : start + self._batch_size], seed)
            for start in range(0, max(len(images), 1), self._batch_size)
        ]
        return Prediction(
            *(np.concatenate(fields) for fields in zip(*parts, strict=True))
        )

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """Compiles for some batch sizes now, so that no later call waits for it.

        Args:
          batch_sizes: Numbers of uint8 images of calls to come, each at least 1.

        Raises:
          ValueError: for a batch size below 1.
        """
        shape = self.description.image_shape
        for size in batch_sizes:
            self(np.zeros((count("batch_sizes", size), *shape), np.uint8))

    def _predict_batch(self, images: np.ndarray, seed: int) -> Prediction:
        bucket = min(1 << max(len(images) - 1, 0).bit_length(), self._batch_size)
        padding = [(0, bucket - len(images)), (0, 0), (0, 0), (0, 0)]
        result = self._predict(np.pad(images, padding), np.uint32(seed))
        return Prediction(
            **{k: np.asarray(v)[: len(images)] for k, v in result.items()}
        )


def count(name: str, value: int) -> int:
    """Returns a number of samples or images, or raises ValueError.

    Args:
      name: What the number is called.
      value: The number, at least 1.
    """
    value = _whole(name, value)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def checked_seed(seed: int) -> int:
    """Returns a seed, or raises ValueError if it is not in [0, 2^32)."""
    seed = _whole("seed", seed)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2^32), got {seed}")
    return seed


def _whole(name: str, value: int) -> int:
    """Returns a whole number of any type, or raises ValueError."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def uncertainty(mixture: Mixture) -> dict[str, jax.Array]:
    """Returns the fields of `Prediction`.

    Args:
      mixture: The predictions of an ensemble; it may have leading axes.
    """
    probs = jnp.exp(mixture.log_probs())
    return {
        "probs": probs,
        "entropy": jax.scipy.special.entr(probs).sum(-1),
        "mutual_information": mixture.mutual_information(),
    }


def _checked(
    images: Any, image_shape: tuple[int, int, int], dtypes: Sequence[str]
) -> np.ndarray:
    """Returns images as u8 or f32 [B, H, W, 3], or raises ValueError."""
    images = np.asarray(images)
    shape, (height, width, _) = list(images.shape), image_shape
    if images.ndim != 4 or shape[1:] != [height, width, 3]:
        if shape == [height, width, 3]:
            hint = "add the batch axis: images[None]"
        elif shape[1:] == [height, width]:
            hint = "make grey ones RGB: np.repeat(images[..., None], 3, axis=-1)"
        elif shape[1:] == [height, width, 1]:
            hint = "make grey ones RGB: np.repeat(images, 3, axis=-1)"
        elif shape[1:] == [height, width, 4]:
            hint = "drop the alpha channel of RGBA: images[..., :3]"
        elif shape[1:] == [3, height, width]:
            hint = "put the channels last: np.moveaxis(images, 1, -1)"
        else:
            hint = "resize them first"
        raise ValueError(
            f"images must be [B, {height}, {width}, 3], got {shape}; {hint}"
        )
    if images.dtype != np.uint8 and jnp.issubdtype(images.dtype, jnp.floating):
        images = images.astype(np.float32)
        low, high = images.min(initial=0), images.max(initial=0)
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"floating images must lie in [0, 1], got values in [{low:g}, "
                f"{high:g}]; do not normalise them"
            )
    if images.dtype not in dtypes:
        raise ValueError(
            f"images must be of type {' or '.join(dtypes)}, got {images.dtype}"
        )
    return images
