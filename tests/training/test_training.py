import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import models, training
from spatial_smoothing.data import augment
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import logs, loop, optim, steps
from spatial_smoothing.training.checkpoints import Checkpoints

BATCH = 8
EPOCHS = 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(21, dtype=np.int32) % 3
    images = rng.integers(0, 256, (21, 8, 8, 3)).astype(np.uint8)
    images[..., 0] = 80 * labels[:, None, None]  # something to learn
    return Dataset(images, labels)


def model(rate=0.3):
    return models.build(
        "resnet_mcdo_smoothing_18", num_classes=3, width=4, stages=(1,), rate=rate
    )


# Which group of options each one belongs to, for `fit` below.
GROUPS = {
    "placement": (training.Placement, ("mesh", "shard_state")),
    "saving": (training.Saving, ("checkpoints", "every_epochs", "every_minutes")),
    "monitoring": (training.Monitoring, ("evaluate", "eval_every", "log", "profile")),
}


def fit(data, **changes):
    """Trains the small network; options of all groups are given by their names."""
    schedule = optim.warmup_multistep(0.05, steps_per_epoch=3, milestones=(2,))
    normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
    options = {
        "prepare": augment.preparation(normalize, augment=True),
        "schedule": schedule,
        "optimizer": optim.sgd(schedule),
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "seed": 1,
        "mesh": sharding.mesh(1),
        **changes,
    }
    groups = {
        group: kind(**{name: options.pop(name) for name in names if name in options})
        for group, (kind, names) in GROUPS.items()
    }
    if "should_stop" in options:
        groups["should_stop"] = options.pop("should_stop")
    return training.fit(model(), data, training.Hyperparameters(**options), **groups)


class Recorder(training.Log):
    def __init__(self):
        self.records = []

    def epoch(self, record):
        self.records.append(record)


@pytest.fixture(scope="module")
def straight(data):
    log = Recorder()
    return fit(data, log=log), log.records


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_learns_and_records_every_epoch(straight):
    state, records = straight
    assert int(state.step) == EPOCHS * 3
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record["step"] for record in records] == [3, 6, 9]
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    # Warm-up reaches 2/3 in the last step of its epoch.
    assert records[0]["learning_rate"] == pytest.approx(0.05 * 2 / 3)
    assert records[1]["learning_rate"] == pytest.approx(0.05)


def test_epoch_counts_every_example_once(straight):
    sums = straight[0].sums
    assert float(sums.count) == 21


@pytest.mark.parametrize("stops", [(1,), (2, 3), (4, 1, 1)])
def test_interrupted_anywhere_ends_bit_by_bit_the_same(stops, data, straight, tmp_path):
    """Each entry of `stops` is the number of times that a run is not told to stop."""
    with Checkpoints(tmp_path / "c") as checkpoints:
        for stop in (*stops, 1000):
            looks = iter([False] * stop + [True])
            state = fit(
                data,
                checkpoints=checkpoints,
                should_stop=lambda looks=looks: next(looks, True),
            )
    assert_equal(state, straight[0])


def test_told_to_stop_it_makes_no_further_step(data, tmp_path):
    """Each step costs a look, also within a chunk, which is a second of steps."""
    looks = iter([False] * 7)
    with Checkpoints(tmp_path / "c") as checkpoints:
        state = fit(
            data,
            checkpoints=checkpoints,
            every_epochs=100,
            should_stop=lambda: next(looks, True),
            epochs=100,
        )
        checkpoints.close()
        assert checkpoints.steps() == [int(state.step)] == [7]


def test_told_to_stop_while_it_evaluates_it_records_the_epoch_later(
    data, straight, tmp_path
):
    log, scores = Recorder(), iter([None, None, *({"test_nll": 1.0} for _ in range(9))])
    with Checkpoints(tmp_path / "c", max_to_keep=9) as checkpoints:
        for _ in range(3):
            state = fit(
                data,
                log=log,
                checkpoints=checkpoints,
                evaluate=lambda variables: next(scores),
            )
        checkpoints.close()
        assert checkpoints.steps() == [3, 6, 9]
    assert_equal(state, straight[0])
    assert [record["epoch"] for record in log.records] == [1, 2, 3]
    for record, expected in zip(log.records, straight[1], strict=True):
        assert record["train_loss"] == expected["train_loss"]
        assert ("images_per_second" in record) == (record["epoch"] != 1)


def test_a_last_epoch_that_was_recorded_later_is_not_recorded_again(data, tmp_path):
    calls, scores = [], {"test_nll": 1.0, "test_accuracy": 0.5}

    def evaluate(variables):
        calls.append(len(calls))
        return None if len(calls) == EPOCHS else scores  # told to stop in the last

    found = []
    for _ in range(4):
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            fit(
                data,
                log=logs.RunLog(tmp_path, name="a run"),
                checkpoints=checkpoints,
                evaluate=evaluate,
            )
        found.append((tmp_path / "metrics.jsonl").read_bytes())
    assert len(calls) == EPOCHS + 1
    assert [text.count(b"\n") for text in found] == [2, 3, 3, 3]
    assert found[1] == found[2] == found[3]


def test_a_save_that_is_due_at_the_end_of_an_epoch_is_made(data, tmp_path):
    with Checkpoints(tmp_path / "c", max_to_keep=99) as checkpoints:
        fit(
            data,
            checkpoints=checkpoints,
            every_epochs=9,
            every_minutes=1e-9,
            epochs=2,
        )
        checkpoints.close()
        assert {3, 6} <= set(checkpoints.steps())


def test_what_makes_steps_can_be_wrapped(data, straight):
    given, asked = [], []

    def profile(advance, steps_per_epoch):
        given.append(steps_per_epoch)
        return lambda state, stop, *rest: (
            asked.append(stop) or advance(state, stop, *rest)
        )

    state = fit(data, profile=profile)
    assert given == [3]
    assert asked[-1] == EPOCHS * 3
    assert_equal(state, straight[0])


def test_saves_within_an_epoch_when_it_is_due(data, straight, tmp_path):
    with Checkpoints(tmp_path / "c", max_to_keep=99) as checkpoints:
        state = fit(
            data,
            checkpoints=checkpoints,
            every_minutes=1e-9,
            epochs=1,
        )
        checkpoints.close()
        assert 1 in checkpoints.steps()
        assert checkpoints.steps()[-1] == 3
        state = fit(data, checkpoints=checkpoints)
    assert_equal(state, straight[0])


def test_times_of_steps_add_up(straight):
    for record in straight[1]:
        assert record["data_ms"] >= 0
        assert record["compute_ms"] > 0
        milliseconds = record["data_ms"] + record["compute_ms"]
        assert record["images_per_second"] == pytest.approx(7e3 / milliseconds)


def test_loop_on_the_device_is_the_loop_on_the_host(data, straight, monkeypatch):
    compile_steps = functools.partial(steps.compile_steps, on_device=True)
    monkeypatch.setattr(loop, "compile_steps", compile_steps)
    state = fit(data)
    assert int(state.step) == EPOCHS * 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        state,
        straight[0],
    )


def test_a_run_goes_on_with_other_devices(data, straight, tmp_path):
    log = Recorder()
    with Checkpoints(tmp_path / "c") as checkpoints:
        for epochs, num_devices in ((1, 8), (2, 1), (3, 8)):
            mesh = sharding.mesh(num_devices)
            fit(
                data,
                log=log,
                checkpoints=checkpoints,
                epochs=epochs,
                mesh=mesh,
            )
    for one, changing in zip(straight[1], log.records, strict=True):
        assert changing["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)


def test_seed_decides(data, straight):
    other = fit(data, seed=2)
    kernels = [
        state.variables["params"]["stem_conv"]["kernel"]
        for state in (other, straight[0])
    ]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize("on_device", [False, True])
def test_divergence_stops_at_its_step(on_device, data, tmp_path, monkeypatch):
    compile_steps = functools.partial(steps.compile_steps, on_device=on_device)
    monkeypatch.setattr(loop, "compile_steps", compile_steps)
    schedule = lambda step: jnp.where(step < 4, 0.05, jnp.nan)
    options = {"schedule": schedule, "optimizer": optim.sgd(schedule)}
    message = r"not finite at step 5; checkpoints before it are kept"
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(training.NonFiniteLossError, match=message):
            fit(data, checkpoints=checkpoints, **options)
        assert checkpoints.steps() == [3]


def test_evaluation_and_checkpoints_keep_their_pace(data, tmp_path):
    log = Recorder()
    with Checkpoints(tmp_path / "c", max_to_keep=9) as checkpoints:
        fit(
            data,
            log=log,
            evaluate=lambda variables: {"test_nll": 1.0},
            eval_every=2,
            checkpoints=checkpoints,
            every_epochs=2,
        )
        checkpoints.close()
        assert checkpoints.steps() == [6, 9]
    assert ["test_nll" in record for record in log.records] == [False, True, True]


def test_finished_run_does_nothing_more(data, straight, tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        first = fit(data, checkpoints=checkpoints)
        log = Recorder()
        again = fit(data, checkpoints=checkpoints, log=log)
    assert_equal(again, first)
    assert log.records == []


def test_a_run_does_not_go_on_with_other_examples(data, tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        looks = iter([False] * 4)
        fit(data, checkpoints=checkpoints, should_stop=lambda: next(looks, True))
        message = "there are 20 examples to train on, and there were 21 when checkpoint"
        with pytest.raises(ValueError, match=message):
            fit(data.subset(np.arange(20)), checkpoints=checkpoints)


def test_batch_that_devices_cannot_divide(data):
    message = "batch_size 8 cannot be divided by 3 devices; use a multiple such as 6"
    with pytest.raises(ValueError, match=message):
        fit(data, mesh=sharding.mesh(3))


def test_fewer_examples_than_a_batch(data):
    message = "batch_size 24 is more than the 21 examples to train on"
    with pytest.raises(ValueError, match=message):
        fit(data, batch_size=24)


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match="asked for 9 devices, there are 8"):
        sharding.mesh(9)


def test_streams_do_not_depend_on_the_generator_of_the_process():
    expected = steps.Streams.of(3, members=2)
    with jax.default_prng_impl("rbg"):
        found = steps.Streams.of(3, members=2)
    for key, other in zip(found, expected, strict=True):
        data = [jax.random.key_data(x) for x in (key, other)]
        np.testing.assert_array_equal(*data)


def test_a_run_of_an_older_version_continues(data, straight, tmp_path):
    """Its counts are floating-point numbers, saved in the middle of an epoch."""
    looks = iter([False] * 4)
    with Checkpoints(tmp_path / "c") as checkpoints:
        stop = lambda: next(looks, True)
        state = fit(data, checkpoints=checkpoints, should_stop=stop)
    assert int(state.step) == 4
    old = state.sums._replace(
        count=state.sums.count.astype(jnp.float32),
        correct=state.sums.correct.astype(jnp.float32),
    )
    items = {
        "variables": state.variables,
        "rest": {"step": state.step, "opt_state": state.opt_state, "sums": old},
    }
    with Checkpoints(tmp_path / "old") as checkpoints:
        checkpoints.save(4, items, {"step": 4, "recorded": True})
    with Checkpoints(tmp_path / "old") as checkpoints:
        continued = fit(data, checkpoints=checkpoints)
    assert_equal(continued, straight[0])
    assert continued.sums.count.dtype == jnp.int32


def test_counts_are_exact_beyond_what_float32_can_count():
    """One more example after 2^24, as in an epoch of so many."""
    network, shape = model(), (8, 8, 3)
    optimizer = optim.sgd(0.1)
    state = steps.init_state(network, optimizer, shape, seed=0)
    many = 2**24
    state = state.replace(
        sums=steps.Sums(jnp.int32(many), state.sums.loss, jnp.int32(many))
    )
    batch = {"image": np.zeros((1, *shape), np.float32), "mask": np.ones(1, bool)}
    correct = 0
    for label in range(3):
        batch["label"] = np.array([label], np.int32)
        after = steps.train_step(
            state,
            batch,
            model=network,
            optimizer=optimizer,
            dropout_key=jax.random.key(0),
        )
        assert after.sums.count == many + 1
        correct += int(after.sums.correct) - many
    assert correct == 1  # one of the three labels is the most probable class


@pytest.mark.parametrize("train", [True, False])
def test_the_training_loss_is_what_a_step_adds_up(train):
    network, shape = model(rate=0.3), (8, 8, 3)
    optimizer = optim.sgd(0.1)
    state = steps.init_state(network, optimizer, shape, seed=0)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.standard_normal((4, *shape), np.float32),
        "label": np.array([0, 1, 2, 0], np.int32),
        "mask": np.array([True, True, True, False]),
    }
    key = jax.random.key(1)
    loss, outputs = steps.training_loss(
        network, state.variables, batch, dropout_key=key, train=train
    )
    log_probs = np.float64(outputs.logits)
    log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
    expected = -np.mean([log_probs[i, batch["label"][i]] for i in range(3)])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(outputs.batch_stats),
            jax.tree.leaves(state.variables["batch_stats"]),
            strict=True,
        )
    ]
    assert all(changed) if train else not any(changed)
    other, _ = steps.training_loss(
        network, state.variables, batch, dropout_key=jax.random.key(2), train=train
    )
    assert other != loss  # dropout is live in both
    if train:
        after = steps.train_step(
            state, batch, model=network, optimizer=optimizer, dropout_key=key
        )
        np.testing.assert_allclose(after.sums.loss, 3 * loss, rtol=1e-6)
