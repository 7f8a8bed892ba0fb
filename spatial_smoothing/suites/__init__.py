"""The index of evaluations: name -> `Suite`."""

from spatial_smoothing.suites.comparison import (
    differences,
    distinct_labels,
    earlier,
    load_examples,
    save_examples,
)
from spatial_smoothing.suites.ensemble import ensemble
from spatial_smoothing.suites.partial import finish
from spatial_smoothing.suites.settings import Setting, Suite, held_out, label
from spatial_smoothing.suites.temporal import temporal

__all__ = [
    "SUITES",
    "Setting",
    "Suite",
    "differences",
    "distinct_labels",
    "earlier",
    "ensemble",
    "finish",
    "held_out",
    "label",
    "load_examples",
    "save_examples",
    "temporal",
]

SUITES = {
    "ensemble": Suite(ensemble),
    "temporal": Suite(
        temporal,
        {
            "past": "Frames before the present one that smoothing takes in.",
            "decay": "A frame t frames ago weighs exp(-decay t).",
            "num_frames": "Length of the sequences.",
        },
    ),
}
