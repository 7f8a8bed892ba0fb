"""Figures of rows, and the PNG files that a report has of them."""
