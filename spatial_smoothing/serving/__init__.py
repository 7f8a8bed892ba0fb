"""Trained networks as functions of images, in this process or exported."""

from spatial_smoothing.serving.export import export, load_exported
from spatial_smoothing.serving.loading import describe, load_predictor
from spatial_smoothing.serving.predictor import Description, Prediction, Predictor

__all__ = [
    "Description",
    "Prediction",
    "Predictor",
    "describe",
    "export",
    "load_exported",
    "load_predictor",
]
