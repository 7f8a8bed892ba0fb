"""Insertions in models that use Flax's lifted transformations."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing.insertion import add_mc_dropout, add_smoothing, interception

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


def identity(x):
    return x


def on_parameters(block):
    return nn.map_variables(block, "params", identity, identity, init=True)


LIFTS = {
    "jit": nn.jit,
    "remat": nn.remat,
    "jit in jit": lambda block: nn.jit(nn.jit(block)),
    "jit in remat": lambda block: nn.remat(nn.jit(block)),
    "remat in jit": lambda block: nn.jit(nn.remat(block)),
    "map_variables": on_parameters,
}


class Block(nn.Module):
    """A strided convolution with what is to be inserted written out around it."""

    before: Callable = identity
    after: Callable = identity

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), strides=(2, 2), name="conv")(self.before(x)))
        return self.after(x)


class Network(nn.Module):
    """A stem with a pool, and two blocks of equal fields."""

    lift: Callable = identity
    before: Callable = identity
    after: tuple[Callable, Callable] = (identity, identity)

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        x = nn.max_pool(self.before(x), (2, 2), (2, 2))
        block = self.lift(Block)
        for number, after in enumerate(self.after):
            x = block(self.before, after, name=f"block{number}")(x)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


VARIABLES = jax.jit(Network().init)(KEY, IMAGES)
PLAIN = jax.jit(Network().apply)(VARIABLES, IMAGES)
SMOOTHED = jax.jit(Network(before=ss.smooth).apply)(VARIABLES, IMAGES)


def compiled(model, variables=VARIABLES, **options):
    """Applies a model in a new program; `nn.jit` may use its traces again."""
    return jax.jit(lambda v: model.apply(v, IMAGES, **options))(variables)


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def assert_same_initial_values(a, b):
    a, b = (jax.jit(lambda key, m=m: m.init(key, IMAGES))(KEY) for m in (a, b))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def lifted(name):
    """Returns a network whose lifted class, and with it what `nn.jit` keeps, is new."""
    cache = {}
    return Network(lambda block: cache.setdefault(block, LIFTS[name](block)))


@pytest.mark.parametrize("order", ["plain first", "smoothed first"])
@pytest.mark.parametrize("name", LIFTS)
def test_traces_of_the_model_and_of_the_wrapped_model_are_not_mixed(name, order):
    model = lifted(name)
    calls = [(model, PLAIN), (add_smoothing(model), SMOOTHED)]
    if order == "smoothed first":
        calls.reverse()
    for module, expected in (*calls, calls[0]):
        assert_close(compiled(module), expected)


def test_calls_outside_of_jax_jit():
    model = lifted("jit")
    smoothed = add_smoothing(model)
    for module in (smoothed, model, smoothed, smoothed):
        expected = PLAIN if module is model else SMOOTHED
        assert_close(module.apply(VARIABLES, IMAGES), expected)


@pytest.mark.parametrize("name", ["jit", "remat"])
def test_options_of_insertions_are_not_mixed(name):
    model = lifted(name)
    for options in ({"temperature": 3.0}, {}, {"temperature": 3.0}):
        by_hand = Network(before=lambda x, options=options: ss.smooth(x, **options))
        assert_close(compiled(add_smoothing(model, **options)), compiled(by_hand))


@pytest.mark.parametrize("name", ["jit", "jit in remat", "remat"])
def test_blocks_of_equal_fields_are_told_apart_by_path(name):
    model = lifted(name)
    for where, after in (
        ("block0", (ss.smooth, identity)),
        ("block1", (identity, ss.smooth)),
        ("block*", (ss.smooth, ss.smooth)),
    ):
        smoothed = add_smoothing(model, where=where)
        assert_close(compiled(smoothed), compiled(Network(after=after)))


@pytest.mark.parametrize("name", ["jit", "remat in jit", "map_variables"])
def test_initial_values_are_those_of_the_model(name):
    model = lifted(name)
    assert_same_initial_values(add_mc_dropout(add_smoothing(model), 0.5), model)


@pytest.mark.parametrize("name", ["jit", "remat"])
def test_gradients_are_those_of_the_model_by_hand(name):
    def gradient(model):
        loss = lambda v: jnp.square(model.apply(v, IMAGES)).sum()
        return jax.jit(jax.grad(loss))(VARIABLES)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        gradient(add_smoothing(lifted(name))),
        gradient(Network(before=ss.smooth)),
    )


@pytest.mark.parametrize("name", ["jit", "remat"])
def test_dropout_draws_from_its_key(name):
    wrapped = add_mc_dropout(lifted(name), 0.5, where="block1")
    draw = jax.jit(lambda key: wrapped.apply(VARIABLES, IMAGES, rngs={"dropout": key}))
    assert_close(compiled(wrapped), PLAIN)
    np.testing.assert_array_equal(draw(KEY), draw(KEY))
    assert np.abs(draw(KEY) - draw(jax.random.key(1))).max() > 1e-3


class Decorated(nn.Module):
    """Its own method is under `nn.jit`."""

    before: Callable = identity

    @nn.jit
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        return nn.avg_pool(self.before(x), (2, 2), (2, 2)).mean((1, 2))


class Branches(nn.Module):
    """Calls one of two convolutions by `nn.switch`."""

    before: Callable = identity

    def setup(self):
        self.first, self.second = nn.Conv(6, (3, 3)), nn.Conv(6, (3, 3))

    def pooled(self, conv, x):
        return nn.max_pool(self.before(conv(x)), (2, 2), (2, 2))

    def __call__(self, x):
        if self.is_initializing():
            self.first(x), self.second(x)
        branches = [
            lambda self, x: self.pooled(self.first, x),
            lambda self, x: self.pooled(self.second, x),
        ]
        return nn.switch(1, branches, self, x)


class Frames(nn.Module):
    """Scans a network over time, whose stem has the stride given."""

    before: Callable = identity
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            before: Callable
            stride: int

            @nn.compact
            def __call__(self, carry, x):
                x = nn.relu(nn.Conv(6, (3, 3), self.stride)(x))
                return carry, nn.Conv(6, (3, 3), strides=2)(self.before(x))

        steps = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False})
        return steps(self.before, self.stride)(0, jnp.stack([x, 2 * x]))[1]


class Members(nn.Module):
    """Maps a network over parameters."""

    before: Callable = identity

    @nn.compact
    def __call__(self, x):
        member = nn.vmap(
            Network,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=2,
        )
        return member(before=self.before)(x)


class Shared(nn.Module):
    """One block under `nn.jit` is called first on the input, then on its result."""

    before: Callable = identity

    @nn.compact
    def __call__(self, x):
        conv = nn.jit(nn.Conv)(3, (3, 3), strides=2)
        return conv(self.before(nn.relu(conv(x))))


class Given(nn.Module):
    """Its modules are attributes."""

    first: nn.Module
    second: nn.Module
    before: Callable = identity

    def __call__(self, x):
        return self.second(self.before(nn.relu(self.first(x))))


def given(before=identity):
    conv = nn.jit(nn.Conv)
    return Given(conv(4, (3, 3)), conv(5, (3, 3), strides=2), before)


def shared_attribute(before=identity):
    conv = nn.Conv(3, (3, 3), strides=2)
    return Given(conv, conv, before)


class Normalised(nn.Module):
    """Updates statistics inside `nn.jit`."""

    before: Callable = identity

    @nn.compact
    def __call__(self, x):
        class Normed(nn.Module):
            before: Callable

            @nn.compact
            def __call__(self, x):
                x = nn.Conv(4, (3, 3), strides=2)(self.before(x))
                return nn.BatchNorm(use_running_average=False)(x)

        block = nn.jit(Normed)
        x = nn.Conv(4, (1, 1))(x)
        return block(self.before)(block(self.before)(x))


@pytest.mark.parametrize(
    "make",
    [
        *(Decorated, Branches, Shared, given, shared_attribute, Normalised),
        pytest.param(Frames, marks=pytest.mark.slow),
        pytest.param(Members, marks=pytest.mark.slow),
        lambda before=identity: nn.jit(Network)(before=before),
        lambda before=identity: nn.remat(Network)(before=before),
    ],
)
def test_smoothing_is_what_one_would_write_by_hand(make):
    model, smoothed = make(), add_smoothing(make())
    assert_same_initial_values(smoothed, model)
    variables = jax.jit(model.init)(KEY, IMAGES)
    options = {"mutable": ["batch_stats"]}
    plain = compiled(model, variables, **options)
    expected = compiled(make(before=ss.smooth), variables, **options)
    jax.tree.map(assert_close, compiled(smoothed, variables, **options), expected)
    jax.tree.map(assert_close, compiled(model, variables, **options), plain)


def shortcut(lift):
    class Shortcut(nn.Module):
        """Two convolutions with strides read the input."""

        @nn.compact
        def __call__(self, x):
            conv = lift(nn.Conv)
            x = conv(4, (3, 3), 2)(x) + conv(4, (1, 1), 2)(x)
            return nn.max_pool(x, (2, 2), (2, 2))

    return Shortcut()


@pytest.mark.parametrize(
    "model", [shortcut(nn.remat), shortcut(nn.jit), Frames(stride=2)]
)
def test_what_a_transformation_hides_is_refused(model):
    variables = jax.eval_shape(model.init, KEY, IMAGES)
    with pytest.raises(ValueError, match=r"cannot tell whether .* choose modules by"):
        jax.eval_shape(add_smoothing(model).apply, variables, IMAGES)


class Deep(nn.Module):
    """Scans one block over depth."""

    after: Callable = identity

    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            after: Callable

            @nn.compact
            def __call__(self, x, _):
                return self.after(nn.Conv(3, (3, 3), name="conv")(x)), None

        steps = nn.scan(
            Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return steps(self.after, name="steps")(x, None)[0]


def test_a_map_that_grows_in_a_loop_is_refused_with_the_remedy():
    variables = jax.jit(Deep().init)(KEY, IMAGES)
    with pytest.raises(ValueError, match=r"nn\.scan.*padding='same' keeps it"):
        jax.eval_shape(
            add_smoothing(Deep(), where="steps/conv").apply, variables, IMAGES
        )
    smoothed = add_smoothing(Deep(), where="steps/conv", padding="same")
    by_hand = Deep(lambda x: ss.smooth(x, padding="same"))
    assert_close(compiled(smoothed, variables), compiled(by_hand, variables))


@jax.jit
def pooled_under_jit(x):
    return nn.max_pool(x, (2, 2), (2, 2))


class PoolsUnderJit(nn.Module):
    """Calls a function of JAX that keeps its traces."""

    @nn.compact
    def __call__(self, x):
        return pooled_under_jit(nn.Conv(4, (3, 3), name="conv")(x))


def test_a_pool_inside_a_transformation_of_jax_is_refused():
    model = PoolsUnderJit()
    variables = jax.jit(model.init)(KEY, IMAGES)
    plain = model.apply(variables, IMAGES)  # JAX has a trace from now on
    with pytest.raises(ValueError, match="a pool in the model lies inside a JAX"):
        add_smoothing(model).apply(variables, IMAGES)
    np.testing.assert_array_equal(model.apply(variables, IMAGES), plain)
    by_path = add_smoothing(model, where="conv").apply(variables, IMAGES)
    conv = {"params": variables["params"]["conv"]}
    x = ss.smooth(nn.Conv(4, (3, 3)).apply(conv, IMAGES))
    assert_close(by_path, nn.max_pool(x, (2, 2), (2, 2)))


def test_no_tracer_outlives_its_trace():
    with jax.checking_leaks():
        for model in (shortcut(identity), Decorated(), Network(nn.remat)):
            variables = jax.eval_shape(model.init, KEY, IMAGES)
            jax.eval_shape(add_smoothing(model).apply, variables, IMAGES)


def test_compilation_in_each_call_is_told(caplog):
    interception._warn_of_compilation.cache_clear()  # it is told once a process
    smoothed = add_smoothing(Decorated())
    variables = jax.jit(smoothed.init)(KEY, IMAGES)
    assert not caplog.records
    smoothed.apply(variables, IMAGES)
    assert "call it under jax.jit" in caplog.records[0].message
