"""Paired differences: scores with smoothing minus those without, on the same images."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import metrics, report
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.metrics import Examples
from spatial_smoothing.runtime import random_bits


def differences(
    rows: Sequence[Row], *, num_replicates: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Scores with smoothing minus those without, by a paired bootstrap over images.

    A difference is between means over equally many runs. Models with different numbers
    of runs are not compared.

    Args:
      rows: Rows with `examples`, those of one series and size being seeds of one thing.
        The pairs of `report.smoothing_pairs` are compared or, without one, the second
        of two series with the first.
      num_replicates: Number of replicates of the bootstrap; 0 for no differences.
      seed: Seed of the bootstrap.

    Returns:
      For each pair of series and each size of both: `label`, `num_samples`,
      `num_examples`, `num_runs` where there are several, and `values`, score ->
      [difference, low, high] at 95 %. Then two samples with smoothing minus the most
      without. A score that is undefined for some run or in a replicate is left out.
    """
    groups = report.series([row for row in rows if "examples" in row])
    pairs = report.smoothing_pairs(groups)
    if not pairs and len(groups) == 2:
        pairs = [tuple(groups)[::-1]]
    found = []
    for after, before in pairs if num_replicates else ():
        after_by_size, before_by_size = (_by_size(groups[n]) for n in (after, before))
        sizes = sorted(after_by_size.keys() & before_by_size.keys())
        compared = [(size, size) for size in sizes]
        if len(sizes) > 2 and 2 in sizes:
            compared.append((2, sizes[-1]))
        for one, other in compared:
            runs = after_by_size[one], before_by_size[other]
            if len(runs[0]) != len(runs[1]):
                continue
            values = _difference(*runs, num_replicates, seed)
            if not values:
                continue
            texts = (after, before)
            if one != other:
                texts = (f"{after}, N = {one},", f"{before}, N = {other}")
            found.append(
                {
                    "label": " minus ".join(texts),
                    "num_samples": one,
                    "num_examples": len(runs[0][0].label),
                    **({"num_runs": len(runs[0])} if len(runs[0]) > 1 else {}),
                    "values": values,
                }
            )
    return found


def _by_size(rows: Sequence[Row]) -> dict[int, list[Examples]]:
    sizes: dict[int, list[Examples]] = {}
    for row in rows:
        sizes.setdefault(row["num_samples"], []).append(row["examples"])
    return sizes


def _difference(
    after: Sequence[Examples],
    before: Sequence[Examples],
    num_replicates: int,
    seed: int,
) -> dict[str, list[float]] | None:
    """Score -> [difference, low, high]; None where the images are not the same.

    Scores of which any of the three is not finite are left out.
    """
    labels = [examples.label for examples in (*after, *before)]
    if not all(np.array_equal(label, labels[0]) for label in labels):
        return None
    stacked = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)
        for group in (after, before)
    ]
    estimate, ends = jax.device_get(
        _bootstrapped(
            random_bits.key(seed),
            *stacked,
            num_classes=_num_classes(stacked),
            num_replicates=num_replicates,
        )
    )
    values = {
        name: [float(value), *(float(end) for end in ends[name])]
        for name, value in estimate.items()
    }
    return {name: three for name, three in values.items() if np.isfinite(three).all()}


def _num_classes(groups: Sequence[Examples]) -> int:
    """As many as are there: classes without labels do not count in any score."""
    return 1 + max(
        int(values.max())
        for group in groups
        for values in (group.label, group.prediction)
    )


@functools.partial(jax.jit, static_argnames=("num_classes", "num_replicates"))
def _bootstrapped(key, after, before, *, num_classes, num_replicates):
    """The difference between the means over seeds, and its interval."""

    def mean_table(group: Examples, weights: jax.Array) -> dict[str, jax.Array]:
        tables = [
            metrics.table(
                jax.tree.map(lambda leaf, i=index: leaf[i], group),
                weights,
                num_classes=num_classes,
            )
            for index in range(len(group.label))
        ]
        return jax.tree.map(lambda *values: sum(values) / len(values), *tables)

    one, other = (functools.partial(mean_table, group) for group in (after, before))
    size = after.label.shape[1]
    replicates = metrics.paired(key, one, other, size, num_replicates=num_replicates)
    estimate = jax.tree.map(jnp.subtract, one(jnp.ones(size)), other(jnp.ones(size)))
    return estimate, metrics.interval(replicates)
