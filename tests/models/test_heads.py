import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import models
from spatial_smoothing.layers import Layers
from spatial_smoothing.models import heads

KEY = jax.random.key(0)
LAYERS = Layers(conv=None, norm=None, dropout=lambda: lambda x: x, conv_transpose=None)


def feature_map(shape=(3, 4, 5, 6), *, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def median(x):
    """The k-th largest of n values of each channel, k = n // 2, at least 1."""
    values = np.sort(x.reshape(len(x), -1, x.shape[-1]), axis=1)[:, ::-1]
    return values[:, max(values.shape[1] // 2, 1) - 1]


POOLS = {
    "gap": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
    "median": median,
    "gap_clip": lambda x: 3 * (1 / (1 + np.exp(-x.mean((1, 2)) / 3)) - 0.5),
}


def dense(x, params):
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])[None]


def build(kind, **fields):
    return heads.head(kind, num_classes=7, layers=LAYERS, **fields)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 5, 5, 6), (3, 1, 1, 6)])
@pytest.mark.parametrize("kind", POOLS)
def test_pooling_heads_equal_numpy(kind, shape):
    x = feature_map(shape)
    logits, variables = build(kind, temperature=3.0).init_with_output(KEY, x)
    expected = dense(POOLS[kind](x), variables["params"]["dense"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["gap_mlp", "mlp"])
def test_perceptron_heads_equal_numpy(kind):
    x = feature_map()
    head = build(kind, hidden=(11, 12), grid=2)
    logits, variables = head.init_with_output(KEY, x)
    hidden = x.mean((1, 2))
    if kind == "mlp":  # flattened in the order channel, row, column
        hidden = np.stack([pooled(image, 2).transpose(2, 0, 1).ravel() for image in x])
    for name in ("dense1", "dense2"):
        hidden = np.maximum(dense(hidden, variables["params"][name]), 0)
    expected = dense(hidden, variables["params"]["dense3"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def pooled(image, size):
    """Adaptive average pool of one map [H, W, C], by the definition."""
    result = np.empty((size, size, image.shape[-1]))
    windows = [
        [slice(i * n // size, -((i + 1) * n // -size)) for i in range(size)]
        for n in image.shape[:2]
    ]
    for row, rows in enumerate(windows[0]):
        for column, columns in enumerate(windows[1]):
            result[row, column] = image[rows, columns].mean((0, 1))
    return result


@pytest.mark.parametrize("sides", [(1, 1), (5, 4), (7, 7), (8, 14), (15, 3)])
def test_adaptive_average_pool_equals_its_definition(sides):
    x = feature_map((2, *sides, 3))
    actual = heads.adaptive_average_pool(x, 7)
    expected = np.stack([pooled(image, 7) for image in x])
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_dropout_of_perceptrons_is_live_in_training_only():
    x = feature_map()
    variables = build("mlp", hidden=(64,), grid=2).init(KEY, x)
    params = variables["params"]

    def apply(key, train):
        head = build("mlp", hidden=(64,), grid=2, train=train)
        return head.apply(variables, x, rngs={"dropout": key})

    expected = apply(KEY, False)
    np.testing.assert_array_equal(expected, apply(jax.random.key(1), False))
    keys = jax.random.split(KEY, 2000)
    samples = np.asarray(jax.vmap(lambda key: apply(key, True))(keys))
    # Linear in the one layer that is dropped: mean and, at rate 1/2, variance follow.
    spread = np.stack([pooled(image, 2).transpose(2, 0, 1).ravel() for image in x])
    hidden = np.maximum(dense(spread, params["dense1"]), 0)
    variance = (hidden**2) @ (np.asarray(params["dense2"]["kernel"]) ** 2)
    assert (np.abs(samples.mean(0) - expected) < 5 * np.sqrt(variance / 2000)).all()
    np.testing.assert_allclose(samples.var(0), variance, rtol=0.2)


def test_perceptrons_are_not_trained_without_a_key():
    x = feature_map()
    variables = build("mlp", hidden=(4,)).init(KEY, x)
    with pytest.raises(
        ValueError, match=r"training with dropout rate 0\.5 needs a key"
    ):
        build("mlp", hidden=(4,), train=True).apply(variables, x)


@pytest.mark.parametrize("temperature", [1e8, np.inf])
def test_a_bound_without_effect_divides_by_four(temperature):
    """The bounded values are t (sigmoid(g / t) - 1/2), about g / 4 for a large t."""
    x = feature_map()
    head = build("gap_clip", temperature=temperature)
    logits, variables = head.init_with_output(KEY, x)
    expected = dense(x.mean((1, 2)) / 4, variables["params"]["dense"])
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("kind", sorted({*heads.HEADS} - {"bn_gap"}))
def test_empty_batches_have_no_logits(kind):
    head = build(kind, **({"hidden": (4,)} if "mlp" in kind else {}))
    variables = jax.eval_shape(head.init, KEY, feature_map((2, 3, 3, 6)))
    empty = np.zeros((0, 3, 3, 6), np.float32)
    assert jax.eval_shape(head.apply, variables, empty).shape == (0, 7)


def test_normalising_head_comes_with_statistics():
    model = models.build("preresnet_dnn_18", num_classes=7, width=4, stages=(1,))
    x = feature_map((2, 8, 8, 3))
    variables = golden.variables(model, x)
    logits, state = model.apply(variables, x, mutable=["intermediates"])
    (last,) = state["intermediates"]["stage1"]
    head, stats = variables["params"]["head"], variables["batch_stats"]["head"]["norm"]
    row = lambda values: np.asarray(values)[None, None, None]
    normalised = (last - row(stats["mean"])) / np.sqrt(row(stats["var"]) + 1e-5)
    affine = row(head["norm"]["scale"]) * normalised + row(head["norm"]["bias"])
    expected = dense(np.maximum(affine, 0).mean((1, 2)), head["dense"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_logits_of_bfloat16_maps_are_float32():
    x = feature_map().astype(jnp.bfloat16)
    for kind in POOLS:
        logits, variables = build(kind).init_with_output(KEY, x)
        assert logits.dtype == np.float32
        assert variables["params"]["dense"]["kernel"].dtype == np.float32
