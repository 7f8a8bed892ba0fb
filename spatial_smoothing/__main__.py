"""`python -m spatial_smoothing COMMAND`: see `spatial_smoothing/cli/commands.py`."""

from spatial_smoothing.cli import commands

if __name__ == "__main__":
    commands.run()
