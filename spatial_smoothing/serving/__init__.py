"""Trained networks as functions of images, in this process or exported."""

from spatial_smoothing.serving.predictor import Description, Prediction, Predictor
from spatial_smoothing.serving.runs import (
    describe,
    export,
    load_exported,
    load_predictor,
)

__all__ = [
    "Description",
    "Prediction",
    "Predictor",
    "describe",
    "export",
    "load_exported",
    "load_predictor",
]
