"""Fourier analysis of feature maps: the log amplitude of their frequencies.

Contract of this file: a spectrum is f[H, W], frequency zero at [H // 2, W // 2], of the
natural log of the amplitude, averaged over images and channels; frequencies are in
units of pi, the highest that the grid holds being 1.

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

_EPSILON = 1e-6  # of the reference


def log_amplitude(maps: jax.Array, *, clip: bool = False) -> jax.Array:
    """Log amplitude of each map: log(|F| + 1e-6), F the unnormalised transform.

    Args:
      maps: f[..., H, W, C].
      clip: Whether to take max(log|F|, 0) in its place, as the paper's figure appears
        to: amplitudes below one then do not count.

    Returns:
      f[..., H, W, C], frequency zero at [H // 2, W // 2].
    """
    amplitude = jnp.abs(jnp.fft.fft2(maps, axes=(-3, -2)))
    log = jnp.log(jnp.maximum(amplitude, 1)) if clip else jnp.log(amplitude + _EPSILON)
    return jnp.fft.fftshift(log, axes=(-3, -2))


def diagonal(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The half of the main diagonal that begins at frequency zero.

    Args:
      spectrum: f[H, H].

    Returns:
      Frequencies 2 k / H and values, each f[ceil(H / 2)]. The frequency 1 is not there.
    """
    size = min(spectrum.shape)
    values = np.diagonal(spectrum)[size // 2 :]
    return 2 * np.arange(len(values)) / size, values


def delta(values: np.ndarray) -> np.ndarray:
    """Log amplitude relative to that of frequency zero, the first."""
    return values - values[0]


def radial(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over rings around frequency zero.

    Args:
      spectrum: f[H, W].

    Returns:
      Frequencies and values, each f[min(H, W) // 2 + 1]. Ring k holds what lies within
      half a step of 2 k / min(H, W); corners beyond frequency 1 are left out.
    """
    height, width = spectrum.shape
    y = 2 * (np.arange(height) - height // 2) / height
    x = 2 * (np.arange(width) - width // 2) / width
    size = min(height, width)
    ring = np.rint(np.hypot(y[:, None], x[None]) * size / 2).astype(int)
    num = size // 2 + 1
    count = np.bincount(ring.ravel(), minlength=num)[:num]
    total = np.bincount(ring.ravel(), spectrum.ravel(), minlength=num)[:num]
    return 2 * np.arange(num) / size, total / count


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
    """Spectrum of every tap of a network, averaged over images and channels.

    Args:
      model: The network.
      variables: Its variables.
      data: Batches.
      prepare: Normalises u8[B, H, W, C].
      key: Of one dropout sample of each image, batch i drawing from `fold_in(key, i)`;
        None for the mean network.
      clip: See `log_amplitude`.
      blocks: See `features.taps`.

    Returns:
      Name, in the order of the network -> f32[H, W].

    Raises:
      ValueError: if there are no batches.
    """

    @jax.jit
    def sums(variables, index, batch: Batch):
        live = None if key is None else jax.random.fold_in(key, index)
        images, mask = prepare(batch["image"]), batch["mask"]
        maps = features.taps(model, variables, images, key=live, blocks=blocks)

        def of_tap(x: jax.Array) -> jax.Array:
            log = log_amplitude(x, clip=clip).mean(-1)
            return jnp.where(mask[:, None, None], log, 0).sum(0)

        return mask.sum(), {name: of_tap(x) for name, x in maps.items()}

    total = names = None
    for index, batch in enumerate(data):
        part = sums(variables, index, batch)
        total = part if index == 0 else jax.tree.map(jnp.add, total, part)
        if index == 0:
            images = jax.eval_shape(prepare, batch["image"])
            names = features.tap_names(model, variables, images, blocks=blocks)
    if total is None:
        raise ValueError("there is nothing to analyse: no batches")
    count, found = jax.device_get(total)
    return {name: found[name] / count for name in names}


def arrays(spectra: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Spectra and their curves, to store.

    Returns:
      For each name NAME, with k ceil(H / 2) and r H // 2 + 1: `NAME/spectrum` [H, H],
      `NAME/diagonal` [2, k] and `NAME/radial` [2, r], frequencies in the first row and
      log amplitudes in the second; `NAME/delta` [k].
    """
    found = {}
    for name, spectrum in spectra.items():
        found[f"{name}/spectrum"] = spectrum
        found[f"{name}/diagonal"] = np.stack(diagonal(spectrum))
        found[f"{name}/radial"] = np.stack(radial(spectrum))
        found[f"{name}/delta"] = delta(diagonal(spectrum)[1])
    return found
