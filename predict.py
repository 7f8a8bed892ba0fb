"""`python predict.py`: see `spatial_smoothing/cli/predict.py`."""

from spatial_smoothing.cli import predict

if __name__ == "__main__":
    predict.run()
