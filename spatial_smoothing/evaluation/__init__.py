"""Evaluation: passes over data, and the suites that `evaluate.py` runs."""

from spatial_smoothing.evaluation.held_out import compile_temperatures
from spatial_smoothing.evaluation.monitor import monitor
from spatial_smoothing.evaluation.rows import Row, scored_row, tally_row
from spatial_smoothing.evaluation.scores import Scored, Scores, compile_scores
from spatial_smoothing.evaluation.tallies import compile_tallies

__all__ = [
    "Row",
    "Scored",
    "Scores",
    "compile_scores",
    "compile_tallies",
    "compile_temperatures",
    "monitor",
    "scored_row",
    "tally_row",
]
