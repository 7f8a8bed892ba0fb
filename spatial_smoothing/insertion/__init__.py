"""Smoothing and Monte Carlo dropout put into existing models."""

from spatial_smoothing.insertion.linen import add_mc_dropout, add_smoothing

__all__ = ["add_mc_dropout", "add_smoothing"]
