"""The index of evaluations: name -> `Suite`."""

from spatial_smoothing.suites.comparison import (
    differences,
    distinct_labels,
    earlier,
    load_examples,
    read,
    save_examples,
)
from spatial_smoothing.suites.ensemble import ensemble
from spatial_smoothing.suites.partial import finish
from spatial_smoothing.suites.settings import Setting, Suite, held_out, label

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
    "read",
    "save_examples",
]

SUITES = {
    "ensemble": Suite(
        ensemble,
        {
            "sizes": "Samples N of dropout to score; num_samples is one of them.",
            "mc_stages": "Where to have dropout in a second pass: 4, or 3,4,head.",
            "temporal": "Samples of a frame to smooth over time with; 0: none.",
            "past": "Frames before the present one that this takes in.",
            "decay": "A frame t frames ago weighs exp(-decay t).",
            "num_frames": "Length of the sequences, that images are made into.",
        },
    ),
}
