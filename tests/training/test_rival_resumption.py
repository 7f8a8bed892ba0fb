"""Interrupted trainings of rivals end bit by bit as those that were not interrupted."""

import functools
import shutil

import jax
import numpy as np
import pytest

from spatial_smoothing import models, training
from spatial_smoothing.data import augment
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import optim
from spatial_smoothing.training.checkpoints import Checkpoints, saved_steps
from spatial_smoothing.training.objectives import StepOptions

# Each network as its fields and what a step has beyond the plain one. Masksembles needs
# 10 channels.
NETWORKS = {
    "batch": ({"ensemble": "batch"}, StepOptions()),
    "packed": ({"ensemble": "packed"}, StepOptions()),
    "masksembles": ({"ensemble": "masksembles", "width": 12}, StepOptions()),
    "mimo": ({"ensemble": "mimo", "repetition": 0.3}, StepOptions()),
    "spectral": ({"spectral_bound": 0.5}, StepOptions(ema=0.5, mixup=0.3)),
}


def fit(fields, step_options, *, folder):
    """Trains two epochs of two steps, with a checkpoint after the first step, too."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (15, 8, 8, 3)).astype(np.uint8)
    schedule = optim.warmup_cosine(0.05, steps_per_epoch=2, epochs=1)
    normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
    row = {"num_classes": 3, "width": 4, "stages": (1,), "ensemble_size": 2}
    with Checkpoints(folder, max_to_keep=9) as checkpoints:
        return training.fit(
            models.build("resnet_dnn_18", **{**row, **fields}),
            Dataset(images, np.arange(15, dtype=np.int32) % 3),
            training.Hyperparameters(
                prepare=augment.preparation(normalize, augment=True),
                schedule=schedule,
                optimizer=optim.sgd(schedule),
                epochs=2,
                batch_size=8,
                seed=1,
                step_options=step_options,
            ),
            placement=training.Placement(sharding.mesh(1)),
            saving=training.Saving(checkpoints, every_minutes=1e-9),
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_interrupted_runs_end_bit_by_bit_the_same(name, tmp_path):
    """The run continues in the middle of its first epoch."""
    straight = fit(*NETWORKS[name], folder=tmp_path)
    first, *others = saved_steps(tmp_path)
    assert (first, others[-1]) == (1, 4)
    for step in others:  # as if the process had ended after the first step
        shutil.rmtree(tmp_path / str(step))
    continued = fit(*NETWORKS[name], folder=tmp_path)
    assert int(continued.step) == 4
    # Parameters, statistics, their averages, and the optimiser.
    jax.tree.map(np.testing.assert_array_equal, continued, straight)
    paths = jax.tree_util.tree_leaves_with_path(straight.variables["batch_stats"])
    vectors = [path for path, _ in paths if path[-1].key == "u"]
    assert len(vectors) == (3 if name == "spectral" else 0)
