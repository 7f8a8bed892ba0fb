"""Insertions in NNX models."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import spatial_smoothing as ss
from spatial_smoothing.insertion import add_mc_dropout, add_smoothing

IMAGES = jax.random.normal(jax.random.key(1), (3, 16, 16, 3))
COUNTING = {"padding": "SAME", "count_include_pad": False}


def identity(x):
    return x


class Block(nnx.Module):
    """Two strided convolutions side by side."""

    def __init__(self, features, outputs, before, rngs):
        options = {"strides": 2, "rngs": rngs}
        self.before = before
        self.conv = nnx.Conv(features, outputs, (3, 3), **options)
        self.shortcut = nnx.Conv(features, outputs, (1, 1), **options)

    def __call__(self, x):
        x = self.before(x)
        return nnx.relu(self.conv(x) + self.shortcut(x))


class Network(nnx.Module):
    """Has what is to be inserted written out as `before` and `after`."""

    def __init__(self, before: Callable = identity, after: Callable = identity):
        rngs = nnx.Rngs(0)
        self.before, self.after = before, after
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.shortcut = nnx.Conv(3, 4, (1, 1), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([Block(4, 4, before, rngs), Block(4, 6, before, rngs)])
        self.head = nnx.Linear(6, 5, rngs=rngs)
        self.eval()

    def features(self, x):
        x = 2 * x - 1
        x = nnx.relu(self.norm(self.stem(x) + self.shortcut(x)))
        x = nnx.avg_pool(self.before(x), (3, 3), (2, 2), **COUNTING)
        for block in self.blocks:
            x = self.after(block(x))
        return x

    def __call__(self, x):
        return self.head(self.features(x).mean((1, 2)))


def structure(model):
    return jax.tree.structure(nnx.to_pure_dict(nnx.state(model)))


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"temperature": 3.0, "taps": [1, 2, 1], "padding": "reflect"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_smoothing_is_what_one_would_write_before_each_subsampling(options):
    by_hand = Network(lambda x: ss.smooth(x, **options))
    model = add_smoothing(Network(), **options)
    features = nnx.jit(lambda model, x: model.features(x))
    assert_close(features(model, IMAGES), features(by_hand, IMAGES))
    assert_close(nnx.jit(lambda model, x: model(x))(model, IMAGES), by_hand(IMAGES))
    graph, state = nnx.split(model)
    apply = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    assert_close(apply(state, IMAGES), by_hand(IMAGES))
    gradient = nnx.grad(lambda model: model(IMAGES).sum())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *(nnx.to_pure_dict(gradient(m)) for m in (model, by_hand)),
    )


@pytest.mark.parametrize(
    "where", ["blocks/*", ["blocks/0", "blocks/1"], lambda path, m: type(m) is Block]
)
def test_smoothing_after_chosen_modules(where):
    model = add_smoothing(Network(), where=where)
    assert_close(model(IMAGES), Network(after=ss.smooth)(IMAGES))
    assert_close(nnx.jit(lambda m, x: m(x))(model, IMAGES), model(IMAGES))


def test_the_model_is_unchanged_and_its_paths_are_kept():
    model, other = Network(), Network()
    other.head.kernel[...] += 1
    plain, expected = model(IMAGES), Network(ss.smooth)
    expected.head.kernel[...] += 1
    smoothed = add_smoothing(add_smoothing(model), where="blocks/0", padding="same")
    assert structure(smoothed) == structure(model)
    np.testing.assert_array_equal(model(IMAGES), plain)
    smoothed = add_smoothing(model)
    nnx.update(smoothed, nnx.state(other))  # trained weights
    assert_close(smoothed(IMAGES), expected(IMAGES))
    np.testing.assert_array_equal(model(IMAGES), plain)


def test_equal_models_are_compiled_once():
    traces = []

    @nnx.jit
    def logits(model, x):
        traces.append(model)
        return model(x)

    for _ in range(2):
        logits(add_smoothing(Network()), IMAGES)
    assert len(traces) == 1
    logits(add_smoothing(Network(), temperature=2.0), IMAGES)
    logits(Network(), IMAGES)
    assert len(traces) == 3


class Ones(nnx.Module):
    """Pools maps of ones."""

    def __init__(self):
        zeros = nnx.initializers.zeros
        self.conv = nnx.Conv(3, 1, (1, 1), kernel_init=zeros, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return nnx.avg_pool(self.conv(x) + 1, (2, 2), (2, 2))


def test_dropout_is_live_until_it_is_switched_off():
    images = jnp.zeros((1, 400, 400, 3))
    model = add_mc_dropout(Ones(), 0.25)
    first, second = model(images), model(images)
    assert np.any(first != second)
    levels, counts = np.unique(first, return_counts=True)
    np.testing.assert_allclose(levels, np.arange(5) / 4 / 0.75, rtol=1e-6)
    binomial = np.array([1, 12, 54, 108, 81]) / 256  # of four values
    np.testing.assert_allclose(counts / 200**2, binomial, atol=0.01)  # 4 sigma
    model.eval()
    np.testing.assert_array_equal(model(images), Ones()(images))
    model.train()
    assert np.any(model(images) != 1)


@pytest.mark.parametrize("order", ["smoothing first", "dropout first"])
def test_smoothing_averages_the_noise_of_dropout(order):
    smooth = lambda model: add_smoothing(model, padding="same")
    drop = lambda model: add_mc_dropout(model, 0.5)
    steps = [smooth, drop] if order == "smoothing first" else [drop, smooth]
    model = steps[1](steps[0](Ones()))
    result = model(jnp.zeros((1, 64, 64, 3)))
    level = 10 * np.tanh(2 / 10) / 16  # each mean is of four means of four of 0 and 2
    np.testing.assert_allclose(result / level, np.round(result / level), atol=1e-4)
    assert len(np.unique(np.round(result / level))) > 5


def test_dropout_before_a_chosen_module_has_streams_of_its_own():
    model = add_mc_dropout(Network(), 0.5, where="head")
    model = add_mc_dropout(model, 0.2, where=["head", "blocks/1"])
    streams = {
        path[:-1] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.RngState))
    }
    assert streams == {
        ("blocks", 1, "inserted_dropout", 0, "rngs"),
        ("head", "inserted_dropout", 0, "rngs"),
        ("head", "inserted_dropout", 1, "rngs"),
    }
    rates = [layer.rate for layer in model.head.inserted_dropout]
    assert rates == [0.5, 0.2]
    parameters = lambda model: nnx.to_pure_dict(nnx.state(model, nnx.Param))
    jax.tree.map(
        np.testing.assert_array_equal, parameters(model), parameters(Network())
    )
    assert np.any(model(IMAGES) != model(IMAGES))
    again = add_mc_dropout(Network(), 0.5, where="head")
    other = nnx.clone(again)
    np.testing.assert_array_equal(again(IMAGES), other(IMAGES))


class Jitted(nnx.Module):
    """Has a method under `nnx.jit`, which keeps its traces."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv = nnx.Conv(4, 4, (3, 3), strides=2, rngs=rngs)

    @nnx.jit
    def inner(self, x):
        return self.conv(self.stem(x))

    def __call__(self, x):
        return self.inner(x)


def test_transformations_inside_need_paths():
    plain = Jitted()
    expected = plain.conv(ss.smooth(plain.stem(IMAGES)))
    assert plain(IMAGES).shape == (3, 8, 8, 4)
    model = add_smoothing(plain, where="stem")
    for _ in range(2):
        assert_close(model(IMAGES), expected)
    with pytest.raises(ValueError, match=r"stem lies inside a JAX transformation"):
        add_smoothing(plain)(IMAGES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: add_smoothing(Network(), where="block/*"),
            r"no module matches 'block/\*'; choose .*blocks/0/conv",
        ),
        (lambda: add_smoothing(Network(), where=lambda *_: False), "for no module"),
        (lambda: add_smoothing(Network(), squash="tahn"), "did you mean 'tanh'"),
        (lambda: add_mc_dropout(Network(), 1.0), r"in \[0, 1\), got 1.0"),
        (
            lambda: add_smoothing(Network(), where="head")(IMAGES),
            r"smoothing after head needs .*, got float32\[3, 5\]",
        ),
        (
            lambda: add_smoothing(Network().blocks[0])(IMAGES[..., [0, 0, 0, 0]]),
            "nothing is subsampled after the first convolution",
        ),
        (
            lambda: add_smoothing(Network()).blocks[0](IMAGES[..., [0, 0, 0, 0]]),
            "blocks/0/conv is called without the model",
        ),
    ],
)
def test_a_place_that_is_not_there_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_models_are_refused():
    with pytest.raises(TypeError, match=r"flax\.nnx\.Module, got function"):
        add_smoothing(identity)
