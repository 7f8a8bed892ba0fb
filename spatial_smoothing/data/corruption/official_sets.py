"""The readers of CIFAR-10-C, CIFAR-10-P and ImageNet-C under one name.

Code of version 0.1 imports all of them from `data.corrupted`, which leads here.
"""

from spatial_smoothing.data.corruption.read_cifar_c import (
    GENERATED,
    LABELS,
    array_file,
    available,
    provenance,
    read_cifar_c,
    read_cifar_p,
    read_labels,
)
from spatial_smoothing.data.corruption.read_imagenet_c import (
    imagenet_c_folder,
    read_imagenet_c,
)

__all__ = [
    "GENERATED",
    "LABELS",
    "array_file",
    "available",
    "imagenet_c_folder",
    "provenance",
    "read_cifar_c",
    "read_cifar_p",
    "read_imagenet_c",
    "read_labels",
]
