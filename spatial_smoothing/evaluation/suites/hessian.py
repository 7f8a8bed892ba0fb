"""Hessian spectra as a suite: of mini-batches, and the full density."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from spatial_smoothing.analysis import hessian as analysis
from spatial_smoothing.analysis import lanczos
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.partial import Partial
from spatial_smoothing.evaluation.suites.settings import Setting
from spatial_smoothing.evaluation.suites.subjects import (
    Subject,
    subject,
    training_images,
)
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, sharding


def hessian(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_batches: int = 10,
    num_eigenvalues: int = 1,
    method: str = "lanczos",
    density_batches: int = 4,
    num_probes: int = 1,
    num_steps: int = 80,
) -> list[Row]:
    """Eigenvalues of the Hessian of the training objective, L2 and dropout included.

    Args:
      runs: One run.
      setting: Its batch size is that of the mini-batches; its seed is that of images,
        augmentation, masks and random vectors.
      num_batches: Mini-batches of augmented training images, drawn at random, whose
        largest eigenvalues are found.
      num_eigenvalues: Of largest magnitude, of each mini-batch.
      method: "lanczos", or the paper's "power".
      density_batches: The density of all eigenvalues is that of the loss over so many
        of the mini-batches; 0 for no density.
      num_probes: Random vectors that the density is estimated from.
      num_steps: Lanczos steps for each of them.

    Returns:
      One row: `top_mean`, `top_median` and `top_90`, a quantile, of the largest
      eigenvalue of a mini-batch; `negative` and `positive_mean`, see
      `analysis.hessian.proportions`; of the density `largest`, `smallest` and
      `trace`. In "arrays" the values themselves and both densities.

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    options = {
        "num_batches": num_batches,
        "num_eigenvalues": num_eigenvalues,
        "method": method,
        "density_batches": density_batches,
        "num_probes": num_probes,
        "num_steps": num_steps,
    }
    _check(options)
    network = subject(runs, setting, suite="hessian")
    count = max(num_batches, density_batches) * setting.batch_size
    images = training_images(runs, setting, count, seed=setting.seed)
    data = list(sharding.load_batches(images, setting.batch_size, network.mesh))
    about = {"images": images.checksum(), **options}
    partial = setting.partial("hessian", runs, about)
    keys = jax.random.split(jax.random.key(setting.seed))
    _find_eigenvalues(keys[0], network, data[:num_batches], partial, options)
    if density_batches:
        _find_density(keys[1], network, data[:density_batches], partial, options)
    size = analysis.num_parameters(network.variables)
    return [
        {
            **network.about,
            "split": "train",
            "num_examples": images.num_examples,
            "batch_size": setting.batch_size,
            **options,
            "num_parameters": size,
            **_summary(partial, size),
        }
    ]


def _check(options: Mapping[str, Any]) -> None:
    for name, least in (
        ("num_batches", 1),
        ("density_batches", 0),
        ("num_probes", 1),
        ("num_steps", 1),
    ):
        if options[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {options[name]}")


def _find_eigenvalues(
    key: jax.Array,
    network: Subject,
    data: Sequence[Batch],
    partial: Partial,
    options: Mapping[str, Any],
) -> None:
    """Adds the rows of those mini-batches that are not there yet."""
    done = {row["batch"] for row in partial.rows if "batch" in row}
    rows = analysis.spectrum(
        network.model,
        network.variables,
        data,
        key=key,
        k=options["num_eigenvalues"],
        method=options["method"],
        done=done,
        prepare=network.prepare,
        weight_decay=network.weight_decay,
    )
    total = len(data) - len(done)
    for row in progress.track(rows, total=total, name="Largest eigenvalues"):
        partial.append(row)


def _find_density(
    key: jax.Array,
    network: Subject,
    data: Sequence[Batch],
    partial: Partial,
    options: Mapping[str, Any],
) -> None:
    """Adds the rows of those random vectors that are not there yet."""
    num_probes, num_steps = options["num_probes"], options["num_steps"]
    done = {row["probe"] for row in partial.rows if "probe" in row}
    total = (num_probes - len(done)) * num_steps
    with progress.counted(total=total, name="Spectral density") as advance:
        for row in analysis.spectral_density(
            network.model,
            network.variables,
            data,
            key=key,
            num_probes=num_probes,
            num_steps=num_steps,
            done=done,
            on_product=advance,
            prepare=network.prepare,
            weight_decay=network.weight_decay,
        ):
            partial.append(row)


def _summary(partial: Partial, size: int) -> dict[str, Any]:
    """The scores of a row, and its arrays."""
    batches = [row for row in partial.rows if "batch" in row]
    probes = [row for row in partial.rows if "probe" in row]
    arrays = analysis.arrays(batches)
    top = arrays["eigenvalues"].max(1)
    points, density = lanczos.density(
        top, np.ones_like(top), width=lanczos.bandwidth(top)
    )
    arrays |= {"top_points": points, "top_density": density}
    row = {
        "top_mean": float(top.mean()),
        "top_median": float(np.median(top)),
        "top_90": float(np.quantile(top, 0.9)),
        **analysis.proportions(arrays["eigenvalues"]),
        "products": float(arrays["products"].mean()),
    }
    if probes:
        nodes, weights = (
            np.concatenate([probe[name] for probe in probes])
            for name in ("nodes", "weights")
        )
        points, density = lanczos.density(nodes, weights)
        arrays |= {"nodes": nodes, "weights": weights / len(probes)}
        arrays |= {"density_points": points, "density": density}
        row |= {
            "largest": float(nodes.max()),
            "smallest": float(nodes.min()),
            "trace": float(size * (nodes * weights).sum() / len(probes)),
        }
    return {**row, "arrays": arrays}
