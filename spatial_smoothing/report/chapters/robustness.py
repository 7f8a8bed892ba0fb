"""What the chapters of robustness share: series, averages over runs, shown names."""

from collections.abc import Sequence

from spatial_smoothing.report.rows import Row, shared
from spatial_smoothing.report.runs import mean

CHECKED = ("dataset", "split", "data")


def prepared(rows: Sequence[Row], kinds: Sequence[str]) -> list[Row]:
    """Averages the rows of several runs, and tells apart those of other images.

    Args:
      rows: Of a chapter.
      kinds: Keys that tell the rows of a label and a size apart.

    Returns:
      Rows whose "label" names also the images where these differ.
    """
    varying = [key for key in CHECKED if rows and shared(rows, key) is None]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        details = ", ".join(str(row[key]) for key in varying if row.get(key))
        label = f"{row['label']} ({details})" if details else row["label"]
        kind = (label, row["num_samples"], *(row.get(key) for key in kinds))
        groups.setdefault(kind, []).append({**row, "label": label})
    keys = ("label", "num_samples", *kinds)
    return [
        group[0]
        if len(group) == 1
        else {**mean(group), **dict(zip(keys, kind, strict=True))}
        for kind, group in groups.items()
    ]


def largest(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each label at its largest number of samples."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row["label"]] = max(row["num_samples"], sizes.get(row["label"], 0))
    groups: dict[str, list[Row]] = {label: [] for label in sizes}
    for row in rows:
        if row["num_samples"] == sizes[row["label"]]:
            groups[row["label"]].append(row)
    return groups


def sized(label: str, rows: Sequence[Row]) -> str:
    """A label with the number of samples that its rows share."""
    return f"{label} (N = {rows[0]['num_samples']})"


def shown(rows: Sequence[Row], key: str) -> dict[str, str]:
    """Corruption or perturbation -> its name in reports, in order of appearance.

    It says how the one measured departs from the official one.
    """
    names: dict[str, str] = {}
    for row in rows:
        name = row.get(key)
        if name and names.get(name, name) == name:
            deviation = row.get("deviation")
            names[name] = f"{name} ({deviation})" if deviation else name
    return {name: text.replace("_", " ") for name, text in names.items()}


def images(rows: Sequence[Row]) -> str:
    """What was measured on, such as "cifar100 corrupted (generated), 500 images"."""
    about = [f"{row.get('dataset')} {row.get('data')}" for row in rows]
    count = shared(rows, "num_examples")
    words = " and ".join(dict.fromkeys(about))
    return f"{words}, {count:,.0f} images" if count else words
