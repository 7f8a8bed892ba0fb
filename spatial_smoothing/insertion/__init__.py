"""Smoothing and Monte Carlo dropout put into existing models."""
