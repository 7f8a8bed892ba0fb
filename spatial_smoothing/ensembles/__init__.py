"""Ensembles of predictions: Monte Carlo dropout, deep ensembles, streams.

Everything that predicts, in this package and in other people's code, predicts by these
functions.
"""

from spatial_smoothing.ensembles.members import (
    deep_ensemble,
    map_members,
    stack,
    unstack,
)
from spatial_smoothing.ensembles.sampling import (
    CHUNK,
    CPU_CHUNK,
    Variables,
    checked_chunk,
    mc_dropout,
    mc_logits,
    sample_keys,
    sampler,
)
from spatial_smoothing.ensembles.sizes import prefix_log_means, prefix_means, segments

__all__ = [
    "CHUNK",
    "CPU_CHUNK",
    "Variables",
    "checked_chunk",
    "deep_ensemble",
    "map_members",
    "mc_dropout",
    "mc_logits",
    "prefix_log_means",
    "prefix_means",
    "sample_keys",
    "sampler",
    "segments",
    "stack",
    "unstack",
]
