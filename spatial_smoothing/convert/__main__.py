"""`python -m spatial_smoothing.convert`: see `spatial_smoothing/cli/convert.py`."""

from spatial_smoothing.cli.convert import run

if __name__ == "__main__":
    run()
