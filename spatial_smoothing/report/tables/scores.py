"""The tables of the scores of ensembles, grouped by series.

Which score stands in which table, and what is said about it, is in `columns`.
"""

from collections.abc import Sequence

from spatial_smoothing.report.columns import DETECTORS, column
from spatial_smoothing.report.rows import (
    CONDITIONAL,
    Row,
    are_rankable,
    band_meanings,
    best,
    detected,
    detectors,
    listed,
    metrics,
    number,
    series,
    shared,
    text,
)
from spatial_smoothing.report.tables.cells import (
    Cell,
    Heading,
    SeriesHead,
    Table,
    cell,
    heading_above,
    heading_of,
    score_cell,
    series_table,
)

_MEASURES = ("auroc", "aupr", "fpr95")
_DEFINITIONS = (
    "The reference definition, kept for comparison with published numbers, counts the "
    "images of a confidence bin over (lo, hi] but sums their confidences over "
    "[lo, hi), and averages the NLL over batches without weights; the fixed "
    "definition, used in the rest of this report, counts and sums over (lo, hi] and "
    "averages the NLL over images."
)


def results(rows: Sequence[Row]) -> Table:
    """The scores of every row; where numbers of images differ, these too."""
    keys = metrics(rows)
    if shared(rows, "num_examples") is None and any(
        r.get("num_examples") for r in rows
    ):
        keys.insert(0, "num_examples")
    return _table(
        rows,
        keys,
        heading="Results",
        caption="All rows. N is the number of samples; an arrow points to the better "
        f"side{_bold(rows)}.",
    )


def _bold(rows: Sequence[Row]) -> str:
    """What a caption says of bold values."""
    if are_rankable(rows):
        return ", and the best of a column is bold"
    return (
        "; no value is bold, because the rows are of different numbers of runs or "
        "images, and do not compare"
    )


def calibration(rows: Sequence[Row]) -> Table | None:
    """Calibration errors beside the ECE, and the parts of the Brier score."""
    return _group(
        rows,
        "calibration",
        heading="Calibration",
        caption="Do the probabilities mean what they say? Further calibration errors, "
        "and the parts of the Brier score.",
    )


def uncertainty(rows: Sequence[Row]) -> Table | None:
    """Uncertainties, and what a model gains from answering only where it is sure."""
    return _group(
        rows,
        "uncertainty",
        heading="Uncertainty and selective prediction",
        caption="How uncertain the predictions are, and what is gained by answering "
        "only the most confident.",
    )


def conformal(rows: Sequence[Row]) -> Table | None:
    """How often prediction sets hold the right class, and how large they are."""
    return _group(
        rows,
        "conformal",
        heading="Prediction sets",
        caption="Conformal sets of classes, calibrated on held-out images to hold the "
        "right class of 90 % of the images.",
    )


def streams(rows: Sequence[Row]) -> Table | None:
    """How steady predictions are from frame to frame, and what they cost."""
    return _group(
        rows,
        "streams",
        heading="Streams",
        caption="Predictions on consecutive frames of a stream.",
    )


def temperature(rows: Sequence[Row]) -> Table | None:
    """Scores before and after temperature scaling, side by side."""
    rows = [row for row in rows if metrics([row], group="temperature")]
    if not rows:
        return None
    after = [key for key in metrics(rows, group="temperature") if key != "temperature"]
    pairs = [(key.removeprefix("calibrated_"), key) for key in after]
    above = [
        heading_of("temperature", rows=2),
        *(heading_above(column(key).heading, columns=2, key=key) for key, _ in pairs),
    ]
    top = {key: best(rows, key) for pair in pairs for key in pair}

    def cells(row: Row) -> list[Cell]:
        keys = ["temperature", *(key for pair in pairs for key in pair)]
        return [score_cell(row, key, best=top.get(key)) for key in keys]

    before_after = [Heading(name) for name in ("before", "after") * len(pairs)]
    return series_table(
        series(rows),
        cells,
        SeriesHead(before_after, above),
        section="Temperature",
        caption="Scores before and after the log-probabilities are divided by a "
        "temperature T that was fitted on held-out images."
        f"{_bands(rows, list(top))}",
        notes=[f"T: {column('temperature').note}."],
    )


def detection(rows: Sequence[Row]) -> Table | None:
    """How well each score tells images of another data set."""
    names = detectors(rows)
    rows = [row for row in rows if row.get("detection")]
    if not names:
        return None
    groups = {
        name: [{**row, "by": {n: detected(row, n) for n in names}} for row in group]
        for name, group in series(rows).items()
    }
    scored = [
        row["by"][name] for group in groups.values() for row in group for name in names
    ]
    measures = [m for m in _MEASURES if any(number(s, m) is not None for s in scored)]
    above = [
        heading_above(DETECTORS.get(name, (name,))[0], columns=len(measures))
        for name in names
    ]
    top = {
        (name, measure): best(
            [row["by"][name] for group in groups.values() for row in group], measure
        )
        for name in names
        for measure in measures
    }

    def cells(row: Row) -> list[Cell]:
        found = []
        for name in names:
            for measure in measures:
                values, highest = row["by"][name], top[name, measure]
                if measure == "auroc":
                    found.append(score_cell(values, measure, best=highest))
                else:  # without its band: twelve bands in a line are hard to read
                    value = text(values, measure)
                    found.append(cell(value, is_best=value == highest))
        return found

    meanings = [
        f"{DETECTORS[n][0]}: {DETECTORS[n][1]}." for n in names if n in DETECTORS
    ]
    return series_table(
        groups,
        cells,
        SeriesHead([heading_of(key) for key in measures * len(names)], above),
        section="Out-of-distribution detection",
        caption=f"{_other_images(rows)} An image with a higher score is taken for "
        f"out-of-distribution{_bold(rows)}."
        f"{_bands(scored, ['auroc'])}",
        notes=[*meanings, *_notes(measures)],
    )


def definitions(rows: Sequence[Row]) -> Table | None:
    """The entries that differ between the definitions, at the precision of `results`.

    None where no row has "reference".
    """
    if not any(row.get("reference") for row in rows):
        return None
    keys = [key for key in metrics(rows) if any(_differs(row, key) for row in rows)]
    if not keys:
        agree = "They agree on every entry, at the precision of Table 1."
        return Table("Two definitions", lead=f"{_DEFINITIONS} {agree}")
    groups = {
        name: [row for row in group if any(_differs(row, key) for key in keys)]
        for name, group in series(rows).items()
    }
    above = [heading_above(column(key).heading, columns=2, key=key) for key in keys]

    def cells(row: Row) -> list[Cell]:
        found = []
        for key in keys:
            differs = _differs(row, key)
            found.append(cell(text(row, key) if differs else ""))
            found.append(cell(text(row["reference"], key) if differs else ""))
        return found

    headings = [Heading(name) for name in ("fixed", "reference") * len(keys)]
    return series_table(
        groups,
        cells,
        SeriesHead(headings, above),
        section="Two definitions",
        caption="The entries on which the two definitions differ.",
        lead=_DEFINITIONS,
    )


def _group(
    rows: Sequence[Row], group: str, *, heading: str, caption: str
) -> Table | None:
    """The scores of one group, of the rows that have any."""
    rows = [row for row in rows if metrics([row], group=group)]
    keys = metrics(rows, group=group)
    return _table(rows, keys, heading=heading, caption=caption) if keys else None


def _table(
    rows: Sequence[Row], keys: Sequence[str], *, heading: str, caption: str
) -> Table:
    top = {key: best(rows, key) for key in keys}
    return series_table(
        series(rows),
        lambda row: [score_cell(row, key, best=top[key]) for key in keys],
        SeriesHead([heading_of(key) for key in keys]),
        section=heading,
        caption=caption + _bands(rows, keys),
        notes=_notes(keys),
    )


def _bands(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """What a caption says of means over runs and of bands."""
    words = ""
    if any("num_runs" in row for row in rows):
        words = " Values are means over runs."
    spread, interval = band_meanings(rows, keys)
    brackets = [f"in round brackets, {spread}"] if spread else []
    brackets += [f"in square brackets, {interval}"] if interval else []
    if brackets:
        sentence = "; ".join(brackets)
        words += f" {sentence[0].upper()}{sentence[1:]}."
    return words


def _notes(keys: Sequence[str]) -> list[str]:
    """What each score means, where its heading does not say it."""
    notes = []
    for key in keys:
        heading, *_, better, _, note = column(key)
        if note:
            side = f"; {better} is better" if better else ""
            notes.append(f"{heading}: {note}{side}.")
    conditional = [column(key).heading for key in keys if key in CONDITIONAL]
    if conditional:
        notes.append(
            f"{listed(conditional)}: of n images, which are others in each row, so "
            "that no value is bold."
        )
    return notes


def _other_images(rows: Sequence[Row]) -> str:
    """Which images are to be told from which."""
    others = [row["detection"] for row in rows]
    dataset, split = shared(others, "dataset"), shared(others, "split")
    count, known = shared(others, "num_examples"), shared(rows, "dataset")
    images = f"{count:,.0f} images" if count else "images"
    source = f" of {dataset}" if dataset else " of another data set"
    source += f" ({split} split)" if dataset and split else ""
    return f"Telling {images}{source} from those of {known or 'the test set'}."


def _differs(row: Row, key: str) -> bool:
    reference = row.get("reference") or {}
    comparable = None not in (number(row, key), number(reference, key))
    return comparable and text(row, key) != text(reference, key)
