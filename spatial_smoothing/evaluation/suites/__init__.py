"""The index of evaluations: name -> `Suite`, its function and its options."""

from spatial_smoothing.evaluation.suites import ood_sets
from spatial_smoothing.evaluation.suites.comparison import (
    check_comparison,
    default_output,
    distinct_labels,
    earlier,
    load_examples,
    pack_examples,
    read,
)
from spatial_smoothing.evaluation.suites.corruption import check as check_corruption
from spatial_smoothing.evaluation.suites.corruption import corruption
from spatial_smoothing.evaluation.suites.costing import trace_batch
from spatial_smoothing.evaluation.suites.differences import differences
from spatial_smoothing.evaluation.suites.ensemble import check as check_ensemble
from spatial_smoothing.evaluation.suites.ensemble import ensemble
from spatial_smoothing.evaluation.suites.feature_maps import (
    check_fourier,
    check_variance,
    fourier,
    variance,
)
from spatial_smoothing.evaluation.suites.frequency import check as check_frequency
from spatial_smoothing.evaluation.suites.frequency import frequency
from spatial_smoothing.evaluation.suites.hessian import check as check_hessian
from spatial_smoothing.evaluation.suites.hessian import hessian
from spatial_smoothing.evaluation.suites.landscape import check as check_landscape
from spatial_smoothing.evaluation.suites.landscape import landscape
from spatial_smoothing.evaluation.suites.laplace import check as check_laplace
from spatial_smoothing.evaluation.suites.laplace import laplace
from spatial_smoothing.evaluation.suites.ood import check as check_ood
from spatial_smoothing.evaluation.suites.ood import ood
from spatial_smoothing.evaluation.suites.partial import finish
from spatial_smoothing.evaluation.suites.perturbation import (
    check as check_perturbation,
)
from spatial_smoothing.evaluation.suites.perturbation import perturbation
from spatial_smoothing.evaluation.suites.segmentation import segmentation
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    Suite,
    UnsuitableError,
    check_list,
    held_out,
    label,
)

__all__ = [
    "SUITES",
    "Setting",
    "Suite",
    "UnsuitableError",
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
    "laplace",
    "load_examples",
    "ood",
    "ood_sets",
    "pack_examples",
    "perturbation",
    "read",
    "segmentation",
    "trace_batch",
    "variance",
]

# The texts are the help of the flags of evaluate.py, which adds the default of each.
_SAMPLES = (
    "Numbers of dropout samples to score, separated by commas; --num_samples is always "
    "one of them."
)
_IMAGES = "Number of images that are analysed, drawn at random; 0 for all."
_TRAINING_IMAGES = "Number of training images, drawn at random; 0 for all."
_BLOCKS = "Whether to analyse the output of every block, in place of every stage."

SUITES = {
    "ensemble": Suite(
        ensemble,
        {
            "sizes": _SAMPLES,
            "mc_stages": "Parts of the network that have dropout in a second pass, "
            "such as 4, or 3,4,head; no second pass if it is not given.",
            "temporal": "Numbers of dropout samples of each frame for temporal "
            "smoothing, separated by commas; 0 for no temporal smoothing.",
            "past": "Number of frames before the present one that temporal smoothing "
            "averages over.",
            "decay": "Temporal smoothing weighs a frame t frames ago by exp(-decay t).",
            "num_frames": "Number of frames of the sequences that are made of the "
            "images, for temporal smoothing.",
        },
        check=check_ensemble,
    ),
    "corruption": Suite(
        corruption,
        {
            "corruptions": "Names of corruptions, separated by commas.",
            "severities": "Severities from 1 (weakest) to 5, separated by commas.",
            "corrupted_dir": "Folder of CIFAR-10-C or ImageNet-C, in their layout, or "
            "directory of TFDS with cifar10_corrupted; the images are made if it is "
            "not given.",
            "normalizer": "What mean corruption errors are divided by: none, alexnet, "
            "imagenet, or a workdir whose corruptions were evaluated.",
            "sizes": _SAMPLES,
            "num_images": "Number of images of each corruption and severity, drawn at "
            "random; 0 for all.",
        },
        check=check_corruption,
    ),
    "perturbation": Suite(
        perturbation,
        {
            "perturbations": "Names of perturbations, separated by commas.",
            "perturbed_dir": "Folder in the layout of CIFAR-10-P; the sequences are "
            "made if it is not given.",
            "sizes": _SAMPLES,
            "num_images": "Number of sequences of each perturbation, drawn at random; "
            "0 for all.",
        },
        check=check_perturbation,
    ),
    "ood": Suite(
        ood,
        {
            "confidences": "Names of the confidences by which images of other data "
            "sets are detected, separated by commas.",
            "sizes": _SAMPLES,
            "num_images": "Number of training images that confidences of features are "
            "fitted to, drawn at random; 0 for all.",
        },
        check=check_ood,
    ),
    "laplace": Suite(
        laplace,
        {
            "num_images": "Number of training images that the posterior of the last "
            "layer is fitted to, drawn at random; 0 for all.",
        },
        check=check_laplace,
    ),
    "landscape": Suite(
        landscape,
        {
            "num_images": _TRAINING_IMAGES,
            "grid_size": "Number of points along each of the two directions, odd.",
            "extent": "The grid covers [-extent, extent] along both directions, where "
            "1 is the norm of the weights.",
            "normalization": "How directions are normalised: filter, by output filter, "
            "or reference, as in the paper's code.",
            "recalibration": "Number of training images from which the statistics of "
            "batch normalisation are estimated at each point; 0 keeps the trained "
            "statistics.",
        },
        for_one_run=True,
        check=check_landscape,
    ),
    "hessian": Suite(
        hessian,
        {
            "num_batches": "Number of mini-batches whose largest eigenvalues are "
            "found.",
            "num_eigenvalues": "Number of eigenvalues of each mini-batch.",
            "method": "How eigenvalues are found: lanczos, or the paper's power.",
            "density_batches": "Number of mini-batches for the density of all "
            "eigenvalues; 0 for no density.",
            "num_probes": "Number of random vectors that the density is estimated "
            "from.",
            "num_steps": "Number of Lanczos steps for each random vector.",
        },
        for_one_run=True,
        check=check_hessian,
    ),
    "variance": Suite(
        variance,
        {
            "num_images": _IMAGES,
            "num_frames": "Number of frames of the sequences, at least 2.",
            "blocks": _BLOCKS,
            "image": "Number of the image whose maps are drawn, from 0, in the split.",
        },
        for_one_run=True,
        check=check_variance,
    ),
    "fourier": Suite(
        fourier,
        {
            "num_images": _IMAGES,
            "blocks": _BLOCKS,
            "clip": "Whether amplitudes below one count as one.",
        },
        for_one_run=True,
        check=check_fourier,
    ),
    "frequency": Suite(
        frequency,
        {
            "num_images": "Number of images that are scored, drawn at random; 0 for "
            "all.",
            "frequencies": "Frequencies of the noise in units of pi, in (0, 1], "
            "separated by commas.",
            "epsilon": "Amplitude of the noise before it is limited to a frequency, in "
            "units of normalised images.",
            "half_width": "Half of the width of the ring of frequencies, in radians "
            "per pixel.",
        },
        for_one_run=True,
        check=check_frequency,
    ),
    "segmentation": Suite(
        segmentation,
        {
            "sizes": _SAMPLES,
            "form": "How predictions are smoothed over time: stream, over all frames "
            "so far, with one pass a frame; or window, over --past frames before each "
            "labelled one, which takes fewer passes where few frames have labels.",
            "past": "Number of frames before the present one that temporal smoothing "
            "averages over.",
            "decay": "Temporal smoothing weighs a frame t frames ago by exp(-decay t).",
            "num_pictures": "Number of frames that are drawn with their predictions.",
            "speed": "Whether the number of frames in a second is measured.",
        },
        for_one_run=True,
        task="segmentation",
    ),
}
