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
from spatial_smoothing.ensembles import Ensemble, Predictions, named
from spatial_smoothing.evaluation.rows import Row, tally_row
from spatial_smoothing.evaluation.tallies import compile_tallies
from spatial_smoothing.models.network import Network

FREQUENCIES = tuple(math.pi * tenths / 10 for tenths in range(1, 10))
HALF_WIDTH = 0.2
EPSILON = 0.7  # the authors published 0.007 and 0.7, and say nothing of the figures


def sides(frequency: float, *, size: int, half_width: float) -> tuple[int, int]:
    """Sides of the outer and the inner square that bound a ring, even, in pixels."""

    def side(frequency: float) -> int:
        return min(max(2 * int(frequency * size / (2 * math.pi)), 0), size)

    return side(frequency + half_width), side(frequency - half_width)


def ring(frequency: float, *, size: int, half_width: float = HALF_WIDTH) -> np.ndarray:
    """The frequencies that noise may have: between two centred squares.

    Args:
      frequency: In (0, pi].
      size: H = W.
      half_width: Of the ring, in radians.

    Returns:
      f32[H, W] of 0 and 1, frequency zero at [H // 2, W // 2].

    Raises:
      ValueError: for a frequency outside (0, pi], or a ring that holds nothing.
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

    The mask is not symmetric about zero, so the imaginary part is not nothing; it is
    discarded, as in the reference.

    Args:
      delta: f[B, H, W, C].
      mask: f[H, W]; see `ring`.

    Returns:
      As `delta`.
    """
    mask = jnp.fft.ifftshift(mask)[None, :, :, None]
    transform = jnp.fft.fft2(delta, axes=(1, 2)) * mask
    return jnp.fft.ifft2(transform, axes=(1, 2)).real.astype(delta.dtype)


def perturb(
    key: jax.Array, images: jax.Array, mask: jax.Array, *, epsilon: float = EPSILON
) -> jax.Array:
    """Adds random signs times epsilon, limited to a mask of frequencies.

    Args:
      key: Of the signs; those of two masks are the same.
      images: f32[B, H, W, C], normalised.
      mask: f[H, W].
      epsilon: Amplitude before limitation, in units of the normalised images.
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
    """`perturb` by the ring of one frequency."""
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
      model: The network.
      variables: Its variables.
      data: Batches, gone over once for each frequency.
      key: Of noise and dropout, the same at all frequencies.
      prepare: Normalises u8[B, H, W, C].
      frequencies: In (0, pi].
      half_width: Of the rings.
      epsilon: Amplitude before limitation.
      num_samples: Dropout samples that a prediction averages; 0 for the mean network.
      chunk: Samples computed at once.
      done: Frequencies to leave out, such as those of an earlier call.

    Yields:
      A row of `evaluation.tally_row` without noise, whose `frequency` is None, then
      one for each frequency.

    Raises:
      ValueError: as `ring`, or if there are no batches.
    """
    data = list(data)
    if not data:
        raise ValueError("there is nothing to evaluate: no batches")
    size = data[0]["image"].shape[1]
    sizes = (max(num_samples, 1),)
    predict_noisy = ensembles.predictor(
        model, sizes=sizes, dropout=num_samples > 0, chunk=chunk
    )

    def predict(state, key, images) -> Predictions:
        variables, mask = state
        noise_key, dropout_key = jax.random.split(key)
        noisy = perturb(noise_key, prepare(images), mask, epsilon=epsilon)
        return predict_noisy(variables, dropout_key, noisy)

    tallies_of = compile_tallies(predict)
    masks = {None: np.zeros((size, size), np.float32)}
    for frequency in frequencies:
        masks[frequency] = ring(frequency, size=size, half_width=half_width)
    for frequency, mask in masks.items():
        if frequency not in done:
            tallies = named(tallies_of((variables, mask), key, data))
            name = Ensemble((0,), sizes[-1])
            row = {"num_samples": sizes[-1], **tally_row(tallies[name])}
            yield {"frequency": frequency, **row}


def arrays(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Arranges rows of `robustness` to store.

    Returns:
      `frequency` f64[F], and of each score its values f64[F], such as `accuracy`, and
      that without noise, f64[], such as `clean_accuracy`.
    """
    rows = list(rows)
    clean = [row for row in rows if row["frequency"] is None]
    noisy = [row for row in rows if row["frequency"] is not None]
    scores = [name for name, value in noisy[0].items() if isinstance(value, float)]
    found = {name: np.array([row[name] for row in noisy]) for name in scores}
    for row in clean:
        found |= {f"clean_{s}": np.array(row[s]) for s in scores if s != "frequency"}
    return found
