import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import spatial_smoothing as ss
from spatial_smoothing import layers

MASK = np.array([True, True, False, True, True, False])


def normal(shape=(6, 3, 4, 5), *, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return (2 * rng.standard_normal(shape) + 1).astype(dtype)


def test_smoothing_layer_is_the_function_without_parameters():
    x = 8 * normal()
    options = {"squash": "clip", "taps": (1, 2, 1), "padding": "edge"}
    for layer, expected in (
        (ss.SpatialSmoothing(), ss.smooth(x)),
        (ss.SpatialSmoothing(3.0), ss.smooth(x, 3.0)),
        (ss.SpatialSmoothing(2.0, **options), ss.smooth(x, 2.0, **options)),
        (ss.SpatialSmoothing(taps=None), ss.smooth(x, taps=None)),
    ):
        assert not jax.tree.leaves(layer.init(jax.random.key(0), x))
        np.testing.assert_array_equal(layer.apply({}, x), expected)


def test_smoothing_layer_normalises_first_where_asked():
    x = 8 * normal()
    norm = functools.partial(layers.BatchNorm, use_running_average=False)
    layer = ss.SpatialSmoothing(norm=norm)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert set(variables["params"]) == {"norm"}
    expected = ss.smooth((x - x.mean((0, 1, 2))) / x.std((0, 1, 2)))
    np.testing.assert_allclose(y, expected, atol=2e-5)


def norm_variables(seed=1):
    rng = np.random.default_rng(seed)
    draw = lambda: jnp.asarray(0.5 + rng.random(5))
    return {
        "params": {"scale": draw(), "bias": draw()},
        "batch_stats": {"mean": draw(), "var": draw()},
    }


def normalised(x, mean, var, variables):
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    row = lambda values: np.asarray(values)[None, None, None]
    return row(scale) * (x - row(mean)) / np.sqrt(row(var) + 1e-5) + row(bias)


def train(x, variables, mask=None):
    layer = layers.BatchNorm(use_running_average=False, mask=mask)
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def test_batch_norm_evaluates_with_running_statistics():
    x, variables = normal(), norm_variables()
    layer = layers.BatchNorm(use_running_average=True)
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    stats = variables["batch_stats"]
    expected = normalised(x, stats["mean"], stats["var"], variables)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], stats)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.usefixtures("x64")
def test_batch_norm_trains_with_biased_and_stores_unbiased_variance(mask):
    x, variables = normal(dtype=np.float64), norm_variables()
    y, stats = train(x, variables, mask)
    counted = x if mask is None else x[mask]
    mean, var = counted.mean((0, 1, 2)), counted.var((0, 1, 2))
    expected = normalised(x, mean, var, variables)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    old = variables["batch_stats"]
    unbiased = counted.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(stats["mean"], 0.9 * old["mean"] + 0.1 * mean)
    np.testing.assert_allclose(stats["var"], 0.9 * old["var"] + 0.1 * unbiased)


@pytest.mark.usefixtures("x64")
def test_masked_examples_of_batch_norm_change_nothing():
    x, variables = normal(dtype=np.float64), norm_variables()
    x[~MASK] = 1e8
    y, stats = train(x, variables, MASK)
    few, few_stats = train(x[MASK], variables)
    np.testing.assert_allclose(y[MASK], few, rtol=1e-12)
    jax.tree.map(np.testing.assert_allclose, stats, few_stats)

    def loss(x, mask):
        y, _ = train(x, variables, mask)
        return (jnp.sin(y) * (1 if mask is None else mask[:, None, None, None])).sum()

    gradient = jax.grad(loss)(x, MASK)
    few_gradient = jax.grad(loss)(x[MASK], None)
    np.testing.assert_allclose(gradient[MASK], few_gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(gradient[~MASK], 0)


@pytest.mark.parametrize("mask", [MASK[:1], MASK[:5], MASK[:, None]])
def test_masks_of_another_shape_are_refused(mask):
    with pytest.raises(
        ValueError, match=r"a mask \[B\], got shapes \[6, 3, 4, 5\] and"
    ):
        train(normal(), norm_variables(), mask)
    with pytest.raises(ValueError, match="batch of at least one example"):
        train(normal()[:0], norm_variables())


def test_batch_norm_starts_like_pytorch():
    x = normal()
    layer = layers.BatchNorm(use_running_average=False)
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(variables["params"]["scale"], 1)
    np.testing.assert_array_equal(variables["params"]["bias"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)


def test_batch_norm_of_one_value_stays_finite():
    y, stats = train(np.ones((1, 1, 1, 5), np.float32), norm_variables())
    assert np.isfinite(y).all()
    assert all(np.isfinite(leaf).all() for leaf in stats.values())


def test_batch_norm_keeps_statistics_in_float32():
    x = jnp.asarray(normal() + 100, jnp.bfloat16)
    layer = layers.BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    wide = np.asarray(x, np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / wide.std((0, 1, 2))
    np.testing.assert_allclose(y.astype(np.float32), expected, atol=0.02)


def test_batch_norm_spans_devices():
    x, variables = normal((16, 3, 4, 5)), norm_variables()
    mask = np.arange(16) < 13  # the last device holds padding only
    expected, expected_stats = train(x, variables, mask)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    y, stats = jax.jit(train)(*jax.device_put((x, variables), (split, None)), mask)
    assert len(y.sharding.device_set) == 8
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), stats, expected_stats
    )


def test_dense_layer():
    x = normal((4, 30))
    y, variables = layers.Dense(7).init_with_output(jax.random.key(0), x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    assert kernel.shape == (30, 7)
    np.testing.assert_allclose(y, x @ np.asarray(kernel) + bias[None], rtol=1e-5)
    half = layers.Dense(7).apply(variables, x.astype(jnp.bfloat16))
    assert half.dtype == np.float32


class Bound(nn.Module):
    """Calls one of the bound layers."""

    call: object
    train: bool = False
    rate: float = 0.0
    dtype: object = None

    @nn.compact
    def __call__(self, x):
        bound = layers.bind(
            self, train=self.train, mask=None, rate=self.rate, dtype=self.dtype
        )
        return self.call(bound)(x)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(1, 2, None), (3, 1, None), (3, 2, None), (5, 4, 1)]
)
def test_convolution_pads_alike_on_all_sides(size, stride, padding):
    x = normal((1, 8, 9, 3))
    model = Bound(
        lambda b: b.conv(2, size, stride=stride, padding=padding, name="conv")
    )
    y, variables = model.init_with_output(jax.random.key(0), x)
    (kernel,) = jax.tree.leaves(variables)
    width = size // 2 if padding is None else padding
    padded = np.pad(x[0], ((width, width), (width, width), (0, 0)))
    for out in range(2):
        full = scipy.signal.correlate(padded, kernel[..., out], mode="valid")[..., 0]
        np.testing.assert_allclose(
            y[0, ..., out], full[::stride, ::stride], rtol=1e-4, atol=1e-5
        )


def test_initial_values_are_uniform_in_the_inverse_root_of_the_fan_in():
    conv = Bound(lambda b: b.conv(64, 3, groups=4, name="layer"))
    dense = Bound(lambda b: layers.Dense(800, name="layer"))
    for model, x, fan_in in (
        (conv, normal((1, 4, 4, 128)), 9 * 32),
        (dense, normal((1, 50)), 50),
    ):
        for values in jax.tree.leaves(model.init(jax.random.key(0), x)):
            bound = fan_in**-0.5
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.98 * bound
            # A standard error of the variance is below 3 % for 800 values.
            np.testing.assert_allclose(np.var(values), bound**2 / 3, rtol=0.12)


def test_layers_compute_in_their_type_with_float32_parameters():
    x = normal((1, 4, 4, 5))
    for call in (lambda b: b.conv(2, 3, name="layer"), lambda b: b.norm(name="layer")):
        model = Bound(call, dtype=jnp.bfloat16)
        y, variables = model.init_with_output(jax.random.key(0), x)
        assert y.dtype == jnp.bfloat16
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


def updated(model, variables, x):
    _, updates = model.apply(variables, x, mutable=["batch_stats"])
    return {**variables, **updates}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_and_statistics_are_float32_under_x64(dtype):
    x = normal((2, 4, 4, 5), dtype=dtype)
    for call in (
        lambda b: b.conv(2, 3, bias=True, name="layer"),
        lambda b: b.norm(name="layer"),
        lambda b: lambda x: layers.Dense(3, name="layer")(x.reshape(2, -1)),
    ):
        model = Bound(call, train=True)
        variables = model.init(jax.random.key(0), x)
        for tree in (variables, updated(model, variables, x)):
            assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("f4")}
        assert model.apply(variables, x, mutable=["batch_stats"])[0].dtype == dtype


@pytest.mark.usefixtures("x64")
def test_initial_values_under_x64_are_those_without():
    x = normal((2, 5))
    dense = layers.Dense(3).init(jax.random.key(0), x)
    with jax.enable_x64(False):
        expected = layers.Dense(3).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, dense, expected)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_layers_promote_no_types_by_themselves(dtype):
    x = jnp.asarray(normal((6, 4, 4, 5)), dtype)
    with jax.numpy_dtype_promotion("strict"):
        for call in (
            lambda b: b.conv(2, 3, bias=True, name="layer"),
            lambda b: b.norm(name="layer", mask=MASK),
            lambda b: b.dropout(),
            lambda b: ss.SpatialSmoothing(norm=b.norm),
            lambda b: lambda x: layers.Dense(3, name="layer")(x.reshape(6, -1)),
        ):
            model = Bound(call, train=True, rate=0.5, dtype=dtype)
            rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
            variables = model.init(rngs, x)
            dropout = {"dropout": rngs["dropout"]}
            model.apply(variables, x, rngs=dropout, mutable=["batch_stats"])


def test_dropout_is_live_exactly_when_its_key_is_given():
    x = np.ones((200, 100), np.float32)
    rngs = {"dropout": jax.random.key(0)}
    for mode in (False, True):
        model = Bound(lambda b: b.dropout(), train=mode, rate=0.3)
        y = model.apply({}, x, rngs=rngs)
        np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
        assert abs((y == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / y.size)
    mean_network = Bound(lambda b: b.dropout(), rate=0.3)
    np.testing.assert_array_equal(mean_network.apply({}, x), x)


def test_training_with_dropout_needs_a_key():
    model = Bound(lambda b: b.dropout(), train=True, rate=0.3)
    message = "training with dropout rate 0.3 needs a key; pass rngs={'dropout': key}"
    with pytest.raises(ValueError, match=message):
        model.apply({}, normal())
    no_dropout = Bound(lambda b: b.dropout(), train=True)
    np.testing.assert_array_equal(no_dropout.apply({}, normal()), normal())


def evaluated(*, dtype=None, epsilon=layers.EPSILON, precomputed=True):
    """A convolution, a norm and a dense layer in evaluation, and their variables."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            of = layers.bind(self, train=False, mask=None, rate=0.0, dtype=dtype)
            x = of.conv(7, 3, name="conv")(x)
            x = of.norm(relu=True, epsilon=epsilon, name="norm")(x)
            return layers.Dense(3, name="dense")(x.mean((1, 2)))

    x, net = normal(), Net()
    variables = net.init(jax.random.key(0), x)
    rng = np.random.default_rng(2)
    statistics = {name: 0.5 + rng.random(7, np.float32) for name in ("mean", "var")}
    variables = {**variables, "batch_stats": {"norm": statistics}}
    if precomputed:
        compute_dtype = np.dtype(np.float32)
        variables = layers.precomputed(
            variables, dtype=dtype, compute_dtype=compute_dtype
        )
    return net.apply(variables, x), variables


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_precomputed_variables_change_no_result(dtype):
    expected, variables = evaluated(dtype=dtype, precomputed=False)
    y, found = evaluated(dtype=dtype)
    np.testing.assert_array_equal(y, expected)
    kernels = {name: found["params"][name]["kernel"] for name in ("conv", "dense")}
    assert kernels["conv"].dtype == (dtype or "float32")
    assert kernels["dense"].dtype == "float32"  # logits are not rounded
    params, stats = variables["params"]["norm"], found["batch_stats"]["norm"]
    factor = params["scale"] / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(stats[layers.FACTOR], factor, rtol=1e-6)


def test_the_precomputed_factor_is_used():
    _, variables = evaluated()
    stats = variables["batch_stats"]["norm"]
    norm = {
        "params": variables["params"]["norm"],
        "batch_stats": {**stats, layers.FACTOR: 0 * stats[layers.FACTOR]},
    }
    x = normal((2, 3, 3, 7))
    layer = layers.BatchNorm(use_running_average=True)
    np.testing.assert_array_equal(layer.apply(norm, x), 0 * x)


def test_a_norm_of_another_epsilon_computes_its_own_factor():
    expected, _ = evaluated(epsilon=0.1, precomputed=False)
    np.testing.assert_array_equal(evaluated(epsilon=0.1)[0], expected)
