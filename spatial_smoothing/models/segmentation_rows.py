"""The table of networks for segmentation, which is a group of names of its own.

A name is `FAMILY[_METHOD][_smoothing]`, with METHOD `dnn` (deterministic) or `mcdo`
(Monte Carlo dropout, at the reference's rate 0.5). The family alone is the
deterministic network without smoothing.
"""

from collections.abc import Mapping
from typing import Any

from spatial_smoothing.models.segmentation import SegmentationNetwork
from spatial_smoothing.models.segnet import SegNet
from spatial_smoothing.models.unet import UNet

FAMILIES: dict[str, type[SegmentationNetwork]] = {"unet": UNet, "segnet": SegNet}
STAGES = (2, 2, 3, 3, 3)
RATES = {"dnn": 0.0, "mcdo": 0.5}


def smoothing(depth: int, *, present: bool) -> tuple[int, ...]:
    """Returns one smoothing layer for each level of the encoder but the last.

    Args:
      depth: Number of levels.
      present: Whether there is any smoothing.
    """
    return (*[int(present)] * (depth - 1), 0)


def arguments(method: str, *, smooth: bool) -> Mapping[str, Any]:
    """Returns the fields of a row.

    Args:
      method: A key of `RATES`.
      smooth: Whether the row has smoothing.
    """
    return {
        "stages": STAGES,
        "rate": RATES[method],
        "smoothing": smoothing(len(STAGES), present=smooth),
    }
