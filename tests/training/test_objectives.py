"""Losses, averages and mixtures of a step, against PyTorch, NumPy and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from spatial_smoothing import models, training
from spatial_smoothing.data import augment
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import losses, objectives, optim, steps
from spatial_smoothing.training.checkpoints import Checkpoints
from spatial_smoothing.training.objectives import StepOptions

RNG = np.random.default_rng(0)


def batch(size=6, padding=2, classes=3):
    images = RNG.standard_normal((size, 8, 8, 3)).astype(np.float32)
    labels = RNG.integers(0, classes, size).astype(np.int32)
    return {"image": images, "label": labels, "mask": np.arange(size) < size - padding}


def build(rate=0.3):
    return models.build(
        "resnet_mcdo_18", num_classes=3, width=4, stages=(1,), rate=rate
    )


@functools.cache
def initial():
    # Larger weights make predictions that differ from each other.
    variables = build().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = jax.tree.map(lambda x: 2 * x, variables["params"])
    return {**variables, "params": params}


def loss(examples, *, train=False, **options):
    """The loss and the logits of a step, and the network's logits of the batch."""
    options = StepOptions(**options)
    value, outputs = losses.training_loss(
        build(),
        initial(),
        examples,
        dropout_key=jax.random.key(1),
        train=train,
        options=options,
    )
    images = jnp.repeat(examples["image"], options.train_samples, axis=0)
    rngs = {"dropout": losses.random_bits.fused(jax.random.key(1))}
    logits = build().apply(initial(), images, rngs=rngs)
    return float(value), outputs.logits, np.asarray(logits, np.float64)


def test_label_smoothing_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    examples = batch()
    value, _, logits = loss(examples, label_smoothing=0.1)
    kept = examples["mask"]
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(
        torch.tensor(logits[kept]), torch.tensor(examples["label"][kept]).long()
    )
    assert value == pytest.approx(float(expected), rel=1e-5)
    assert value != pytest.approx(loss(examples)[0], rel=1e-3)


@pytest.mark.parametrize("kind", ["mean", "of_mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_samples_of_an_example_are_averaged_before_or_after_the_loss(kind, smoothing):
    examples = batch()
    options = {"train_samples": 3, "train_samples_loss": kind}
    value, outputs, logits = loss(examples, label_smoothing=smoothing, **options)
    probs = scipy.special.softmax(logits, -1).reshape(6, 3, 3)  # example, sample, class
    assert np.ptp(probs, axis=1).max() > 1e-3
    targets = (1 - smoothing) * np.eye(3)[examples["label"]] + smoothing / 3
    mean = probs.mean(1)
    if kind == "of_mean":
        each = -(targets * np.log(mean)).sum(-1)
    else:
        each = -(targets[:, None] * np.log(probs)).sum(-1).mean(1)
    assert value == pytest.approx(each[examples["mask"]].mean(), rel=1e-5)
    np.testing.assert_allclose(outputs, np.log(mean), rtol=1e-4, atol=1e-5)


def test_padding_takes_no_part_in_repeated_batches():
    """Statistics of the batch are of the examples only."""
    examples = batch()
    other = {**examples, "image": examples["image"].copy()}
    other["image"][4:] = 100.0
    options = {"train_samples": 2, "train": True}
    assert loss(other, **options)[0] == pytest.approx(loss(examples, **options)[0])


def test_mixup_mixes_images_and_targets_alike():
    examples = batch(size=8, padding=3)
    for seed in range(3):
        mixed = objectives.mixed(jax.random.key(seed), examples, alpha=1.0)
        weight = np.unique(mixed["share"])
        assert weight.shape == (1,)
        # Which image was mixed in follows from the pixels.
        rest = np.asarray(mixed["image"]) - weight * examples["image"]
        pairs = rest.reshape(8, -1) / (1 - weight)
        distance = np.abs(pairs[:, None] - examples["image"].reshape(8, -1)).max(-1)
        partner = distance.argmin(1)
        assert distance.min(1).max() < 1e-3
        assert sorted(partner[:5]) == list(range(5))  # a permutation, of no padding
        np.testing.assert_array_equal(mixed["other_label"], examples["label"][partner])
        value, _, logits = loss(mixed, label_smoothing=0.1)
        log_probs = scipy.special.log_softmax(logits, -1)
        one, other = (np.eye(3)[mixed[name]] for name in ("label", "other_label"))
        targets = 0.9 * (weight * one + (1 - weight) * other) + 0.1 / 3
        expected = -(targets * log_probs).sum(-1)[:5].mean()
        assert value == pytest.approx(expected, rel=1e-5)
    # An image with itself is itself, whatever the weight.
    assert (partner[:5] != np.arange(5)).any()


def test_weights_of_mixup_are_of_a_beta_distribution():
    examples = {
        "image": jnp.zeros((2, 1, 1, 1)),
        "label": jnp.zeros(2, jnp.int32),
        "mask": jnp.ones(2, bool),
    }
    draw = lambda key: objectives.mixed(key, examples, alpha=0.4)["share"][0]
    weights = jax.vmap(draw)(jax.random.split(jax.random.key(0), 2000))
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert np.mean(weights) == pytest.approx(0.5, abs=0.03)
    assert np.var(weights) == pytest.approx(1 / 7.2, abs=0.01)


def test_mixup_needs_one_label_an_image():
    examples = {**batch(), "label": np.zeros((6, 8, 8), np.int32)}
    with pytest.raises(ValueError, match=r"one label each, got labels \(6, 8, 8\)"):
        objectives.mixed(jax.random.key(0), examples, alpha=1.0)


def test_average_equals_its_recurrence():
    values = RNG.standard_normal(40)
    average = expected = values[0]
    for step, value in enumerate(values):
        weight = min(0.7, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * value
        average = objectives.moving_average(
            jnp.float32(average), jnp.float32(value), step=jnp.int32(step), decay=0.7
        )
        assert float(average) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def data():
    labels = np.arange(21, dtype=np.int32) % 3
    images = RNG.integers(0, 256, (21, 8, 8, 3)).astype(np.uint8)
    return Dataset(images, labels)


def fit(data, *, checkpoints=None, stops=None, log=None, options=None, **changes):
    """Trains two epochs of three steps, the last batch padded."""
    schedule = optim.warmup_cosine(0.05, steps_per_epoch=3, epochs=1)
    normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
    looks = iter([False] * stops + [True] * 9) if stops else None
    return training.fit(
        build(),
        data,
        training.Hyperparameters(
            prepare=augment.preparation(normalize, augment=True),
            schedule=schedule,
            optimizer=optim.sgd(schedule, nesterov=True),
            epochs=2,
            batch_size=8,
            seed=1,
            step_options=options or StepOptions(),
            **changes,
        ),
        placement=training.Placement(sharding.mesh(1)),
        saving=training.Saving(checkpoints),
        monitoring=training.Monitoring(evaluate=log),
        should_stop=lambda: next(looks) if looks else False,
    )


ALL = StepOptions(
    label_smoothing=0.1,
    mixup=0.3,
    train_samples=2,
    train_samples_loss="of_mean",
    ema=0.5,
)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_interrupted_runs_with_all_options_end_bit_by_bit_the_same(
    data, tmp_path, monkeypatch
):
    evaluated, keys, mixed = [], [], objectives.mixed

    def noted(key, batch, **options):
        jax.debug.callback(lambda x: keys.append(tuple(x.tolist())), key_data(key))
        return mixed(key, batch, **options)

    key_data = jax.random.key_data
    monkeypatch.setattr(objectives, "mixed", noted)

    def evaluate(variables):
        evaluated.append(jax.device_get(variables))
        return {}

    straight = fit(data, options=ALL, log=evaluate)
    jax.effects_barrier()
    of_straight = list(keys)
    assert len(set(of_straight)) == 6  # steps have keys of their own
    keys.clear()
    with Checkpoints(tmp_path / "c", max_to_keep=9) as checkpoints:
        for stops in (4, 99):
            state = fit(data, options=ALL, checkpoints=checkpoints, stops=stops)
        checkpoints.close()
        assert checkpoints.steps() == [3, 4, 6]
        saved = checkpoints.restore(
            variables=steps_shapes(straight.average), rest=steps_shapes(rest(straight))
        )
    assert_equal(state, straight)
    jax.effects_barrier()
    assert sorted(keys) == sorted(of_straight)
    # What is evaluated, and what a workdir is loaded from, is the average.
    assert_equal(evaluated[-1], straight.average)
    assert_equal(saved.items["variables"], straight.average)
    assert_equal(saved.items["rest"]["trained"], straight.variables)
    kernels = [
        tree["params"]["stem_conv"]["kernel"]
        for tree in (straight.average, straight.variables)
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-5


def rest(state):
    return {
        "step": state.step,
        "opt_state": state.opt_state,
        "sums": state.sums,
        "trained": state.variables,
    }


def steps_shapes(tree):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
    )


def test_average_of_a_run_follows_from_its_steps(data, tmp_path):
    """The state after each step is that of a run without an average."""
    with Checkpoints(tmp_path / "c", max_to_keep=9) as checkpoints:
        states = [fit(data, checkpoints=checkpoints, stops=1) for _ in range(3)]
    first = steps.place_state(
        lambda: steps.init_state(build(), optax.sgd(0.1), (8, 8, 3), seed=1),
        sharding.mesh(1),
    )
    average = jax.device_get(first.variables)
    for step, state in enumerate(states):
        assert int(state.step) == step + 1
        weight = np.float32(min(0.9, (1 + step) / (10 + step)))
        average = jax.tree.map(
            lambda old, new, w=weight: w * old + (1 - w) * new, average, state.variables
        )
    found = fit(data, options=StepOptions(ema=0.9), stops=3)
    for one, other in (
        (found.variables, states[-1].variables),
        (found.average, average),
    ):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            one,
            other,
        )


@pytest.mark.slow
def test_members_have_averages_of_their_own(data):
    both = fit(data, options=ALL, members=2)
    alone = fit(data, options=ALL)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one[0], two, rtol=1e-3, atol=1e-4),
        both.average,
        alone.average,
    )


def test_initial_weights_begin_the_average(data):
    path = ("params", "head", "dense", "bias")
    values = {path: np.full(3, 2.0, np.float32)}
    state = fit(data, options=StepOptions(ema=0.99), initial=values, stops=1)
    bias = state.average["params"]["head"]["dense"]["bias"]
    np.testing.assert_allclose(bias, 2, atol=0.05)  # drawn ones are below 0.5


def test_keys_of_a_seed_are_those_of_earlier_versions():
    found = steps.Streams.of(7)
    expected = jax.random.split(jax.random.key(7, impl="threefry2x32"), 5)
    data = lambda key: np.asarray(jax.random.key_data(key))
    for key, before in zip(found, expected, strict=False):  # that of mixup came later
        np.testing.assert_array_equal(data(key), data(before))
    assert found._fields[5:] == ("mixup",)
    others = data(jax.random.split(jax.random.key(7), 99))
    assert not (data(found.mixup) == others).all(-1).any()


@pytest.mark.parametrize(
    ("size", "samples", "expected"),
    [(128, 1, 128), (128, 4, 32), (5, 5, 1), (128, 3, "take 126"), (2, 3, "take 3")],
)
def test_examples_of_a_step_count_with_their_samples(size, samples, expected):
    if isinstance(expected, int):
        assert objectives.examples_of_step(size, samples) == expected
        return
    with pytest.raises(ValueError, match=expected):
        objectives.examples_of_step(size, samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"ema": float("nan")}, "ema must be in"),
        ({"mixup": -0.1}, "mixup must be at least 0, got -0.1"),
        ({"train_samples": 0}, "train_samples must be at least 1"),
        ({"train_samples_loss": "mea"}, "unknown train_samples_loss 'mea'; did you"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        StepOptions(**options)
