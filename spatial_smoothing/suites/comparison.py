"""Comparison of evaluated workdirs: their rows side by side, and paired differences."""

import functools
import zipfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from spatial_smoothing import metrics, report, workdirs
from spatial_smoothing.evaluation import Row
from spatial_smoothing.metrics import Examples
from spatial_smoothing.workdirs import FREE

_FILE = "examples.npz"


def distinct_labels(
    groups: Mapping[str, Sequence[Row]], configs: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """Joins the rows of several workdirs, telling apart those of one label.

    Args:
      groups: Workdir -> its rows.
      configs: Workdir -> the config of its run.

    Returns:
      All rows. Where workdirs share a label and differ in more than the seed, the label
      is followed by the workdir's name.
    """
    owners: dict[str, set[str]] = {}
    for workdir, rows in groups.items():
        for row in rows:
            owners.setdefault(row["label"], set()).add(workdir)

    def shared(label: str) -> bool:
        recipes = [_recipe(configs[workdir]) for workdir in owners[label]]
        return all(recipe == recipes[0] for recipe in recipes)

    return [
        row if shared(row["label"]) else {**row, "label": f"{row['label']} ({workdir})"}
        for workdir, rows in groups.items()
        for row in rows
    ]


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in FREE | {"seed"}}


def save_examples(output: epath.PathLike, rows: Sequence[Row]) -> list[Row]:
    """Writes the `examples` of rows beside their report; returns the rows without."""
    rows = [dict(row) for row in rows]
    found = [row.pop("examples", None) for row in rows]
    arrays = {
        f"{index}/{name}": value
        for index, examples in enumerate(found)
        if examples is not None
        for name, value in vars(examples).items()
    }
    path = epath.Path(output)
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / f"{_FILE}.tmp"
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path / _FILE)
    return rows


def read(workdir: epath.PathLike) -> tuple[list[Row], dict[str, Any]]:
    """Returns the rows of an evaluated workdir, with examples, and their provenance.

    Raises:
      ValueError: if it is not evaluated, or was by a version that wrote less.
    """
    path = workdirs.evaluation_path(workdir)
    rows, where = report.read(path)
    rows = load_examples(path.parent, rows)
    if "config" not in where or any("split" not in row for row in rows):
        raise ValueError(f"{path} lacks what is compared; evaluate {workdir} anew")
    return rows, where


def load_examples(output: epath.PathLike, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of a report with the `examples` that were saved with them.

    Raises:
      ValueError: if what was saved is damaged, or of an older version.
    """
    path = epath.Path(output) / _FILE
    if not path.exists():
        return list(rows)
    fields: dict[int, dict[str, np.ndarray]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                index, name = key.split("/")
                fields.setdefault(int(index), {})[name] = arrays[key]
        examples = {index: Examples(**values) for index, values in fields.items()}
    except (TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged or of an older version; evaluate anew"
        ) from error
    return [
        {**row, "examples": examples[index]} if index in examples else row
        for index, row in enumerate(rows)
    ]


def earlier(
    output: epath.PathLike, where: Mapping[str, Any], *, without: Collection[str]
) -> tuple[list[Row], dict[str, Any]]:
    """Returns what a report already says of the same runs by other suites.

    Args:
      output: Directory of the report, if there is one.
      where: Provenance of the new rows; only a report with the same `runs`, `split` and
        `config` is of use.
      without: Suites that are evaluated anew.

    Returns:
      Rows, and suite -> numbers of its evaluation.
    """
    path = epath.Path(output) / "metrics.json"
    try:
        rows, before = report.read(path)
        rows = load_examples(output, rows)
    except (OSError, ValueError):
        return [], {}
    where = report.plain(dict(where))
    if any(before.get(key) != where[key] for key in ("runs", "split", "config")):
        return [], {}
    evaluations = before.get("evaluations", {})
    kept = {name: value for name, value in evaluations.items() if name not in without}
    return [row for row in rows if row.get("suite") in kept], kept


def differences(
    rows: Sequence[Row], *, num_replicates: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Scores with smoothing minus those without, by a paired bootstrap over images.

    Args:
      rows: With `examples`, those of one series and size being seeds of one thing;
        compared are the pairs of `report.smoothing_pairs`, or, without one, the second
        of two series with the first.
      num_replicates: Of the bootstrap; 0 for no differences.
      seed: Of the bootstrap.

    Returns:
      For each pair of series and each size of both: `label`, `num_samples`,
      `num_examples` and `values`, score -> [difference, low, high] at 95 %. Then two
      samples with smoothing minus the most without.
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
            values = _difference(
                after_by_size[one], before_by_size[other], num_replicates, seed
            )
            if values is None:
                continue
            texts = (after, before)
            if one != other:
                texts = (f"{after}, N = {one},", f"{before}, N = {other}")
            found.append(
                {
                    "label": " minus ".join(texts),
                    "num_samples": one,
                    "num_examples": len(after_by_size[one][0].label),
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
    """Score -> [difference, low, high]; None where the images are not the same."""
    labels = [examples.label for examples in (*after, *before)]
    if not all(np.array_equal(label, labels[0]) for label in labels):
        return None
    stacked = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)
        for group in (after, before)
    ]
    estimate, ends = jax.device_get(
        _bootstrapped(
            jax.random.key(seed),
            *stacked,
            num_classes=_num_classes(stacked),
            num_replicates=num_replicates,
        )
    )
    return {
        name: [float(value), *(float(end) for end in ends[name])]
        for name, value in estimate.items()
    }


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
