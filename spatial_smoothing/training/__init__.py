"""Training: the step, the loop around it, and what it reads and writes."""

from spatial_smoothing.training.loop import (
    Log,
    NonFiniteLossError,
    Record,
    check_batch_size,
    fit,
)

__all__ = ["Log", "NonFiniteLossError", "Record", "check_batch_size", "fit"]
