"""The index of evaluations: name -> function of runs and a `Setting` -> rows."""

from spatial_smoothing.suites.comparison import (
    differences,
    distinct_labels,
    load_examples,
    save_examples,
)
from spatial_smoothing.suites.ensemble import ensemble
from spatial_smoothing.suites.settings import Setting, held_out, label
from spatial_smoothing.suites.temporal import temporal

__all__ = [
    "SUITES",
    "Setting",
    "differences",
    "distinct_labels",
    "ensemble",
    "held_out",
    "label",
    "load_examples",
    "save_examples",
    "temporal",
]

SUITES = {"ensemble": ensemble, "temporal": temporal}
