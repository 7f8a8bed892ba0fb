"""Fine-tuning: parts that keep their weights, learning rates of parts, first values."""

import re

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import optax
import pytest

from spatial_smoothing import training
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.layers import bind
from spatial_smoothing.models.heads import Head
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import freezing, optim, steps
from spatial_smoothing.training.checkpoints import Checkpoints

SHAPE = (4, 4, 3)
FROZEN = ("stem", "stage1")


class Tiny(nn.Module):
    """A network with the parts of the others, which compiles in no time."""

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        layers = bind(self, train=train, mask=mask, rate=0.0, dtype=None)
        x = layers.conv(4, 1, name="stem_conv")(images)
        x = nn.relu(layers.norm(name="stem_norm")(x))
        x = layers.norm(name="stage1_block0")(layers.conv(4, 1, name="stage1_conv")(x))
        x = layers.norm(name="smoothing1_0")(x)
        x = nn.relu(layers.norm(name="stage2_block0")(x))
        self.sow("intermediates", "stage2", x)
        return Head(3, layers, pool="average", name="head")(x)


def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.standard_normal((4, *SHAPE), np.float32),
        "label": np.array([0, 1, 2, 0], np.int32),
        "mask": np.array([True, True, True, False]),
    }


def first_state(optimizer):
    """A state with statistics like those of a trained network."""
    init = lambda: steps.init_state(Tiny(), optimizer, SHAPE, seed=0)
    state = jax.jit(init)()
    stats = jax.tree.map(lambda x: x + 0.3, state.variables["batch_stats"])
    return state.replace(variables={**state.variables, "batch_stats": stats})


def states(optimizer, *, frozen=()):
    """A state, and the one after a step."""
    state, key = first_state(optimizer), jax.random.key(1)
    step = jax.jit(
        lambda state: steps.train_step(
            state,
            batch(),
            model=Tiny(),
            optimizer=optimizer,
            dropout_key=key,
            frozen=frozen,
        )
    )
    return state, step(state)


def flat(state):
    return flax.traverse_util.flatten_dict(state.variables)


def test_parts_of_networks():
    names = ["stem_conv", "stage2_block0", "smoothing1_0", "head", "conv"]
    assert [freezing.part_of(name) for name in names] == [
        *("stem", "stage2", "stage1", "head", "conv")
    ]


def test_frozen_parts_stay_as_they_are_bit_by_bit():
    optimizer = optim.by_part(optim.sgd(0.1), frozen=FROZEN)
    state, after = states(optimizer, frozen=FROZEN)
    for path, value in flat(after).items():
        is_same = np.array_equal(value, flat(state)[path])
        assert is_same == (freezing.part_of(path[1]) in FROZEN), path
    # The optimiser remembers nothing of them.
    momentum = jax.tree.leaves(after.opt_state)
    trained = [p for p in flat(after) if p[0] == "params" and flat(after)[p].size]
    trained = [p for p in trained if freezing.part_of(p[1]) not in FROZEN]
    assert sum(leaf.ndim > 0 for leaf in momentum) == len(trained)


def test_frozen_parts_are_what_they_are_in_evaluation():
    variables = first_state(optim.sgd(0.1)).variables
    loss = jax.jit(
        lambda variables, frozen: steps.training_loss(
            Tiny(), variables, batch(), dropout_key=jax.random.key(0), frozen=frozen
        ),
        static_argnums=1,
    )
    _, outputs = loss(variables, ("stem", "stage1", "stage2", "head"))
    expected = Tiny().apply(variables, batch()["image"], train=False)
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5)
    jax.tree.map(
        np.testing.assert_array_equal, outputs.batch_stats, variables["batch_stats"]
    )
    _, trained = loss(variables, ())
    assert not np.allclose(trained.logits, expected)


def test_gradients_of_what_trains_are_those_of_the_function_it_sees():
    """Against the closed form for a head on features as they are in evaluation."""
    frozen = ("stem", "stage1", "stage2")
    state, after = states(optim.by_part(optax.sgd(1.0), frozen=frozen), frozen=frozen)
    _, taps = Tiny().apply(
        state.variables, batch()["image"], train=False, mutable=["intermediates"]
    )
    features = np.asarray(taps["intermediates"]["stage2"][0]).mean((1, 2))[:3]
    dense = jax.device_get(state.variables["params"]["head"]["dense"])
    logits = features @ dense["kernel"] + dense["bias"][None]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (probs - np.eye(3)) / 3
    change = after.variables["params"]["head"]["dense"]["kernel"] - dense["kernel"]
    np.testing.assert_allclose(change, -features.T @ error, atol=1e-6)


def test_the_backbone_learns_by_a_factor():
    state, plain = states(optim.sgd(0.1))
    _, slow = states(optim.by_part(optim.sgd(0.1), backbone_factor=0.25))
    for path, before in flat(state).items():
        if path[0] != "params":
            continue
        factor = 1 if path[1] == "head" else 0.25
        np.testing.assert_allclose(
            flat(slow)[path] - before, factor * (flat(plain)[path] - before), atol=1e-6
        )


def test_without_either_the_optimizer_is_the_same():
    optimizer = optim.sgd(0.1)
    assert optim.by_part(optimizer) is optimizer


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("stage5",), "unknown part to freeze 'stage5'; did you mean 'stage"),
        (("stem", "stage1", "stage2", "head"), "leaves nothing to train"),
    ],
)
def test_parts_that_cannot_be_frozen(frozen, message):
    state = first_state(optim.sgd(0.1))
    with pytest.raises(ValueError, match=message):
        freezing.check_parts(state.variables["params"], frozen)


def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, *SHAPE), np.uint8)
    return Dataset(images, np.arange(8, dtype=np.int32) % 3)


def fit(initial, *, checkpoints=None, members=1, epochs=1, frozen=("stem",)):
    optimizer = optim.by_part(optim.sgd(0.1), frozen=frozen)
    return training.fit(
        Tiny(),
        data(),
        training.Hyperparameters(
            prepare=lambda key, images: images / 255.0,
            schedule=lambda step: 0.1,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=4,
            members=members,
            initial=initial,
            frozen=frozen,
        ),
        placement=training.Placement(sharding.mesh(1)),
        saving=training.Saving(checkpoints),
    )


PATH = ("params", "stem_conv", "kernel")


def test_a_run_starts_from_given_values_and_continues_from_its_own(tmp_path):
    value = np.full((1, 1, 3, 4), 0.1, np.float32)
    with Checkpoints(tmp_path / "a") as checkpoints:
        half = fit({PATH: value}, checkpoints=checkpoints)
        np.testing.assert_array_equal(flat(half)[PATH], value)  # frozen
        # Another value is not looked at: the checkpoint is there.
        whole = fit({PATH: value + 1}, checkpoints=checkpoints, epochs=2)
    straight = fit({PATH: value}, epochs=2)
    for path, leaf in flat(straight).items():
        np.testing.assert_array_equal(flat(whole)[path], leaf)


def test_members_start_from_one_network_or_each_from_its_own():
    one = np.full((1, 1, 3, 4), 0.1, np.float32)
    same = fit({PATH: one}, members=2)
    np.testing.assert_array_equal(flat(same)[PATH], np.stack([one, one]))
    head = flat(same)["params", "head", "dense", "kernel"]
    assert not np.allclose(head[0], head[1])
    each = np.stack([one, one + 1])
    found = steps.with_values(same.variables, {PATH: each})
    np.testing.assert_array_equal(found["params"]["stem_conv"]["kernel"], each)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({("params", "stem"): np.zeros(3)}, "no variable params/stem"),
        ({PATH: np.zeros((1, 1, 3, 5))}, r"has the shape \(1, 1, 3, 4\)"),
    ],
)
def test_values_that_the_network_has_no_use_for(values, message):
    variables = first_state(optim.sgd(0.1)).variables
    with pytest.raises(ValueError, match=message):
        steps.with_values(variables, values)


def test_nothing_is_computed_backward_below_what_trains():
    optimizer = optim.by_part(optim.sgd(0.1), frozen=FROZEN)

    def backward(frozen):
        """Names of the layers with instructions of their own in the backward pass."""
        step = lambda state: steps.train_step(
            state,
            batch(),
            model=Tiny(),
            optimizer=optimizer,
            dropout_key=jax.random.key(1),
            frozen=frozen,
        )
        text = jax.jit(step).lower(first_state(optimizer)).compile().as_text()
        return {*re.findall(r"transpose\(jvp\(Tiny\)\)/(\w+)", text)}

    trains, layers = {"stage2_block0", "head"}, {"stem_norm", "stage1_conv"}
    assert backward(()) >= trains | layers
    assert backward(FROZEN) & (trains | layers) == trains
