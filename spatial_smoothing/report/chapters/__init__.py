"""The chapters of a report: suite -> how its rows are shown.

Rows without a "suite", or with one that is not listed here, are those of ensembles,
which `tables`, `pictures` and `summary` show.
"""

from collections.abc import Sequence

from spatial_smoothing.report.chapters import (
    corruption,
    fourier,
    frequency,
    hessian,
    landscape,
    ood,
    perturbation,
    segmentation,
    variance,
)
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.rows import Row, series_names

CHAPTERS: dict[str, Chapter] = {
    "segmentation": segmentation.CHAPTER,
    "corruption": corruption.CHAPTER,
    "perturbation": perturbation.CHAPTER,
    "ood": ood.CHAPTER,
    "variance": variance.CHAPTER,
    "fourier": fourier.CHAPTER,
    "frequency": frequency.CHAPTER,
    "landscape": landscape.CHAPTER,
    "hessian": hessian.CHAPTER,
}


# These show rows by label and run. The others tell the images of rows apart themselves.
_BY_RUN = ("variance", "fourier", "frequency", "landscape", "hessian")


def named(suite: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of a chapter as they are shown: the label names the images.

    Args:
      suite: Name of the chapter.
      rows: Its rows.

    Returns:
      Rows whose labels name data set and split, where the rows are of several.
    """
    if suite not in _BY_RUN:
        return list(rows)
    names = series_names(rows)
    return [{**row, "label": name} for name, row in zip(names, rows, strict=True)]


def split(rows: Sequence[Row]) -> tuple[list[Row], dict[str, list[Row]]]:
    """Parts the rows of ensembles from the rows of each chapter.

    Args:
      rows: Rows.

    Returns:
      (rows of ensembles, suite -> rows of its chapter in the order of `CHAPTERS`).

    Raises:
      ValueError: A row of a chapter lacks what its chapter needs.
    """
    chapters: dict[str, list[Row]] = {}
    for suite, chapter in CHAPTERS.items():
        group = [row for row in rows if row.get("suite") == suite]
        for row in group:
            _check(row, suite, chapter)
        if group:
            chapters[suite] = group
    return [row for row in rows if row.get("suite") not in CHAPTERS], chapters


def _check(row: Row, suite: str, chapter: Chapter) -> None:
    if not isinstance(row.get("label"), str) or not row["label"].strip():
        raise ValueError(
            f"a row of suite {suite!r} has label {row.get('label')!r}; "
            "give it the model's name"
        )
    for required in chapter.required:
        if not any(key in row for key in required.split(" or ")):
            raise ValueError(
                f"a row of suite {suite!r} ({row['label']!r}) has no {required}; every "
                f"row of this suite needs {', '.join(chapter.required)}"
            )
