"""Spatial smoothing for JAX: feature-map blurs that behave like ensembles.

The pure functions are in `ops`, the Flax layer is `SpatialSmoothing`, the networks of
the paper are in `models`. `ensembles` predicts, `metrics` scores, `evaluate` does both
for any model, `report` shows the rows. Reference: Park & Kim, ICML 2022.
"""

import importlib as _importlib
import importlib.metadata as _metadata
from typing import Any as _Any

from spatial_smoothing import _moved, convert, ensembles, metrics, models, ops
from spatial_smoothing.ensembles import deep_ensemble, mc_dropout, prefix_means
from spatial_smoothing.layers import SpatialSmoothing
from spatial_smoothing.ops import blur, box_blur, scaled_tanh, smooth

# What is imported when it is first used, because it takes longer: name -> its module.
_LATER = {
    "add_mc_dropout": "insertion",
    "add_smoothing": "insertion",
    "evaluate": "evaluation.own_models",
    "export": "serving",
    "load_exported": "serving",
    "load_predictor": "serving",
    "report": "report",
}

__all__ = [
    "SpatialSmoothing",
    "add_mc_dropout",
    "add_smoothing",
    "blur",
    "box_blur",
    "convert",
    "deep_ensemble",
    "ensembles",
    "evaluate",
    "export",
    "load_exported",
    "load_predictor",
    "mc_dropout",
    "metrics",
    "models",
    "ops",
    "prefix_means",
    "report",
    "scaled_tanh",
    "smooth",
]

_moved.keep_old_names()

__version__ = _metadata.version("spatial-smoothing")


def __getattr__(name: str) -> _Any:
    """Imports what the table says; see PEP 562."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _importlib.import_module(f"{__name__}.{_LATER[name]}")
    value = module if name == _LATER[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists what is imported later, too."""
    return sorted({*globals(), *_LATER})
