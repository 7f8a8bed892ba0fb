"""The index of evaluations: name -> `Suite`."""

from spatial_smoothing.suites.comparison import (
    differences,
    distinct_labels,
    earlier,
    load_examples,
    read,
    save_examples,
)
from spatial_smoothing.suites.corruption import corruption
from spatial_smoothing.suites.ensemble import ensemble
from spatial_smoothing.suites.partial import finish
from spatial_smoothing.suites.perturbation import perturbation
from spatial_smoothing.suites.settings import Setting, Suite, held_out, label

__all__ = [
    "SUITES",
    "Setting",
    "Suite",
    "corruption",
    "differences",
    "distinct_labels",
    "earlier",
    "ensemble",
    "finish",
    "held_out",
    "label",
    "load_examples",
    "perturbation",
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
    "corruption": Suite(
        corruption,
        {
            "corruptions": "Names of corruptions.",
            "severities": "From 1 to 5.",
            "corrupted_dir": "Folder of CIFAR-10-C or ImageNet-C, in their layout, or "
            "directory of TFDS with cifar10_corrupted; None makes the images.",
            "normalizer": "By what mean corruption errors are divided: none, alexnet, "
            "imagenet, or an evaluated workdir.",
            "sizes": "Samples N of dropout to score.",
            "num_images": "Of each set, chosen at random; 0 for all.",
        },
    ),
    "perturbation": Suite(
        perturbation,
        {
            "perturbations": "Names of perturbations.",
            "perturbed_dir": "Folder in the layout of CIFAR-10-P; None makes the "
            "sequences.",
            "sizes": "Samples N of dropout to score.",
            "num_images": "Sequences of each, chosen at random; 0 for all.",
        },
    ),
}
