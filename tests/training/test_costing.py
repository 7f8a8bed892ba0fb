"""What is costed is what training and evaluation compile."""

import functools

import jax
import numpy as np
import pytest
from random_runs import write_run

from spatial_smoothing import models
from spatial_smoothing.data import augment, datasets
from spatial_smoothing.data.datasets import Dataset, DatasetShape
from spatial_smoothing.evaluation import suites
from spatial_smoothing.evaluation.suites import lineup
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import costing, input_pipeline, optim, steps
from spatial_smoothing.training.options import Hyperparameters, Placement

NUM_EXAMPLES, BATCH_SIZE = 50, 8


def hyperparameters(members):
    normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.2,) * 3)
    schedule = optim.warmup_multistep(
        0.1, steps_per_epoch=7, warmup_epochs=1, milestones=(2,), factor=0.2
    )
    return Hyperparameters(
        prepare=augment.preparation(normalize, augment=True),
        schedule=schedule,
        optimizer=optim.sgd(schedule, momentum=0.9, weight_decay=1e-4),
        epochs=2,
        batch_size=BATCH_SIZE,
        seed=3,
        members=members,
    )


@pytest.mark.parametrize(
    ("name", "members", "sharded"),
    [("alexnet_mcdo", 2, False), ("resnet_mcdo_18", 1, True)],
)
def test_the_traced_step_is_the_one_of_training(name, members, sharded, monkeypatch):
    """Its program is, to the last character: arrays and their shapes make the same."""
    monkeypatch.setattr(sharding, "_SHARDED_SIZE", 16)
    model = models.build(name, num_classes=5, width=4, stages=(1,), head="gap")
    how, mesh = hyperparameters(members), sharding.mesh(4, members=members)
    rng = np.random.default_rng(0)
    dataset = Dataset(
        rng.integers(0, 256, (NUM_EXAMPLES, 32, 32, 3), np.uint8),
        rng.integers(0, 5, NUM_EXAMPLES, np.int32),
    )
    state = steps.place_state(
        lambda: steps.init_state(
            model, how.optimizer, (32, 32, 3), seed=how.seed, members=members
        ),
        mesh,
        sharded=sharded,
    )
    pipeline = input_pipeline.create(
        dataset,
        order_keys=steps.Streams.of(how.seed, members=members).order,
        seed=how.seed,
        total_steps=14,
        batch_size=BATCH_SIZE,
        mesh=mesh,
    )
    program = steps.step_program(
        model,
        how.optimizer,
        state,
        pipeline,
        prepare=how.prepare,
        seed=how.seed,
        mesh=mesh,
    )
    # What the host gives the program in training has the shapes that it was made for.
    inputs = pipeline.member_inputs(0)
    described = input_pipeline.abstract(
        DatasetShape(NUM_EXAMPLES, (32, 32, 3), in_memory=True),
        members=members,
        batch_size=BATCH_SIZE,
        mesh=mesh,
    )
    for given, expected in (
        (inputs, described.inputs_struct),
        (pipeline.shared_arrays, described.shared_arrays),
    ):
        jax.tree.map(
            lambda x, struct: (
                (
                    (x.shape, x.dtype, x.sharding)
                    == (struct.shape, struct.dtype, struct.sharding)
                )
                or pytest.fail(f"{struct} is not {x.shape}, {x.sharding}")
            ),
            given,
            expected,
        )
    traced = costing.trace_step(
        model,
        DatasetShape(NUM_EXAMPLES, (32, 32, 3), in_memory=True),
        how,
        Placement(mesh, sharded),
    )
    trained = program.jitted.trace(*program.arguments)
    assert traced.lower().as_text() == trained.lower().as_text()


def test_encoded_examples_enter_as_they_are_decoded():
    model = models.build("resnet_dnn_18", num_classes=5, width=4, stages=[1])
    mesh = sharding.mesh(4)
    dataset = DatasetShape(NUM_EXAMPLES, (32, 32, 3), in_memory=False)
    traced = costing.trace_step(model, dataset, hyperparameters(1), Placement(mesh))
    (_, _, _, batch, shared), _ = traced.in_avals
    assert shared == ()
    assert (batch["image"].shape, batch["image"].dtype) == ((8, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="data sets in memory only"):
        costing.trace_step(model, dataset, hyperparameters(2), Placement(mesh))


def test_shapes_of_data_sets_that_are_not_there():
    config = {"dataset": "imagenet", "data_dir": "/nowhere", "image_size": 160}
    shape = recipes.shapes(config)("imagenet", "train")
    assert shape == DatasetShape(1_281_167, (160, 160, 3), in_memory=False)
    train, held_out = datasets.hold_out(
        recipes.shapes({"dataset": "cifar10"})("cifar10", "train"), fraction=0.1
    )
    assert (train.num_examples, held_out.num_examples) == (45_000, 5_000)
    assert recipes.shapes({"dataset": "cifar10"})("cifar10", "test").in_memory


def test_shapes_are_those_of_the_data():
    for split in ("train", "test"):
        shape = recipes.shapes({"dataset": "shapes"})("shapes", split)
        dataset = recipes.loader({"dataset": "shapes"})("shapes", split)
        assert shape.num_examples == dataset.num_examples
        assert shape.image_shape == dataset.image_shape


def test_a_run_is_described_without_its_checkpoint(tmp_path):
    path = write_run(tmp_path / "run", model="resnet_mcdo_18")
    (loaded,) = workdirs.load_members(path)
    (described,) = workdirs.describe_members(path)
    assert described.config == loaded.config
    shape_of = lambda leaf: (leaf.shape, leaf.dtype)
    assert jax.tree.map(shape_of, described.variables) == jax.tree.map(
        shape_of, loaded.variables
    )


@pytest.mark.parametrize("count", [1, 2])
def test_the_traced_batch_is_the_one_of_the_suite(count, tmp_path, monkeypatch):
    path = write_run(tmp_path / "run", model="resnet_mcdo_18")
    runs = count * workdirs.load_members(path)
    setting = suites.Setting(
        recipes.shapes(runs[0].config)("shapes", "test"),
        num_samples=4,
        batch_size=8,
        chunk=2,
    )
    mesh = sharding.mesh(4)
    described = count * workdirs.describe_members(path)
    traced = suites.trace_batch(described, setting, mesh=mesh)
    batch = {
        "image": np.zeros((8, 32, 32, 3), np.uint8),
        "label": np.zeros(8, np.int32),
        "mask": np.ones(8, bool),
    }
    (batch,) = sharding.split_batches([batch], mesh)
    variables = sharding.replicate(lineup.stacked(runs), mesh)
    programs = []
    real = jax.jit

    def noted(function, **options):
        jitted = real(function, **options)
        if function.__name__ == "of_batch":
            programs.append(jitted)
        return jitted

    from spatial_smoothing.evaluation import scores

    monkeypatch.setattr(scores.jax, "jit", noted)
    sizes = lineup.sizes_for(runs, setting, lineup.SIZES)
    scores.compile_scores(lineup.predictor(runs, setting, sizes))
    monkeypatch.undo()
    key = sharding.replicate(jax.random.key(0), mesh)
    evaluated = programs[0].trace(variables, key, 0, batch, None, None, None)
    assert traced.lower().as_text() == evaluated.lower().as_text()
