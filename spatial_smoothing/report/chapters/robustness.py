"""What the chapters of robustness share: series, averages over runs, shown names."""

from collections.abc import Mapping, Sequence

from spatial_smoothing.report.rows import Row, best, shared, text
from spatial_smoothing.report.runs import mean
from spatial_smoothing.report.tables.cells import (
    Heading,
    Line,
    Name,
    Table,
    cell,
    heading_above,
    heading_of,
)

CHECKED = ("dataset", "split", "data")


def prepared(
    rows: Sequence[Row], kinds: Sequence[str], *, checked: Sequence[str] = CHECKED
) -> list[Row]:
    """Averages the rows of several runs, and tells apart those of other images.

    Args:
      rows: Rows of a chapter, with "label" and "num_samples".
      kinds: Keys that tell the rows of a label and a number of samples apart.
      checked: Keys of which rows of one label must have the same values.

    Returns:
      Rows whose "label" names the values under `checked` too, where they differ.
    """
    varying = [key for key in checked if rows and shared(rows, key) is None]
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
    """A label with the number of samples and, if several, of runs of its rows."""
    runs = rows[0].get("num_runs")
    return f"{label} (N = {rows[0]['num_samples']}{f', {runs} runs' if runs else ''})"


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
    """The images of rows, such as "cifar100 corrupted (generated), 500 images"."""
    names = []
    for row in rows:
        known = [str(row[key]) for key in ("dataset", "data") if row.get(key)]
        names.append(" ".join(known) or "an unnamed data set")
    count = shared(rows, "num_examples")
    words = " and ".join(dict.fromkeys(names))
    return f"{words}, {count:,.0f} images" if count else words


def side_by_side(
    values: Mapping[str, Mapping[str, Row]],
    names: Mapping[str, str],
    keys: Sequence[str],
    *,
    section: str,
    caption: str,
    first: str,
    are_ranked: bool = True,
    notes: Sequence[str] = (),
) -> Table:
    """A table with a line for each corruption, and columns for each model.

    Args:
      values: Model -> corruption -> row of its scores; a corruption may be absent.
      names: Corruption -> its name in reports, in the order of the lines.
      keys: The scores of each model.
      section: Heading of the section.
      caption: What the table shows.
      first: Heading of the names.
      are_ranked: Whether the best of a line is marked.
      notes: Lines below the table.
    """
    lines = []
    for corruption, shown_name in names.items():
        rows = [found.get(corruption, {}) for found in values.values()]
        ranked = [row for row in rows if row] if are_ranked else []
        top = {key: best(ranked, key) for key in keys}
        cells = []
        for row in rows:
            for key in keys:
                value = text(row, key)
                cells.append(cell(value, is_best=value == top[key]))
        lines.append(Line(Name(shown_name), None, cells))
    above = [heading_above(model, columns=len(keys)) for model in values]
    return Table(
        heading=section,
        caption=caption,
        head=[
            [Heading(first, rows=2, is_name=True), *above],
            [heading_of(key) for _ in values for key in keys],
        ],
        groups=[lines],
        notes=notes,
    )
