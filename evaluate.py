"""`python evaluate.py`: see `spatial_smoothing/cli/evaluate.py`."""

from spatial_smoothing.cli import evaluate

if __name__ == "__main__":
    evaluate.run()
