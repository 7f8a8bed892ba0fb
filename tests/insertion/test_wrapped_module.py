"""A wrapped Linen model is used as the model is."""

from collections.abc import Callable

import flax.errors
import flax.linen as nn
import jax
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing.insertion import add_mc_dropout, add_smoothing

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


def identity(x):
    return x


class Network(nn.Module):
    """Has methods besides `__call__`, and modules made in `setup`."""

    width: int = 6
    before: Callable = identity

    def setup(self):
        self.convs = [nn.Conv(self.width, (3, 3)), nn.Conv(self.width, (3, 3), 2)]
        self.head = nn.Dense(5)

    def features(self, x, *, train=False):
        x = nn.relu(self.convs[0](x))
        return nn.relu(self.convs[1](self.before(x)))

    def __call__(self, x):
        return self.head(self.features(x).mean((1, 2)))


VARIABLES = jax.jit(Network().init)(KEY, IMAGES)
BY_HAND = Network(before=ss.smooth)
SMOOTHED = add_smoothing(Network())


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "method",
    [
        *("features", Network.features, Network().features, SMOOTHED.features),
        lambda model, x: model.features(x),
    ],
)
def test_methods_are_those_of_the_model_with_insertions(method):
    result = SMOOTHED.apply(VARIABLES, IMAGES, method=method)
    expected = BY_HAND.apply(VARIABLES, IMAGES, method="features")
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "method",
    [
        *(None, "__call__", Network.__call__, SMOOTHED.__call__, Network().__call__),
        lambda model, x: model.head(model.features(x).mean((1, 2))),
    ],
)
def test_calls_are_those_of_the_model_with_insertions(method):
    result = SMOOTHED.apply(VARIABLES, IMAGES, method=method)
    expected = BY_HAND.apply(VARIABLES, IMAGES)
    np.testing.assert_array_equal(result, expected)


def test_places_are_looked_for_in_the_method_that_is_called():
    smoothed = add_smoothing(Network(), where="head")
    with pytest.raises(ValueError, match=r"no module matches 'head'.*convs_0, convs_1"):
        jax.eval_shape(lambda: smoothed.apply(VARIABLES, IMAGES, method="features"))


def test_bound_models():
    expected = BY_HAND.bind(VARIABLES)
    for bound in (SMOOTHED.bind(VARIABLES), add_smoothing(Network().bind(VARIABLES))):
        np.testing.assert_array_equal(bound(IMAGES), expected(IMAGES))
        result = bound.features(IMAGES, train=True)
        np.testing.assert_array_equal(result, expected.features(IMAGES))
        assert bound.width == 6
        with pytest.raises(AttributeError, match="'head' is no method of the wrapped"):
            _ = bound.head
    zeros = jax.tree.map(np.zeros_like, VARIABLES)
    bound = add_smoothing(Network().bind(zeros))
    result = bound.apply(VARIABLES, IMAGES)
    np.testing.assert_array_equal(result, expected(IMAGES))
    with pytest.raises(flax.errors.CallCompactUnboundModuleError):
        SMOOTHED(IMAGES)


class Attributes(nn.Module):
    backbone: nn.Module

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(self.backbone(x))


@pytest.mark.parametrize(
    "model",
    [
        Network(),
        nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(5, (3, 3), strides=2)]),
        pytest.param(
            Attributes(
                nn.Sequential([nn.Conv(4, (3, 3)), nn.Conv(5, (3, 3), strides=2)])
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_initial_values_are_those_of_the_model(model):
    wrapped = add_mc_dropout(add_smoothing(model), 0.5)
    variables = jax.jit(model.init)(KEY, IMAGES)
    assert_same(jax.jit(wrapped.init)(KEY, IMAGES), variables)
    result, same = jax.jit(wrapped.init_with_output)(KEY, IMAGES)
    assert_same(same, variables)
    expected = jax.jit(wrapped.apply)(variables, IMAGES)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    shapes = jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)
    lazily = lambda model: jax.eval_shape(lambda: model.lazy_init(KEY, shapes))
    assert lazily(wrapped) == lazily(model)


def test_initial_values_by_a_method():
    options = {"method": "features"}
    init = lambda model: jax.jit(lambda key: model.init(key, IMAGES, **options))(KEY)
    variables = init(Network())
    assert "head" not in variables["params"]
    assert_same(init(SMOOTHED), variables)


def test_captured_intermediates_are_those_of_the_model():
    def captured(model):
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        return model.apply(VARIABLES, IMAGES, **options)[1]

    assert_same(captured(SMOOTHED), captured(BY_HAND))


def test_the_table_of_modules_is_that_of_the_model():
    rows = lambda model: len(model.tabulate(KEY, IMAGES).splitlines())
    assert rows(SMOOTHED) == rows(BY_HAND)


def test_equal_wrapped_models_are_compiled_once():
    traces = []

    def logits(model, images):
        traces.append(model)
        return model.apply(VARIABLES, images)

    compiled = jax.jit(logits, static_argnums=0)
    compiled(SMOOTHED, IMAGES)
    compiled(add_smoothing(Network()), IMAGES)
    assert len(traces) == 1
    compiled(add_smoothing(Network(), temperature=2.0), IMAGES)
    compiled(Network(), IMAGES)
    assert len(traces) == 3


class Teacher(nn.Module):
    """Applies another network, which is no part of it."""

    before: Callable = identity

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(self.before(nn.Conv(3, (3, 3))(x)), (2, 2), (2, 2))
        return x.mean() + Network().apply(
            VARIABLES, jax.image.resize(x, (2, 16, 16, 3), "nearest")
        )


def test_a_network_that_the_model_applies_is_no_part_of_it():
    variables = jax.jit(Teacher().init)(KEY, IMAGES)
    result = jax.jit(add_smoothing(Teacher()).apply)(variables, IMAGES)
    expected = jax.jit(Teacher(ss.smooth).apply)(variables, IMAGES)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_attributes_are_those_of_the_model():
    class Model(nn.Module):
        activation: Callable = nn.relu
        nothing: int | None = None

        def __call__(self, x):
            return nn.max_pool(x, (2, 2), (2, 2))

        @staticmethod
        def double(number):
            return 2 * number

        @classmethod
        def named(cls, text):
            return f"{cls.__name__} {text}"

        @property
        def half(self):
            return 0.5

    wrapped = add_smoothing(Model(activation=nn.gelu))
    assert wrapped.activation is nn.gelu
    assert wrapped.nothing is None
    assert wrapped.double(3) == 6
    assert wrapped.named("here") == "Model here"
    assert wrapped.half == 0.5
    with pytest.raises(AttributeError, match="'other' is no method of the wrapped"):
        _ = wrapped.other
