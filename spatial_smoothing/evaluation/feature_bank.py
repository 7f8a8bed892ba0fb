"""Features of the training images: kept in the workdir, and what is fitted to them.

Contract of this file: features f32[n, D] are on the host. Sums over them are made on
the devices, part by part, and added up in float64. Memory grows with the number of
training images, and not with that of the images that are tested.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from spatial_smoothing.metrics import feature_statistics as statistics
from spatial_smoothing.metrics.feature_confidences import (
    Densities,
    Gaussians,
    LastLayer,
    Residual,
    normalised,
    residual_norm,
)
from spatial_smoothing.runtime import processes, sharding

PART = 1024  # features of each device that are summed up at once


class Bank(NamedTuple):
    """Features of training images.

    Attributes:
      features: f32[n, D].
      labels: i32[n].
    """

    features: np.ndarray
    labels: np.ndarray


class Fitted(NamedTuple):
    """What confidences of features need; a field is None where none of them needs it.

    Attributes:
      last: The last dense layer of the network.
      bank: f32[n', D], features of norm 1, split over all devices; rows of NaN are
        padding.
      classes: Normal distributions of the classes, with one covariance.
      everything: Normal distribution of all features.
      residual: The space in which the features hardly vary.
      thresholds: f32[P], largest values that features keep; one for each percentile.
      densities: Normal distributions of the classes, with a covariance for each.
    """

    last: LastLayer
    bank: jax.Array | None = None
    classes: Gaussians | None = None
    everything: Gaussians | None = None
    residual: Residual | None = None
    thresholds: np.ndarray | None = None
    densities: Densities | None = None


def cached(path: epath.Path, digest: str, make: Callable[[], Bank]) -> Bank:
    """Returns a bank from a file, or makes it and writes the file.

    Of several processes, the first reads and writes; all of them make a bank, or none.
    A file that cannot be read is made again, and one that cannot be written is not.

    Args:
      path: The file, which holds one bank: that of the newest digest.
      digest: What the bank depends on.
      make: Function that makes the bank, the same in all processes.
    """
    found = _read(path, digest) if processes.is_first() else None
    if processes.is_alone() and found is not None:
        return found
    # Several processes: to send a bank costs as much as to make it.
    bank = make()
    if processes.is_first() and found is None:
        with contextlib.suppress(OSError):
            _write(path, digest, bank)
    return bank


def _read(path: epath.Path, digest: str) -> Bank | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["digest"]) == digest:
                return Bank(arrays["features"], arrays["labels"])
    except Exception:  # absent, or damaged in one of the many ways of a zip file
        return None
    return None


def _write(path: epath.Path, digest: str, bank: Bank) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, digest=digest, **bank._asdict())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def split_bank(features: np.ndarray, mesh: Mesh) -> jax.Array:
    """Puts features of norm 1 on the devices, split over them.

    Args:
      features: f32[n, D].
      mesh: Devices.

    Returns:
      f32[n', D]; n' is a multiple of the number of devices, and of that times `PART`
      where there are more. Rows of NaN are padding.
    """
    padded = _padded(np.asarray(normalised(features)), mesh, value=np.nan)
    return next(sharding.split_batches([padded], mesh))


def fit_gaussians(
    bank: Bank, num_classes: int, mesh: Mesh
) -> tuple[statistics.Moments, Gaussians, Gaussians]:
    """Fits normal distributions to features.

    Args:
      bank: Features of training images.
      num_classes: K.
      mesh: Devices, which make the sums.

    Returns:
      The sums, the distributions of the classes, and that of all features.
    """
    moments = _moments(bank, num_classes, mesh)
    classes = statistics.gaussians(moments.class_means, moments.covariance_within)
    everything = statistics.gaussians(moments.mean[None], moments.covariance)
    return moments, classes, everything


def fit_residual(
    bank: Bank, moments: statistics.Moments, last: LastLayer, mesh: Mesh
) -> Residual:
    """Fits the space in which features hardly vary.

    Args:
      bank: Features of training images.
      moments: Their sums.
      last: The last dense layer of the network.
      mesh: Devices, which make the sums.
    """
    kernel, bias = (np.asarray(part) for part in jax.device_get(last))
    origin = statistics.zero_logits(kernel, bias)
    basis = np.float32(statistics.residual_basis(moments, origin))
    origin = np.float32(origin)

    @jax.jit
    def of_part(features: jax.Array, mask: jax.Array, last: LastLayer, origin, basis):
        norms = residual_norm(features, origin, basis)
        largest = last(features).max(-1)
        return [jnp.where(mask, values, 0).sum() for values in (largest, norms)]

    total = np.zeros(2)
    for features, _, mask in _parts(bank, mesh):
        found = of_part(features, mask, last, origin, basis)
        total += np.float64(sharding.gather(found))
    return Residual(origin, basis, np.float32(total[0] / total[1]))


def percentiles(features: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Percentiles of all values of features.

    Args:
      features: f32[n, D].
      levels: Percentiles, in [0, 100].

    Returns:
      f32[len(levels)].
    """
    return np.float32(np.percentile(features, levels))


def _moments(bank: Bank, num_classes: int, mesh: Mesh) -> statistics.Moments:
    """The sums over a bank."""
    shift = bank.features[: 8 * PART].mean(0)
    add = jax.jit(statistics.sums, static_argnames="num_classes")
    total: list[Any] = [0.0, 0.0, 0.0]
    for features, labels, mask in _parts(bank, mesh):
        found = add(features, labels, mask, shift, num_classes=num_classes)
        for index, values in enumerate(sharding.gather(found)):
            total[index] = total[index] + np.float64(values)
    return statistics.Moments(*total, np.float64(shift))


def _parts(bank: Bank, mesh: Mesh) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """Yields features, labels and mask of parts of one size, split over the devices."""
    features, labels = (_padded(np.asarray(x), mesh, value=0) for x in bank)
    mask = np.arange(len(features)) < len(bank.labels)
    size = min(len(features), PART * mesh.size)
    parts = (
        tuple(x[start : start + size] for x in (features, labels, mask))
        for start in range(0, len(features), size)
    )
    yield from sharding.split_batches(parts, mesh)


def _padded(values: np.ndarray, mesh: Mesh, *, value: float) -> np.ndarray:
    """Pads the first axis to a multiple of what all devices take at once.

    Args:
      values: [n, ...].
      mesh: Devices.
      value: What is padded with.
    """
    whole = PART * mesh.size
    step = whole if len(values) > whole else mesh.size
    padding = [(0, -len(values) % step)] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, padding, constant_values=value)
