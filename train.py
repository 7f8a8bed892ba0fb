"""`python train.py`: see `spatial_smoothing/cli/train.py`."""

from spatial_smoothing.cli import train

if __name__ == "__main__":
    train.run()
