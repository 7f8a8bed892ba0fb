"""Data sets with a class for every pixel, and their videos."""
