"""The table of rivals, and the one that the fields of a network describe."""

import math
from collections.abc import Callable
from typing import Protocol

from spatial_smoothing.lookup import lookup
from spatial_smoothing.models.rivals.batch_ensemble import BatchEnsemble
from spatial_smoothing.models.rivals.masksembles import Masksembles
from spatial_smoothing.models.rivals.mimo import Mimo
from spatial_smoothing.models.rivals.packed import MIXING_SQUASH, Packed
from spatial_smoothing.models.rivals.rival import Rival


class Fields(Protocol):
    """The fields of a network that describe a rival; see `Network`."""

    ensemble: str | None
    ensemble_size: int
    alpha: float
    gamma: int
    scale: float
    repetition: float
    batch_repetitions: int
    squash: str


ENSEMBLES: dict[str, Callable[[Fields], Rival]] = {
    "batch": lambda fields: BatchEnsemble(fields.ensemble_size),
    "packed": lambda fields: Packed(
        fields.ensemble_size, alpha=fields.alpha, gamma=fields.gamma
    ),
    "masksembles": lambda fields: Masksembles(fields.ensemble_size, scale=fields.scale),
    "mimo": lambda fields: Mimo(
        fields.ensemble_size,
        repetition=fields.repetition,
        batch_repetitions=fields.batch_repetitions,
    ),
}
# What a row of a report calls them.
LABELS = {
    "batch": "BatchEnsemble",
    "packed": "Packed-Ensemble",
    "masksembles": "Masksembles",
    "mimo": "MIMO",
}


def of(fields: Fields) -> Rival | None:
    """Returns the rival that the fields of a network describe; None for none.

    Args:
      fields: A network.

    Raises:
      ValueError: for fields that describe no rival.
    """
    if fields.ensemble is None:
        return None
    make = lookup(ENSEMBLES, fields.ensemble, "ensemble")
    for name, least in (("ensemble_size", 2), ("gamma", 1), ("batch_repetitions", 1)):
        if getattr(fields, name) < least:
            raise ValueError(
                f"{name} must be at least {least}, got {getattr(fields, name)}"
            )
    if not 0 < fields.alpha < math.inf:
        raise ValueError(f"alpha must be above 0 and finite, got {fields.alpha}")
    if not 0 <= fields.repetition <= 1:
        raise ValueError(f"repetition must be in [0, 1], got {fields.repetition}")
    if fields.ensemble == "packed" and fields.squash == MIXING_SQUASH:
        raise ValueError(
            f"squash {MIXING_SQUASH!r} shares values out over the channels, which are "
            "members of a Packed-Ensemble; take another squash"
        )
    return make(fields)
