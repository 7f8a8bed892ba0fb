"""`python corrupt.py`: see `spatial_smoothing/cli/corrupt.py`."""

from spatial_smoothing.cli import corrupt

if __name__ == "__main__":
    corrupt.run()
