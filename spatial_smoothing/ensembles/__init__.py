"""Ensembles of predictions: Monte Carlo dropout, deep ensembles, streams of frames.

This is the one prediction path: evaluation, analysis and serving predict by these
functions, and so can everybody else.
"""

from spatial_smoothing.ensembles.apply import (
    ApplyFunction,
    Variables,
    as_apply,
    from_function,
    from_linen,
    from_nnx,
)
from spatial_smoothing.ensembles.members import (
    deep_ensemble,
    map_members,
    num_members,
    stack,
    unstack,
)
from spatial_smoothing.ensembles.mixtures import Mixture, mc_mixtures
from spatial_smoothing.ensembles.predictions import (
    Ensemble,
    Lineup,
    Predict,
    Predictions,
    map_mixtures,
    named,
    names_of,
    predictor,
)
from spatial_smoothing.ensembles.sampling import (
    CHUNK,
    CPU_CHUNK,
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
    "ApplyFunction",
    "Ensemble",
    "Lineup",
    "Mixture",
    "Predict",
    "Predictions",
    "Variables",
    "as_apply",
    "checked_chunk",
    "deep_ensemble",
    "from_function",
    "from_linen",
    "from_nnx",
    "map_members",
    "map_mixtures",
    "mc_dropout",
    "mc_logits",
    "mc_mixtures",
    "named",
    "names_of",
    "num_members",
    "predictor",
    "prefix_log_means",
    "prefix_means",
    "sample_keys",
    "sampler",
    "segments",
    "stack",
    "unstack",
]
