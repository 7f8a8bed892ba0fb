"""Training: the step, the loop around it, and what it reads and writes."""

from spatial_smoothing.training.loop import NonFiniteLossError, check_batch_size, fit
from spatial_smoothing.training.options import (
    Hyperparameters,
    Log,
    Monitoring,
    Placement,
    Record,
    Saving,
)

__all__ = [
    "Hyperparameters",
    "Log",
    "Monitoring",
    "NonFiniteLossError",
    "Placement",
    "Record",
    "Saving",
    "check_batch_size",
    "fit",
]
