"""Fourier analysis of feature maps: the log amplitude of their frequencies.

Contract of this file: a spectrum is f[H, W], the natural logarithm of the amplitude of
each frequency, averaged over images and channels. Frequency zero is at
[H // 2, W // 2]. Frequencies are in units of pi; the highest one of the grid is 1.

Source: Park & Kim, ICML 2022, figure 6 and appendix D.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.analysis import features
from spatial_smoothing.data.batches import Batch

_EPSILON = 1e-6  # the reference adds it to amplitudes, so that zero has a logarithm


def log_amplitude(maps: jax.Array, *, clip: bool = False) -> jax.Array:
    """Returns log(|F| + 1e-6) of each map, F being its unnormalised Fourier transform.

    Args:
      maps: f32[..., H, W, C], feature maps.
      clip: Whether to take max(log|F|, 0) in its place, as the paper's figure appears
        to: amplitudes below one then do not count.

    Returns:
      f32[..., H, W, C], natural logarithms, frequency zero at [H // 2, W // 2].

    Source: Park & Kim, ICML 2022, figure 6 and appendix D.
    """
    amplitude = jnp.abs(jnp.fft.fft2(maps, axes=(-3, -2)))
    log = jnp.log(jnp.maximum(amplitude, 1)) if clip else jnp.log(amplitude + _EPSILON)
    return jnp.fft.fftshift(log, axes=(-3, -2))


def diagonal(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the half of the main diagonal that begins at frequency zero.

    Args:
      spectrum: f[H, H], frequency zero at [H // 2, H // 2].

    Returns:
      Frequencies 2 k / H in units of pi, and values; each f[ceil(H / 2)]. The frequency
      1 is not there: an even map has it at the other end of the diagonal only.
    """
    size = min(spectrum.shape)
    values = np.diagonal(spectrum)[size // 2 :]
    return 2 * np.arange(len(values)) / size, values


def delta(values: np.ndarray) -> np.ndarray:
    """Returns log amplitudes relative to that of frequency zero.

    Args:
      values: f[k], log amplitudes, the first of which is at frequency zero.
    """
    return values - values[0]


def radial(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means over rings around frequency zero.

    Args:
      spectrum: f[H, W], frequency zero at [H // 2, W // 2].

    Returns:
      Frequencies in units of pi, and values; each f[min(H, W) // 2 + 1]. Ring k holds
      the frequencies within half a step of 2 k / min(H, W). Corners beyond frequency 1
      are left out.
    """
    height, width = spectrum.shape
    y = 2 * (np.arange(height) - height // 2) / height
    x = 2 * (np.arange(width) - width // 2) / width
    size = min(height, width)
    # The ring of every pixel: its distance from zero, in steps of 2 / size.
    ring = np.rint(np.hypot(y[:, None], x[None]) * size / 2).astype(int).ravel()
    num_rings = size // 2 + 1
    count = np.bincount(ring, minlength=num_rings)[:num_rings]
    total = np.bincount(ring, spectrum.ravel(), minlength=num_rings)[:num_rings]
    return 2 * np.arange(num_rings) / size, total / count


def spectra(
    model: nn.Module,
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    prepare: Callable[[jax.Array], jax.Array],
    key: jax.Array | None = None,
    clip: bool = False,
    blocks: bool = False,
) -> dict[str, np.ndarray]:
    """Returns the spectrum of every tap, averaged over images and channels.

    Logarithms are averaged, not amplitudes, so that a few images of large amplitude do
    not decide.

    Args:
      model: The network, as `features.taps` takes it.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      data: Batches of u8[B, H, W, 3].
      prepare: Normalises u8[B, H, W, 3] to f32[B, H, W, 3].
      key: PRNG key of one dropout sample of each image, batch i drawing from
        `fold_in(key, i)`; None for passes without dropout.
      clip: Whether amplitudes below one count as one.
      blocks: Whether to give every block in place of stages.

    Returns:
      Name of the tap, in the order of the network -> f[H, W], natural logarithms,
      frequency zero at [H // 2, W // 2].

    Raises:
      ValueError: if there are no batches.

    Source: Park & Kim, ICML 2022, figure 6 and appendix D.
    """
    sums = compile_sums(model, prepare=prepare, clip=clip, blocks=blocks)
    total = names = None
    for index, batch in enumerate(data):
        sample_key = None if key is None else jax.random.fold_in(key, index)
        part = sums(variables, sample_key, batch)
        if total is None:
            total = part
            images = jax.eval_shape(prepare, batch["image"])
            names = features.tap_names(model, variables, images, blocks=blocks)
        else:
            total = jax.tree.map(jnp.add, total, part)
    if total is None:
        raise ValueError("there is nothing to analyse: no batches")
    count, found = jax.device_get(total)
    return {name: found[name] / count for name in names}


def compile_sums(
    model: nn.Module,
    *,
    prepare: Callable[[jax.Array], jax.Array],
    clip: bool = False,
    blocks: bool = False,
) -> Callable[..., Any]:
    """Compiles `sums(variables, key, batch)`, the spectra of a batch.

    Args:
      model: The network, as `features.taps` takes it.
      prepare: Normalises u8[B, H, W, 3] to f32[B, H, W, 3].
      clip: Whether amplitudes below one count as one.
      blocks: Whether to give every block in place of stages.

    Returns:
      A function to the number of examples, i32[], and a dict of name of the tap ->
      f32[H, W], the sum over examples of its spectrum. The key is that of one dropout
      sample, or None for a pass without dropout.
    """

    @jax.jit
    def sums(variables: dict[str, Any], key: jax.Array | None, batch: Batch):
        images, mask = prepare(batch["image"]), batch["mask"]
        maps = features.taps(model, variables, images, key=key, blocks=blocks)

        def of_tap(x: jax.Array) -> jax.Array:
            log = log_amplitude(x, clip=clip).mean(-1)
            return jnp.where(mask[:, None, None], log, 0).sum(0)

        return mask.sum(dtype=jnp.int32), {name: of_tap(x) for name, x in maps.items()}

    return sums


def arrays(spectra: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arranges spectra and their curves to store.

    Args:
      spectra: Name of the tap -> f[H, H], as the function `spectra` returns them.

    Returns:
      For each name NAME, with k = ceil(H / 2) and r = H // 2 + 1: `NAME/spectrum`
      [H, H]; `NAME/diagonal` [2, k] and `NAME/radial` [2, r], whose first row has
      frequencies and whose second has log amplitudes; `NAME/delta` [k], log amplitudes
      of the diagonal relative to that of frequency zero.
    """
    found = {}
    for name, spectrum in spectra.items():
        found[f"{name}/spectrum"] = spectrum
        found[f"{name}/diagonal"] = np.stack(diagonal(spectrum))
        found[f"{name}/radial"] = np.stack(radial(spectrum))
        found[f"{name}/delta"] = delta(diagonal(spectrum)[1])
    return found
