import functools

import jax
import jpeg_images
import numpy as np
import pytest

from spatial_smoothing import models, training
from spatial_smoothing.data import augment, batches, sources
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import input_pipeline, optim, steps
from spatial_smoothing.training.checkpoints import Checkpoints

SEED, BATCH, TOTAL = 2, 8, 6


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    root = jpeg_images.write_folder(tmp_path_factory.mktemp("pets"), count=10)
    return sources.load(f"folder:{root}", "train", image_size=32)


@pytest.fixture(scope="module")
def memory():
    return Dataset(
        np.arange(20, dtype=np.uint8)[:, None, None, None],
        np.arange(20, dtype=np.int32),
    )


def create(dataset, *, members=1, devices=1):
    return input_pipeline.create(
        dataset,
        order_keys=steps.Streams.of(SEED, members=members).order,
        seed=SEED,
        total_steps=TOTAL,
        batch_size=BATCH,
        mesh=sharding.mesh(devices, members=members),
    )


def test_memory_is_taken_in_the_order_of_the_epoch(memory):
    pipeline = create(memory)
    key = steps.Streams.of(SEED).order
    for step in (0, 1, 2, 5, 3):
        found = pipeline.batch(
            pipeline.member_inputs(step), pipeline.shared_arrays, step % 3
        )
        order = batches.epoch_order(key, step // 3, 20)
        expected = order[step % 3 * BATCH :][:BATCH]
        np.testing.assert_array_equal(found["label"][found["mask"]], expected)
        np.testing.assert_array_equal(found["image"][:, 0, 0, 0], found["label"])


def test_members_have_orders_of_their_own(memory):
    several, second = create(memory, members=2), steps.Streams.of(SEED + 1).order
    orders = several.member_inputs(4)
    assert orders.shape == several.inputs_struct.shape == (2, 20)
    np.testing.assert_array_equal(orders[1], batches.epoch_order(second, 1, 20))


@pytest.mark.parametrize("devices", [1, 4])
def test_encoded_batches_come_in_any_order_of_steps(devices, encoded):
    pipeline = create(encoded, devices=devices)
    for step in (0, 1, 2, 4, 5, 3, 0):
        found = pipeline.batch(pipeline.member_inputs(step), pipeline.shared_arrays, 0)
        (expected,) = encoded.training_batches(
            BATCH, seed=SEED, start=step, stop=step + 1
        )
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].sharding == pipeline.inputs_struct[name].sharding
            assert found[name].dtype == pipeline.inputs_struct[name].dtype
            assert found[name].shape == pipeline.inputs_struct[name].shape
    pipeline.close()


def test_encoded_members_are_refused(encoded):
    with pytest.raises(ValueError, match="members are trained at once on data sets in"):
        create(encoded, members=2)


def fit(encoded, *, devices=1, checkpoints=None, **options):
    schedule = optim.warmup_multistep(0.05, steps_per_epoch=3, milestones=(1,))
    normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
    return training.fit(
        models.build("resnet_mcdo_18", num_classes=2, width=4, stages=(1,)),
        encoded,
        training.Hyperparameters(
            prepare=augment.preparation(normalize, augment=False),
            schedule=schedule,
            optimizer=optim.sgd(schedule),
            epochs=2,
            batch_size=BATCH,
            seed=SEED,
        ),
        placement=training.Placement(mesh=sharding.mesh(devices)),
        saving=training.Saving(checkpoints),
        **options,
    )


def test_training_continues_bit_by_bit_and_on_other_devices(encoded, tmp_path):
    straight = fit(encoded)
    assert int(straight.step) == TOTAL
    assert float(straight.sums.count) == 20
    with Checkpoints(tmp_path / "c") as checkpoints:
        for stop in (1, 1, 9):
            looks = iter([False] * stop + [True])
            state = fit(
                encoded,
                checkpoints=checkpoints,
                should_stop=lambda looks=looks: next(looks),
            )
    jax.tree.map(np.testing.assert_array_equal, state, straight)
    parallel = fit(encoded, devices=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        parallel.variables,
        straight.variables,
    )


def test_fewer_images_than_a_batch(encoded):
    with pytest.raises(ValueError, match="batch_size 8 is more than the 5 examples"):
        fit(encoded.subset(np.arange(5)))
