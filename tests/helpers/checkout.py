"""Where the checkout lies whose tests these are."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
