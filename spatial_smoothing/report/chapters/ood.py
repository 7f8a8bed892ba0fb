"""The chapter of out-of-distribution detection, in the form of OpenOOD's tables."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from spatial_smoothing.report.chapters import ood_figures
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.chapters.ood_rows import (
    CONFIDENCES,
    DISTANCES,
    Scored,
    largest,
    scored,
    set_names,
)
from spatial_smoothing.report.chapters.robustness import images
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.figures.canvas import Looks
from spatial_smoothing.report.figures.pictures import Picture, bands, picture
from spatial_smoothing.report.rows import (
    Row,
    band_meanings,
    best,
    listed,
    number,
    shared,
    text,
)
from spatial_smoothing.report.tables.cells import (
    Cell,
    Heading,
    Line,
    Name,
    SeriesHead,
    Table,
    cell,
    heading_above,
    heading_of,
    score_cell,
    series_table,
)

_HEADING = "Near and far out-of-distribution detection"
_OF_MEANS = ("auroc", "fpr95")
_OF_SIZES = ("auroc", "aupr_in", "aupr_out", "fpr95")
_NOTES = (
    "OOD images are the positive class. AUROC: chance that an OOD image scores above "
    "one of the test set. FPR95: share of the test images above the threshold that "
    "finds 95 % of the OOD images. AUPR-in and AUPR-out: average precision, with the "
    "test images or the OOD images as positives; metrics.json also has both by the "
    "trapezoidal rule, as OpenOOD publishes them, and SCOD.",
    "Confidences of predictions are those of the mean of the probabilities over "
    "samples; those marked (logits), MLS, energy and ODIN are those of the mean of the "
    "logits.",
    "Near and far are unweighted means over their sets. Confidences of features (KNN, "
    "MDS, RMDS, ReAct, ViM) are those of a pass without dropout, and have N = 1.",
)


def _tables(rows: Sequence[Row]) -> list[Table]:
    found = scored(rows)
    names = set_names(rows)
    return [_of_means(found, rows), _of_sets(found, names), _of_sizes(found)]


def _of_means(found: Sequence[Scored], rows: Sequence[Row]) -> Table:
    """Near and far means at the largest number of samples, a line a confidence."""
    names = set_names(rows)
    groups = [
        f"{name.lower()} is {listed([names[n] for n in of_distance])}"
        for key, name in DISTANCES.items()
        if (of_distance := _sets_of(rows, key))
    ]
    means = [row for each in found for row in each.means.values()]
    spread, interval = band_meanings(means, ["auroc"])
    brackets = [f" In round brackets, {spread}."] if spread else []
    brackets += [f" In square brackets, {interval}."] if interval else []
    explained = [
        f"{heading}: {meaning}{_constant(rows, name)}."
        for name, (heading, meaning) in CONFIDENCES.items()
        if any(row["confidence"] == name for row in rows)
    ]
    return _side_by_side(
        found,
        [(distance, key) for key in _OF_MEANS for distance in DISTANCES],
        lambda each, distance: each.means.get(distance, {}),
        DISTANCES,
        caption=f"Telling images of other data sets from those of {images(rows)}, by "
        f"each confidence, at the largest number of samples N; {'; '.join(groups)}. "
        f"The best of a column is bold.{''.join(brackets)}",
        notes=[*explained, *_NOTES],
    )


def _of_sets(found: Sequence[Scored], names: Mapping[str, str]) -> Table:
    """AUROC of every set at the largest number of samples, a line a confidence."""
    return _side_by_side(
        found,
        [(name, "auroc") for name in names],
        lambda each, name: each.sets.get(name, {}),
        names,
        caption="AUROC on every set, at the largest number of samples N.",
    )


def _side_by_side(
    found: Sequence[Scored],
    columns: Sequence[tuple[str, str]],
    row_of: Callable[[Scored, str], Row],
    names: Mapping[str, str],
    *,
    caption: str,
    notes: Sequence[str] = (),
) -> Table:
    """A table with a line for each confidence, and columns for each model.

    Args:
      found: Confidences of ensembles.
      columns: Pairs of a set, or near or far, and a score; of each model.
      row_of: Function of a `Scored` and such a set to its row, {} for none.
      names: Set, or near or far -> what the table calls it.
      caption: What the table shows.
      notes: Lines below the table.
    """
    chosen = {(each.label, each.confidence): each for each in largest(found)}
    labels = list(dict.fromkeys(each.label for each in found))
    confidences = list(dict.fromkeys(each.confidence for each in found))
    columns = [
        (key, score)
        for key, score in columns
        if any(row_of(each, key) for each in chosen.values())
    ]

    def row_at(label: str, confidence: str, key: str) -> Row:
        each = chosen.get((label, confidence))
        return row_of(each, key) if each else {}

    top = {
        (label, key, score): best(
            [row for name in confidences if (row := row_at(label, name, key))], score
        )
        for label in labels
        for key, score in columns
    }
    lines = []
    for confidence in confidences:
        cells: list[Cell] = []
        for label in labels:
            for key, score in columns:
                row, highest = row_at(label, confidence, key), top[label, key, score]
                if score == "auroc":
                    cells.append(score_cell(row, score, best=highest))
                else:  # without its band: many bands in a line are hard to read
                    value = text(row, score)
                    cells.append(cell(value, is_best=value == highest))
        lines.append(Line(Name(confidence), None, cells))
    above = [
        heading_above(_sized(label, chosen.values()), columns=len(columns))
        for label in labels
    ]
    below = [
        _heading(f"{names[key]} {column(score).heading}", score)
        for key, score in columns
    ]
    return Table(
        heading=_HEADING,
        caption=caption,
        head=[
            [Heading("Confidence", rows=2, is_name=True), *above],
            below * len(labels),
        ],
        groups=[lines],
        notes=notes,
    )


def _sized(label: str, found: Iterable[Scored]) -> str:
    """A model with the largest number of samples that it has."""
    size = max(each.num_samples for each in found if each.label == label)
    return f"{label} (N = {size})"


def _heading(words: str, score: str) -> Heading:
    """The heading of a column with the unit and the better side of a score."""
    known = heading_of(score)
    return Heading(words, known.unit, known.better)


def _of_sizes(found: Sequence[Scored]) -> Table:
    """Near and far means at every number of samples, a group of lines a confidence."""
    groups: dict[str, list[Row]] = {}
    for each in found:
        name = f"{each.label}: {each.confidence}"
        row = {"num_samples": each.num_samples, "means": each.means}
        groups.setdefault(name, []).append(row)
    distances = [d for d in DISTANCES if any(d in each.means for each in found)]

    def cells(row: Row) -> list[Cell]:
        return [
            cell(text(row["means"].get(distance, {}), score))
            for distance in distances
            for score in _OF_SIZES
        ]

    above = [heading_above(DISTANCES[d], columns=len(_OF_SIZES)) for d in distances]
    return series_table(
        groups,
        cells,
        SeriesHead([heading_of(key) for key in _OF_SIZES] * len(distances), above),
        section=_HEADING,
        caption="Means over near and over far sets at every number of samples N.",
    )


def _sets_of(rows: Sequence[Row], distance: str) -> list[str]:
    """The names of the sets that are near, or far."""
    names = (row["ood"] for row in rows if row["distance"] == distance)
    return list(dict.fromkeys(name for name in names if name))


def _constant(rows: Sequence[Row], confidence: str) -> str:
    """The constant of a confidence in brackets, if all rows share it."""
    of_confidence = [row for row in rows if row["confidence"] == confidence]
    constant = shared(of_confidence, "constant")
    if constant:
        return f" ({constant})"
    chosen = any(row.get("constant") for row in of_confidence)
    return " (constant chosen on a validation set for each row)" if chosen else ""


def _lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The lines of the terminal: AUROC of near, far and every set, and FPR95."""
    names = set_names(rows)
    found = scored(rows)
    distances = [d for d in DISTANCES if any(d in each.means for each in found)]
    lines, before = [], None
    for each in sorted(found, key=lambda each: _place(each, found)):
        head = (each.label, each.num_samples)
        line = {"Model": each.label if head != before else ""}
        line["N"] = str(each.num_samples) if head != before else ""
        line["Confidence"] = each.confidence
        for key in distances:
            line[DISTANCES[key]] = text(each.means.get(key, {}), "auroc")
        for key in distances:
            line[f"FPR95 {key}"] = text(each.means.get(key, {}), "fpr95")
        for key, name in names.items():
            line[name] = text(each.sets.get(key, {}), "auroc")
        lines.append(line)
        before = head
    return lines


def _place(each: Scored, found: Sequence[Scored]) -> tuple[int, int]:
    """Where a line is: by model, then by number of samples; ties stay in order."""
    labels = list(dict.fromkeys(other.label for other in found))
    return labels.index(each.label), each.num_samples


def _pictures(rows: Sequence[Row], looks: Looks) -> dict[str, Picture]:
    found = scored(rows)
    pictures = {}
    sized = ood_figures.sized(found)
    if sized:
        shown = listed(list(dict.fromkeys(each.confidence for each in sized)))
        means = [row for each in sized for row in each.means.values()]
        pictures["ood_auroc.png"] = picture(
            functools.partial(ood_figures.size_figure, sized, looks=looks),
            heading=_HEADING,
            alt=f"AUROC against the number of samples. {_values(found)}",
            caption=f"AUROC of {shown} against the number of samples N, as the mean "
            "over near and over far sets. A dashed line is a model with one sample "
            f"only.{bands(means, ['auroc'])}",
        )
    drawn = ood_figures.drawn(rows)
    if drawn:
        names = set_names(rows)
        confidence = drawn[0].confidence
        options = {"names": names, "looks": looks}
        pictures["ood_roc.png"] = picture(
            functools.partial(ood_figures.roc_figure, drawn, **options),
            heading=_HEADING,
            alt=f"ROC curves of {confidence} for every set. {_values(found)}",
            caption=f"ROC curves of {confidence}: the share of OOD images found "
            "against the share of test images taken for OOD. Lines are the largest N "
            "of a model; dashed, if that is another, N = 1.",
        )
        pictures["ood_scores.png"] = picture(
            functools.partial(ood_figures.histogram_figure, drawn, **options),
            heading=_HEADING,
            alt=f"Histograms of {confidence} for every set and model.",
            caption=f"Shares of the images by {confidence}, at the largest N of a "
            "model: filled, the test images; outlined, the OOD images.",
        )
    return pictures


def _values(found: Sequence[Scored]) -> str:
    """Near and far AUROC of the first confidence at the largest N, in words."""
    first = [each for each in largest(found) if each.confidence == found[0].confidence]
    parts = [
        f"{each.label} (N = {each.num_samples}) {key} {text(row, 'auroc')} %"
        for each in first
        for key, row in each.means.items()
        if number(row, "auroc") is not None
    ]
    return f"{found[0].confidence}: {'; '.join(parts)}." if parts else ""


CHAPTER = Chapter(
    headings=(_HEADING,),
    tables=_tables,
    pictures=_pictures,
    files=("ood_auroc.png", "ood_roc.png", "ood_scores.png"),
    lines=_lines,
    required=("num_samples", "confidence", "distance"),
)
