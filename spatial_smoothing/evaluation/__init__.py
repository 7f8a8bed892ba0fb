"""Evaluation: passes over data, and the suites that `evaluate.py` runs."""

from spatial_smoothing.evaluation.passes import (
    Predict,
    Row,
    compile_tally,
    evaluate,
    monitor,
    rows,
    summaries,
)

__all__ = [
    "Predict",
    "Row",
    "compile_tally",
    "evaluate",
    "monitor",
    "rows",
    "summaries",
]
