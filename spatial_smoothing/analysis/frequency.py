"""Robustness to noise of one frequency.

Contract of this file: noise is added to normalised images, f32[B, H, W, C], H = W, and
nothing is clipped. Frequencies and widths are in radians per pixel, from 0 to pi, per
axis: the frequency of (u, v) is the larger of |u| and |v|.

Source: Park & Kim, ICML 2022, figures 6a and 6c.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles import Ensemble, Predict, Predictions, named
from spatial_smoothing.evaluation.rows import Row, tally_row
from spatial_smoothing.evaluation.tallies import compile_tallies
from spatial_smoothing.models.network import Network

FREQUENCIES = tuple(math.pi * tenths / 10 for tenths in range(1, 10))
HALF_WIDTH = 0.2
# The authors' code has 0.007 in one place and 0.7 in another; the paper does not say
# which of them its figures have.
EPSILON = 0.7


def sides(frequency: float, *, size: int, half_width: float) -> tuple[int, int]:
    """Returns the sides of the two squares that bound a ring of frequencies.

    Args:
      frequency: Frequency in the middle of the ring, in radians per pixel, in (0, pi].
      size: Height and width of the images, in pixels.
      half_width: Half of the width of the ring, in radians per pixel.

    Returns:
      Sides of the outer and of the inner square, in pixels of the transform. They are
      even, as in the reference, and at most `size`.
    """

    def side(frequency: float) -> int:
        # A step of the transform is 2 pi / size; the square reaches to both sides.
        return min(max(2 * int(frequency * size / (2 * math.pi)), 0), size)

    return side(frequency + half_width), side(frequency - half_width)


def ring(frequency: float, *, size: int, half_width: float = HALF_WIDTH) -> np.ndarray:
    """Returns the frequencies that noise may have: those between two centred squares.

    Args:
      frequency: Frequency in the middle of the ring, in radians per pixel, in (0, pi].
      size: Height and width of the images, in pixels.
      half_width: Half of the width of the ring, in radians per pixel.

    Returns:
      f32[H, W] of 0 and 1, frequency zero at [H // 2, W // 2].

    Raises:
      ValueError: for a frequency outside (0, pi], or a ring without a pixel.

    Source: Park & Kim, ICML 2022, figure 6; its code.
    """
    if not 0 < frequency <= math.pi:
        raise ValueError(f"frequency must be in (0, pi], got {frequency}")
    outer, inner = sides(frequency, size=size, half_width=half_width)
    if outer <= inner:
        raise ValueError(
            f"no pixel of {size}x{size} has a frequency within {half_width} of "
            f"{frequency:.4f}; use a larger half_width"
        )
    offset = np.arange(size) - size // 2

    def square(side: int) -> np.ndarray:
        inside = (-(side // 2) <= offset) & (offset < side - side // 2)
        return inside[:, None] & inside[None]

    return (square(outer) & ~square(inner)).astype(np.float32)


def limit(delta: jax.Array, mask: jax.Array) -> jax.Array:
    """Keeps the frequencies of a mask: the real part of F^-1(mask F(delta)).

    The squares of the mask are of even sides and so not symmetric about zero: a
    frequency may be kept while its negative is not, and the result then has an
    imaginary part. It is discarded, as in the reference.

    Args:
      delta: f32[B, H, W, C], the noise.
      mask: f32[H, W] of 0 and 1, such as that of `ring`.

    Returns:
      f32[B, H, W, C], in the dtype of `delta`.
    """
    mask = jnp.fft.ifftshift(mask)[None, :, :, None]
    transform = jnp.fft.fft2(delta, axes=(1, 2))
    kept = transform * mask.astype(transform.dtype)
    return jnp.fft.ifft2(kept, axes=(1, 2)).real.astype(delta.dtype)


def perturb(
    key: jax.Array, images: jax.Array, mask: jax.Array, *, epsilon: float = EPSILON
) -> jax.Array:
    """Adds random signs times epsilon, limited to a mask of frequencies.

    Args:
      key: PRNG key of the signs. All masks get the same signs, so that scores at
        different frequencies differ by the frequency alone.
      images: f32[B, H, W, C], normalised.
      mask: f32[H, W] of 0 and 1, such as that of `ring`.
      epsilon: Amplitude before limitation, in units of the normalised images.

    Returns:
      f32[B, H, W, C], not clipped.

    Source: Park & Kim, ICML 2022, figure 6; its code.
    """
    signs = jnp.sign(jax.random.normal(key, images.shape, images.dtype))
    return images + limit(epsilon * signs, mask)


def noise(
    key: jax.Array,
    images: jax.Array,
    *,
    frequency: float,
    half_width: float = HALF_WIDTH,
    epsilon: float = EPSILON,
) -> jax.Array:
    """Adds noise of one frequency: `perturb` with the mask of `ring`.

    Args:
      key: PRNG key of the noise.
      images: f32[B, H, W, C], normalised, H = W.
      frequency: Frequency in the middle of the ring, in radians per pixel, in (0, pi].
      half_width: Half of the width of the ring, in radians per pixel.
      epsilon: Amplitude before limitation, in units of the normalised images.

    Returns:
      f32[B, H, W, C], not clipped.

    Raises:
      ValueError: for a frequency outside (0, pi], or a ring without a pixel.
    """
    mask = ring(frequency, size=images.shape[1], half_width=half_width)
    return perturb(key, images, mask, epsilon=epsilon)


def robustness(
    model: Network,
    variables: dict[str, Any],
    data: Sequence[Batch],
    *,
    key: jax.Array,
    prepare: Callable[[jax.Array], jax.Array],
    frequencies: Sequence[float] = FREQUENCIES,
    half_width: float = HALF_WIDTH,
    epsilon: float = EPSILON,
    num_samples: int = 0,
    chunk: int | None = None,
    done: Collection[float | None] = (),
) -> Iterator[Row]:
    """Yields scores under noise of each frequency; one compilation for all of them.

    Args:
      model: The network, a Linen module.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      data: Batches of u8[B, H, W, 3], H = W; each frequency makes a pass over them.
      key: PRNG key of noise and dropout; all frequencies use the same.
      prepare: Normalises u8[B, H, W, 3] to f32[B, H, W, 3].
      frequencies: Frequencies in the middle of the rings, in radians per pixel, in
        (0, pi].
      half_width: Half of the width of the rings, in radians per pixel.
      epsilon: Amplitude before limitation, in units of the normalised images.
      num_samples: Number of dropout samples that a prediction averages; 0 for
        predictions without dropout.
      chunk: Number of samples computed at once; None for what suits the device.
      done: Frequencies to leave out, such as those of an earlier call; None is the pass
        without noise.

    Yields:
      A row of `evaluation.tally_row` without noise, whose `frequency` is None, then
      one for each frequency.

    Raises:
      ValueError: for a frequency outside (0, pi], a ring without a pixel, or if there
        are no batches.

    Source: Park & Kim, ICML 2022, figures 6a and 6c.
    """
    data = list(data)
    if not data:
        raise ValueError("there is nothing to evaluate: no batches")
    size = data[0]["image"].shape[1]
    averaged = max(num_samples, 1)  # without dropout it is one prediction
    predict = noisy_predictor(
        model,
        prepare=prepare,
        epsilon=epsilon,
        num_samples=num_samples,
        chunk=chunk,
    )
    tallies_of = compile_tallies(predict)
    masks = {None: np.zeros((size, size), np.float32)}
    for frequency in frequencies:
        masks[frequency] = ring(frequency, size=size, half_width=half_width)
    network = Ensemble(members=(0,), num_samples=averaged)
    for frequency, mask in masks.items():
        if frequency in done:
            continue
        tallies = named(tallies_of((variables, mask), key, data))
        yield {
            "frequency": frequency,
            "num_samples": averaged,
            **tally_row(tallies[network]),
        }


def noisy_predictor(
    model: Network,
    *,
    prepare: Callable[[jax.Array], jax.Array],
    epsilon: float = EPSILON,
    num_samples: int = 0,
    chunk: int | None = None,
) -> Predict:
    """Returns the function that predicts for images with noise of some frequencies.

    Args:
      model: The network, a Linen module.
      prepare: Normalises u8[B, H, W, 3] to f32[B, H, W, 3].
      epsilon: Amplitude of the noise before limitation; see `perturb`.
      num_samples: Number of dropout samples that a prediction averages; 0 for
        predictions without dropout.
      chunk: Number of samples computed at once; None for what suits the device.

    Returns:
      `((variables, mask), key, u8[B, H, W, 3])` to `Predictions`, whose mixtures are a
      `Lineup` of one network. The mask is f32[H, W], such as that of `ring`. It is an
      argument of the compiled function and not a constant in it, so that all
      frequencies share one program.
    """
    predict_noisy = ensembles.predictor(
        model, sizes=(max(num_samples, 1),), dropout=num_samples > 0, chunk=chunk
    )

    def predict(
        state: tuple[dict[str, Any], jax.Array], key: jax.Array, images: jax.Array
    ) -> Predictions:
        variables, mask = state
        noise_key, dropout_key = jax.random.split(key)
        noisy = perturb(noise_key, prepare(images), mask, epsilon=epsilon)
        return predict_noisy(variables, dropout_key, noisy)

    return predict


def arrays(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Arranges rows of `robustness` to store.

    Args:
      rows: One row without noise, and one for each of F frequencies.

    Returns:
      `frequency` f64[F], in the unit of the rows; for each score its values f64[F],
      such as `accuracy`, and the value without noise f64[], such as `clean_accuracy`.
    """
    rows = list(rows)
    clean = [row for row in rows if row["frequency"] is None]
    noisy = [row for row in rows if row["frequency"] is not None]
    scores = [name for name, value in noisy[0].items() if isinstance(value, float)]
    found = {name: np.array([row[name] for row in noisy]) for name in scores}
    for row in clean:
        for name in scores:
            if name != "frequency":
                found[f"clean_{name}"] = np.array(row[name])
    return found
