"""Smoothing and MC dropout in models that exist already."""
