"""The index of evaluations: name -> `Suite`."""

from spatial_smoothing.evaluation.suites.comparison import (
    check_comparison,
    default_output,
    distinct_labels,
    earlier,
    load_examples,
    pack_examples,
    read,
)
from spatial_smoothing.evaluation.suites.corruption import corruption
from spatial_smoothing.evaluation.suites.differences import differences
from spatial_smoothing.evaluation.suites.ensemble import ensemble
from spatial_smoothing.evaluation.suites.feature_maps import fourier, variance
from spatial_smoothing.evaluation.suites.frequency import frequency
from spatial_smoothing.evaluation.suites.hessian import hessian
from spatial_smoothing.evaluation.suites.landscape import landscape
from spatial_smoothing.evaluation.suites.partial import finish
from spatial_smoothing.evaluation.suites.perturbation import perturbation
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    Suite,
    check_list,
    held_out,
    label,
)

__all__ = [
    "SUITES",
    "Setting",
    "Suite",
    "check_comparison",
    "check_list",
    "corruption",
    "default_output",
    "differences",
    "distinct_labels",
    "earlier",
    "ensemble",
    "finish",
    "fourier",
    "frequency",
    "held_out",
    "hessian",
    "label",
    "landscape",
    "load_examples",
    "pack_examples",
    "perturbation",
    "read",
    "variance",
]

_IMAGES = "Images, drawn at random; 0 for all."
_TRAINING_IMAGES = "Training images, drawn at random; 0 for all."
_BLOCKS = "Whether to look at every block in place of stages."

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
    "landscape": Suite(
        landscape,
        {
            "num_images": _TRAINING_IMAGES,
            "grid_size": "Points along each of the two directions, odd.",
            "extent": "The grid is [-extent, extent] in units of the weights' norm.",
            "normalization": "Of the directions, filter or reference.",
            "recalibration": "Images to estimate the statistics of batch normalisation "
            "from at each point; 0 for the trained statistics.",
        },
    ),
    "hessian": Suite(
        hessian,
        {
            "num_batches": "Mini-batches whose largest eigenvalues are found.",
            "num_eigenvalues": "Of each mini-batch.",
            "method": "lanczos or power.",
            "density_batches": "Mini-batches of the full density; 0 for none.",
            "num_probes": "Random vectors of the full density.",
            "num_steps": "Lanczos steps for each random vector.",
        },
    ),
    "variance": Suite(
        variance,
        {
            "num_images": _IMAGES,
            "num_frames": "Length of the sequences.",
            "blocks": _BLOCKS,
            "image": "Number of the image whose maps are drawn.",
        },
    ),
    "fourier": Suite(
        fourier,
        {
            "num_images": _IMAGES,
            "blocks": _BLOCKS,
            "clip": "Whether amplitudes below one count as one.",
        },
    ),
    "frequency": Suite(
        frequency,
        {
            "num_images": _IMAGES,
            "frequencies": "Of the noise, in units of pi.",
            "epsilon": "Amplitude of the noise before it is limited to a frequency.",
            "half_width": "Of the ring of frequencies, in radians.",
        },
    ),
}
