"""Spatial smoothing for JAX: feature-map blurs that behave like ensembles.

The pure functions are in `ops`, the Flax layer is `SpatialSmoothing`, the networks of
the paper are in `models`, predictions of ensembles and their scores in `ensembles` and
`metrics`. Reference: Park & Kim, ICML 2022.
"""

from spatial_smoothing import _moved, convert, metrics, models, ops
from spatial_smoothing.ensembles import deep_ensemble, mc_dropout, prefix_means
from spatial_smoothing.layers import SpatialSmoothing
from spatial_smoothing.ops import blur, box_blur, scaled_tanh, smooth

__all__ = [
    "SpatialSmoothing",
    "blur",
    "box_blur",
    "convert",
    "deep_ensemble",
    "mc_dropout",
    "metrics",
    "models",
    "ops",
    "prefix_means",
    "scaled_tanh",
    "smooth",
]

_moved.keep_old_names()
