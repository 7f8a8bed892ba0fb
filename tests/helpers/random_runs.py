"""Runs that end before they begin, and the script that predicts with them."""

import subprocess
import sys

import jax
import numpy as np
from checkout import ROOT

from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.training.checkpoints import Checkpoints


def write_run(path, *, model, dataset="shapes", **fields):
    """A run of random variables, with one checkpoint; returns its workdir."""
    config = {"model": model, "dataset": dataset, "width": 4, "stages": [1], **fields}
    path = workdirs.claim(path, config)
    shapes_of = jax.eval_shape(
        recipes.build_model(config).init, jax.random.key(0), np.zeros((1, 32, 32, 3))
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(0, 0.6, leaf.shape).astype(leaf.dtype), shapes_of
    )
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(7, {"variables": variables}, {"step": 7})
    return str(path)


def predict(*args):
    """Runs `predict.py` as a user does."""
    return subprocess.run(
        [sys.executable, ROOT / "predict.py", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
