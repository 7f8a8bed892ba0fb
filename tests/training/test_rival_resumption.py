"""Trainings of rivals: interrupted ones, and those on several devices."""

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


def fit(fields, step_options, *, folder, devices=1):
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
            placement=training.Placement(sharding.mesh(devices)),
            saving=training.Saving(checkpoints, every_minutes=1e-9),
        )


# These draw nothing for a batch, and estimate nothing beside batch normalisation, so
# that devices share their batches as those of a network that is no rival.
PLAIN = ("packed", "masksembles")


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request, tmp_path_factory):
    """The name of a network, the folder of its checkpoints, and its last state."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, fit(*NETWORKS[request.param], folder=folder)


@pytest.mark.parametrize(
    "trained",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in PLAIN else [])
        for name in NETWORKS
    ],
    indirect=True,
)
def test_two_devices_agree_with_one(trained, tmp_path):
    name, _, alone = trained
    together = fit(*NETWORKS[name], folder=tmp_path, devices=2)
    assert len(jax.tree.leaves(together.variables)[0].sharding.device_set) == 2
    # Sums are added in another order, and four steps enlarge the difference.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        together.variables,
        alone.variables,
    )


def test_interrupted_runs_end_bit_by_bit_the_same(trained):
    """The run continues in the middle of its first epoch."""
    name, folder, straight = trained
    first, *others = saved_steps(folder)
    assert (first, others[-1]) == (1, 4)
    for step in others:  # as if the process had ended after the first step
        shutil.rmtree(folder / str(step))
    continued = fit(*NETWORKS[name], folder=folder)
    assert int(continued.step) == 4
    # Parameters, statistics, their averages, and the optimiser.
    jax.tree.map(np.testing.assert_array_equal, continued, straight)
    paths = jax.tree_util.tree_leaves_with_path(straight.variables["batch_stats"])
    vectors = [path for path, _ in paths if path[-1].key == "u"]
    assert len(vectors) == (3 if name == "spectral" else 0)
