"""Rivals of spatial smoothing: ensembles whose members share one pass."""

from spatial_smoothing.models.rivals.methods import ENSEMBLES, LABELS, of
from spatial_smoothing.models.rivals.rival import Arranged, Rival

__all__ = ["ENSEMBLES", "LABELS", "Arranged", "Rival", "of"]
