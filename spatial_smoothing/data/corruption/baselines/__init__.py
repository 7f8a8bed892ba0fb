"""Scores of AlexNet on corrupted images, the usual unit of mean corruption errors.

See README.md beside the files for what they were measured on and where they are from.
"""

import csv
import importlib.resources
from typing import NamedTuple

from spatial_smoothing.lookup import lookup

CLEAN = ("clean", 0)


class Baseline(NamedTuple):
    """Scores of a network on corrupted images.

    Attributes:
      name: What reports call the network.
      scores: (corruption, severity) -> the scores that are known of "nll" in nats,
        "accuracy" and "ece" as fractions; ("clean", 0) is without corruption.
    """

    name: str
    scores: dict[tuple[str, int], dict[str, float]]


_NAMES = {
    "cifar10": "AlexNet of the paper on CIFAR-10-C",
    "cifar100": "AlexNet of the paper on CIFAR-100-C",
    "imagenet": "AlexNet of the paper on ImageNet-C",
    "imagenet_official": "AlexNet of Hendrycks & Dietterich on ImageNet-C",
}


def alexnet(name: str) -> Baseline:
    """Returns the scores of AlexNet.

    Args:
      name: "cifar10", "cifar100" or "imagenet" for scores that the authors of the paper
        measured; "imagenet_official" for those of ImageNet-C's authors, of which the
        accuracy alone is known.

    Raises:
      ValueError: There are no such scores.
    """
    title = lookup(_NAMES, name, "baseline")
    file = importlib.resources.files(__name__).joinpath(f"{name}.csv")
    scores = {}
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        key = row.pop("corruption"), int(row.pop("severity"))
        scores[key] = {score: float(value) for score, value in row.items()}
    return Baseline(title, scores)
