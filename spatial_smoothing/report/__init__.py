"""Reports: rows -> JSON, CSV, figures, one self-contained HTML page, a terminal table.

A row is one model at one number of samples (see `rows`): {"label": ...,
"num_samples": ..., "nll": ..., "accuracy": ..., ...}, rates as fractions, NLL in nats;
or one of another suite (see `chapters`). Options are keyword-only. Matplotlib and Rich
are imported when they are needed.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from etils import epath

from spatial_smoothing.lookup import unknown
from spatial_smoothing.report import chapters, page
from spatial_smoothing.report.chapters.landscape import (
    contour_figure as landscape_figure,
)
from spatial_smoothing.report.chapters.landscape import (
    surface_figure as landscape_surface_figure,
)
from spatial_smoothing.report.comparisons import checked_differences, smoothing_pairs
from spatial_smoothing.report.figures import pictures as figure_files
from spatial_smoothing.report.figures.canvas import FORMATS, Looks
from spatial_smoothing.report.figures.curves import (
    accuracy_nll_figure,
    detection_figure,
    ensemble_size_figure,
    risk_coverage_figure,
    time_figure,
)
from spatial_smoothing.report.figures.reliability import (
    confidence_figure,
    reliability_figure,
)
from spatial_smoothing.report.files import (
    attach_arrays,
    check_writable,
    csv_text,
    npz_bytes,
    replace,
    without_arrays,
)
from spatial_smoothing.report.published import published
from spatial_smoothing.report.rows import Row, checked, plain, plain_but_arrays, series
from spatial_smoothing.report.runs import averaged
from spatial_smoothing.report.terminal import (
    detection_lines,
    print_lines,
    print_table,
    table,
)

__all__ = [
    "accuracy_nll_figure",
    "check",
    "confidence_figure",
    "detection_figure",
    "ensemble_size_figure",
    "landscape_figure",
    "landscape_surface_figure",
    "plain",
    "print_rows",
    "print_table",
    "published",
    "read",
    "reliability_figure",
    "risk_coverage_figure",
    "series",
    "smoothing_pairs",
    "table",
    "time_figure",
    "write",
]


def write(
    output: epath.PathLike,
    rows: Sequence[Row],
    *,
    provenance: Mapping[str, Any] | None = None,
    title: str | None = None,
    differences: Sequence[Mapping[str, Any]] = (),
    beside: Sequence[Row] = (),
    files: Mapping[str, bytes] | None = None,
    formats: Sequence[str] = ("png",),
    figure_width: float | None = None,
) -> epath.Path:
    """Writes metrics.json, metrics.csv, the figures and report.html.

    Every file is complete or not there; those of an earlier report are replaced. A
    figure or table that the rows have no values for is left out. Rows that differ in
    "run" alone are single in the files, and averaged on the page and in the figures.
    Numbers that are not finite are null in JSON and empty in CSV. The rows of a chapter
    have a CSV file and, for their arrays, an NPZ file, both named after the chapter.

    Args:
      output: The directory, made if need be.
      rows: Report rows; see `rows`. A row needs "label" and "num_samples" alone. Its
        "examples", the scores of single images, are not written.
      provenance: Where the numbers come from: a nested dict of JSON's types.
      title: Heading of the page; None for one that names the data set and the split
        that was scored.
      differences: Paired differences between models; see `comparisons`.
      beside: Rows to draw for comparison, such as those of `published`.
      files: Name -> content of further files, which are written with the report or
        not at all.
      formats: File formats of the figures, of "png", "pdf" and "svg". The page has its
        own pictures, whatever this says.
      figure_width: Width of the figures in inches, at least 1, such as 3.25 for a
        column of a paper: text is then smaller, and below 5 inches panels stand below
        each other. None for figures as on the page.

    Returns:
      The path of report.html.

    Raises:
      ValueError: The rows are not report rows, or the differences not differences; or a
        format or width is unusable.
      TypeError: A value is of a type that JSON does not have.
      OSError: `output` cannot be written.
    """
    _check_figures(formats, figure_width)
    output, provenance = epath.Path(output), plain(dict(provenance or {}))
    rows = [{k: v for k, v in row.items() if k != "examples"} for row in rows]
    ensembles, others = chapters.split(rows)
    rows = checked(ensembles) if ensembles or not others else []
    groups = {suite: plain_but_arrays(group) for suite, group in others.items()}
    named = {suite: chapters.named(suite, group) for suite, group in groups.items()}
    differences = checked_differences(differences)
    shown = averaged(rows) if rows else []
    labels = [row["label"] for group in named.values() for row in group]
    looks = Looks([*series(shown), *labels])
    drawn = figure_files.pictures(shown, published=beside, looks=looks) if shown else {}
    drawn_of = {
        suite: dict(chapters.CHAPTERS[suite].pictures(group, looks))
        for suite, group in named.items()
    }
    of_chapters = [row for group in groups.values() for row in group]
    view = page.page(
        shown,
        differences=differences,
        provenance=provenance,
        title=title if title is not None else page.default_title(rows or of_chapters),
        pictures=list(drawn.values()),
        chapters={
            suite: (group, list(drawn_of[suite].values()))
            for suite, group in named.items()
        },
        described=shown or of_chapters,
        generated=datetime.now(UTC),
    )
    written = {**(files or {}), **_data_files(rows, groups, differences, provenance)}
    for part in (drawn, *drawn_of.values()):
        for name, picture in part.items():
            written |= picture.files(name, formats=formats, width=figure_width)
    written["report.html"] = page.html(view).encode()
    replace(output, written, known=_known_files())
    return output / "report.html"


def _data_files(
    rows: Sequence[Row],
    groups: Mapping[str, Sequence[Row]],
    differences: Sequence[Row],
    provenance: Mapping[str, Any],
) -> dict[str, bytes]:
    """The JSON, CSV and NPZ files: name -> content.

    Args:
      rows: Rows of ensembles, plain.
      groups: Suite -> rows of its chapter, plain but for their arrays.
      differences: Paired differences, checked.
      provenance: A nested dict of JSON's types.
    """
    stored = {
        suite: [without_arrays(r) for r in group] for suite, group in groups.items()
    }
    record = {
        "provenance": provenance,
        "rows": [*rows, *itertools.chain.from_iterable(stored.values())],
        **({"differences": differences} if differences else {}),
    }
    found = {"metrics.json": json.dumps(record, indent=1, allow_nan=False).encode()}
    if rows:
        found["metrics.csv"] = csv_text(rows).encode()
    for suite, group in groups.items():
        found[f"{suite}.csv"] = csv_text(stored[suite]).encode()
        if any(row.get("arrays") for row in group):
            found[f"{suite}.npz"] = npz_bytes(group)
    return found


def _known_files() -> list[str]:
    """The files that some report has and another has not."""
    known, figures = ["metrics.csv"], [*figure_files.FILES]
    for suite, chapter in chapters.CHAPTERS.items():
        known += [f"{suite}.csv", f"{suite}.npz"]
        figures += chapter.files
    stems = [name.removesuffix(".png") for name in figures]
    return known + [f"{stem}.{each}" for stem in stems for each in FORMATS]


def _check_figures(formats: Sequence[str], width: float | None) -> None:
    """Raises ValueError for file formats or a width that figures cannot have."""
    if not formats:
        raise ValueError(f"no format of figures; choices: {', '.join(FORMATS)}")
    for each in formats:
        if each not in FORMATS:
            raise ValueError(unknown("format of figures", each, FORMATS))
    if width is not None and not 1 <= width <= 100:
        raise ValueError(f"figure_width must be 1 to 100 inches, got {width:g}")


def check(
    output: epath.PathLike,
    *,
    formats: Sequence[str] = ("png",),
    figure_width: float | None = None,
) -> None:
    """Makes the directory of a report, and checks what `write` is going to be given.

    Args:
      output: The directory.
      formats: File formats of the figures; see `write`.
      figure_width: Width of the figures in inches; see `write`.

    Raises:
      ValueError: A format or the width is unusable.
      OSError: `output` cannot be written.
    """
    _check_figures(formats, figure_width)
    check_writable(epath.Path(output))


def read(
    path: epath.PathLike, *, with_arrays: bool = True
) -> tuple[list[Row], dict[str, Any]]:
    """The rows, with their arrays, and the provenance of a metrics.json.

    Args:
      path: the file.
      with_arrays: Whether to read the NPZ files beside it, too.

    Returns:
      (rows, provenance).

    Raises:
      OSError: there is no such file.
      ValueError: the file, or one with arrays, is not one that `write` made.
    """
    try:
        record = json.loads(epath.Path(path).read_text())
        rows, provenance = list(record["rows"]), dict(record["provenance"])
        _, others = chapters.split(rows)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' is not the metrics.json of a report; write it anew"
        ) from error
    for suite, group in others.items() if with_arrays else ():
        attach_arrays(group, epath.Path(path).with_name(f"{suite}.npz"))
    return rows, provenance


def print_rows(rows: Sequence[Row]) -> None:
    """Prints the tables of the ensembles, of detection and of each chapter.

    Args:
      rows: Report rows.
    """
    ensembles, others = chapters.split(rows)
    if ensembles:
        print_table(ensembles)
        if lines := detection_lines(ensembles):
            print_lines(
                lines, title=f"Out-of-distribution detection{_against(ensembles)}"
            )
    for suite, group in others.items():
        named = chapters.named(suite, group)
        print_lines(chapters.CHAPTERS[suite].lines(named), title=suite)


def _against(rows: Sequence[Row]) -> str:
    """What the test images are told from, in the title of a table of AUROCs."""
    found = [row["detection"] for row in rows if row.get("detection")]
    names = dict.fromkeys(str(one["dataset"]) for one in found if one.get("dataset"))
    return f", AUROC in %, against {' and '.join(names)}" if names else ", AUROC in %"
