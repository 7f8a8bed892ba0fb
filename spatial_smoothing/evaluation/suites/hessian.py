"""Hessian spectra as a suite: of mini-batches, and the full density.

Contract of this file: `hessian` is a suite, as `suites.settings` describes them. Rows
of mini-batches and of random vectors are kept as they are found, so that an evaluation
that was stopped continues.
"""

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
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits, sharding


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

    Images are augmented as in training, but for those that training crops while it
    decodes them, such as ImageNet's. The objective is the plain cross-entropy: label
    smoothing, mixup and other additions of a recipe are left out.

    Args:
      runs: One run; the suite refuses several.
      setting: Settings of the evaluation. Its batch size is that of the mini-batches;
        images, augmentation, dropout masks and random vectors follow from its seed.
      num_batches: Number of mini-batches of training images, drawn at random, whose
        largest eigenvalues are found; at least 1.
      num_eigenvalues: Number of eigenvalues of each mini-batch, those of largest
        magnitude; at least 1.
      method: "lanczos", or the paper's "power".
      density_batches: Number of the mini-batches whose mean loss has the density of all
        eigenvalues that is estimated; 0 for no density.
      num_probes: Number of random vectors that the density is estimated from, at least
        1.
      num_steps: Number of Lanczos steps for each random vector, at least 1.

    Returns:
      One row: `augmented`, whether the images are; `num_batches` and
      `density_batches`, how many there were; `top_mean`, `top_median` and `top_90`, a
      quantile, of the largest eigenvalue of a mini-batch; `negative` and
      `positive_mean`, which `analysis.hessian.proportions` describes; of the density
      `largest`, `smallest` and `trace`. In "arrays" the values themselves and both
      densities.

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
    check(runs, setting, **options)
    network = subject(runs, setting, suite="hessian")
    count = max(num_batches, density_batches) * setting.batch_size
    with progress.status("Hessian: drawing training images"):
        images = training_images(runs, setting, count, seed=setting.seed)
        data = list(sharding.load_batches(images, setting.batch_size, network.mesh))
        about = {"images": images.checksum(), **options}
    partial = setting.partial("hessian", runs, about)
    keys = jax.random.split(random_bits.key(setting.seed))
    try:
        _find_eigenvalues(keys[0], network, data[:num_batches], partial, options)
        if density_batches:
            _find_density(keys[1], network, data[:density_batches], partial, options)
    except FloatingPointError as error:
        raise ValueError(
            f"the suite hessian cannot evaluate {runs[0].path}: {error}; its training "
            "may have diverged"
        ) from error
    size = analysis.num_parameters(network.variables)
    return [
        {
            **network.about,
            "split": "train",
            "augmented": network.augments,
            "num_examples": images.num_examples,
            "batch_size": setting.batch_size,
            **options,
            # Of few training images there are fewer batches than were asked for.
            "num_batches": min(num_batches, len(data)),
            "density_batches": min(density_batches, len(data)),
            "num_parameters": size,
            **_summary(partial, size),
        }
    ]


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_batches: int = 10,
    num_eigenvalues: int = 1,
    method: str = "lanczos",
    density_batches: int = 4,
    num_probes: int = 1,
    num_steps: int = 80,
) -> None:
    """Raises ValueError for arguments that `hessian` cannot use.

    Args:
      runs: The run, as the only element.
      setting: Settings of the evaluation.
      num_batches: Number of mini-batches whose largest eigenvalues are found.
      num_eigenvalues: Number of eigenvalues of each mini-batch.
      method: How eigenvalues are found.
      density_batches: Number of mini-batches for the density; 0 for no density.
      num_probes: Number of random vectors that the density is estimated from.
      num_steps: Number of Lanczos steps for each random vector.
    """
    network = subject(runs, setting, suite="hessian")
    for name, value, least in (
        ("num_batches", num_batches, 1),
        ("density_batches", density_batches, 0),
        ("num_probes", num_probes, 1),
        ("num_steps", num_steps, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    lookup(lanczos.METHODS, method, "method")
    size = analysis.num_parameters(network.variables)
    if not 1 <= num_eigenvalues <= size:
        raise ValueError(
            f"num_eigenvalues must be in [1, {size}], got {num_eigenvalues}"
        )


def _find_eigenvalues(
    key: jax.Array,
    network: Subject,
    data: Sequence[Batch],
    partial: Partial,
    options: Mapping[str, Any],
) -> None:
    """Adds the rows of those mini-batches that `partial` does not have yet."""
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
    """Adds the rows of those random vectors that `partial` does not have yet."""
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
    """Returns the scores of the row, and its arrays.

    Args:
      partial: Rows of mini-batches and of random vectors.
      size: Number of parameters.
    """
    batches = [row for row in partial.rows if "batch" in row]
    probes = [row for row in partial.rows if "probe" in row]
    arrays = analysis.arrays(batches)
    # Eigenvalues are sorted by magnitude; the largest one need not be the first.
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
        # The weights of one vector sum to one, and so do those of all together.
        arrays |= {"nodes": nodes, "weights": weights / len(probes)}
        arrays |= {"density_points": points, "density": density}
        row |= {
            "largest": float(nodes.max()),
            "smallest": float(nodes.min()),
            # The mean eigenvalue, times their number.
            "trace": float(size * (nodes * weights).sum() / len(probes)),
        }
    return {**row, "arrays": arrays}
