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
    perturbation,
    variance,
)
from spatial_smoothing.report.chapters.chapter import Chapter
from spatial_smoothing.report.rows import Row

CHAPTERS: dict[str, Chapter] = {
    "corruption": corruption.CHAPTER,
    "perturbation": perturbation.CHAPTER,
    "variance": variance.CHAPTER,
    "fourier": fourier.CHAPTER,
    "frequency": frequency.CHAPTER,
    "landscape": landscape.CHAPTER,
    "hessian": hessian.CHAPTER,
}


def split(rows: Sequence[Row]) -> tuple[list[Row], dict[str, list[Row]]]:
    """Parts the rows of ensembles from those of each chapter, in the order of these.

    Raises:
      ValueError: a row of a chapter has no label.
    """
    chapters = {
        suite: [row for row in rows if row.get("suite") == suite] for suite in CHAPTERS
    }
    for suite, group in chapters.items():
        for row in group:
            if not isinstance(row.get("label"), str) or not row["label"].strip():
                raise ValueError(
                    f"a row of suite {suite!r} has label {row.get('label')!r}; "
                    "give it the model's name"
                )
    ensembles = [row for row in rows if row.get("suite") not in CHAPTERS]
    return ensembles, {suite: group for suite, group in chapters.items() if group}
