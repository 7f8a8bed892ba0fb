"""Corrupted and perturbed images: made here, read from official sets, written."""
