import math
import zlib

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing import models
from spatial_smoothing.analysis import directions, landscape
from spatial_smoothing.data import augment, batches
from spatial_smoothing.runtime import sharding

KEY = jax.random.key(0)
NORMALIZATIONS = {"filter": "li", "reference": "dir"}
plain = lambda key, images: images


@pytest.fixture(scope="module")
def reference():
    return golden.arrays("landscape")


def kernels(reference, tag):
    """Returns the kernels called so in the golden values, in Flax's layout."""
    return {
        "conv": reference[f"{tag}_conv_w"].transpose(2, 3, 1, 0),
        "dense": reference[f"{tag}_fc_w"].T,
    }


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_directions_are_normalised_as_in_the_reference(reference, x64, name, number):
    params = {**kernels(reference, "p"), "bias": jnp.ones(4)}
    drawn = {**kernels(reference, f"raw{number}"), "bias": jnp.ones(4)}
    expected = kernels(reference, f"{NORMALIZATIONS[name]}{number}")
    actual = directions.normalize(drawn, params, normalization=name)
    for layer, values in expected.items():
        np.testing.assert_allclose(actual[layer], values, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(actual["bias"], 0)


def test_drawn_directions_have_the_norms_of_the_filters():
    rng = np.random.default_rng(0)
    params = {
        "kernel": np.float32(rng.normal(size=(3, 3, 4, 8))),
        "scale": np.ones(8, np.float32),
    }
    one, other = directions.draw(KEY, params)
    for drawn in (one, other):
        norms = [
            np.linalg.norm(tree["kernel"].reshape(-1, 8), axis=0)
            for tree in (drawn, params)
        ]
        np.testing.assert_allclose(*norms, rtol=1e-5)
    cosine = np.vdot(one["kernel"], other["kernel"]) / np.vdot(
        one["kernel"], one["kernel"]
    )
    assert abs(cosine) < 0.2


def test_unknown_normalisations_are_refused():
    with pytest.raises(ValueError, match="unknown normalization 'filters'; did you"):
        directions.draw(KEY, {"bias": jnp.ones(2)}, normalization="filters")


def linear(reference):
    """The network of the golden values, a convolution and a dense layer."""
    model = models.build(
        "resnet_dnn_18", num_classes=5, width=4, stages=(), smoothing=()
    )
    p = kernels(reference, "p")
    norm = {
        name: reference[f"p_bn_{name}"] for name in ("scale", "bias", "mean", "var")
    }
    params = {
        "stem_conv": {"kernel": p["conv"]},
        "stem_norm": {"scale": norm["scale"], "bias": norm["bias"]},
        "head": {"dense": {"kernel": p["dense"], "bias": reference["p_fc_b"]}},
    }
    statistics = {"stem_norm": {"mean": norm["mean"], "var": norm["var"]}}
    shifts = []
    for number in range(2):
        d = kernels(reference, f"dir{number}")
        direction = jax.tree.map(jnp.zeros_like, params)
        direction["stem_conv"]["kernel"] = d["conv"]
        direction["head"]["dense"]["kernel"] = d["dense"]
        shifts.append(direction)
    return model, {"params": params, "batch_stats": statistics}, tuple(shifts)


def reference_batches(reference, size):
    images = reference["x"].transpose(0, 2, 3, 1)
    return batches.sequential(images, np.int32(reference["y"]), batch_size=size)


def test_scan_equals_the_reference_grid(reference, x64):
    model, variables, shifts = linear(reference)
    points = landscape.grid(reference["coords"], reference["coords"])
    rows = landscape.scan(
        model,
        variables,
        shifts,
        points,
        reference_batches(reference, 20),
        key=KEY,
        prepare=plain,
        weight_decay=5e-4,
    )
    found = landscape.surfaces(rows)
    names = {"nll": "nll", "accuracy": "acc", "l1": "l1", "l2": "l2"}
    for name, tag in {**names, "sqnorm": "sqnorm"}.items():
        np.testing.assert_allclose(found[name], reference[tag], rtol=1e-9)
    np.testing.assert_allclose(
        found["nll_l2"], reference["nll"] + 2.5e-4 * reference["sqnorm"], rtol=1e-9
    )
    np.testing.assert_allclose(
        found["nll_l2_reference"], reference["nll"] + 5e-4 * reference["l2"], rtol=1e-9
    )


def test_grid_has_the_order_of_the_reference(reference):
    points = landscape.grid(*[np.linspace(-0.1, 0.1, 3)] * 2)
    np.testing.assert_allclose(points, reference["order3"], atol=1e-12)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (13, 8, 8, 3)).astype(np.uint8)
    return images, rng.integers(0, 5, 13).astype(np.int32)


def prepare(key, images):
    return scaled(key, augment.crop_and_flip(key, images))


def scaled(key, images):
    return augment.normalize(images, mean=(0.5,) * 3, std=(0.25,) * 3)


def scan(reference, data, points, **options):
    model, variables, shifts = linear(reference)
    to_float32 = lambda tree: jax.tree.map(np.float32, tree)
    defaults = {"key": KEY, "prepare": prepare, "mesh": sharding.mesh(1)}
    return landscape.scan(
        model,
        to_float32(variables),
        to_float32(shifts),
        points,
        batches.sequential(*data, batch_size=8),
        **{**defaults, **options},
    )


def test_all_points_share_one_compilation_and_random_numbers(reference, data):
    traces = []

    def counted(key, images):
        traces.append(images)
        return prepare(key, images)

    points = [(0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (1e30, 0.0), (0.25, 0.25)]
    first, again, second, far, last = scan(reference, data, points, prepare=counted)
    assert len(traces) == 1
    assert first == again
    assert len({row["nll"] for row in (first, second, last)}) == 3
    # It overflows: that is said, and the scan goes on.
    assert math.isnan(far["nll"])
    assert math.isfinite(last["nll"])


def test_points_follow_the_keys_of_a_plain_loop(data):
    model = models.build("resnet_mcdo_18", num_classes=5, width=4, stages=(1,))
    variables = golden.variables(model, jnp.zeros((1, 8, 8, 3)))
    shifts = directions.draw(jax.random.key(1), variables["params"])
    params = jax.tree.map(
        lambda p, x, y: p + 0.5 * x - 0.25 * y, variables["params"], *shifts
    )

    @jax.jit
    def predict(index, images):
        prepare_key, dropout_key = jax.random.split(jax.random.fold_in(KEY, index))
        sample = jax.random.fold_in(dropout_key, 0)
        logits = model.apply(
            {**variables, "params": params},
            prepare(prepare_key, images),
            rngs={"dropout": sample},
        )
        return jax.nn.log_softmax(logits)

    total = 0.0
    for index, batch in enumerate(batches.sequential(*data, batch_size=8)):
        log_probs = np.asarray(predict(index, batch["image"]))
        total -= log_probs[np.arange(8), batch["label"]][batch["mask"]].sum()
    (row,) = landscape.scan(
        model,
        variables,
        shifts,
        [(0.5, -0.25)],
        batches.sequential(*data, batch_size=8),
        key=KEY,
        prepare=prepare,
        mesh=sharding.mesh(1),
    )
    assert row["nll"] == pytest.approx(total / 13, rel=1e-5)


def test_points_are_the_same_on_many_devices_and_after_an_interruption(reference, data):
    points = landscape.grid((-0.5, 0.0, 0.5), (0.0, 0.5))
    one = list(scan(reference, data, points))
    done = {(row["a"], row["b"]) for row in one[:2]}
    mesh = sharding.mesh(4)
    rest = list(scan(reference, data, points, mesh=mesh, done=done))
    assert [(row["a"], row["b"]) for row in rest] == points[2:]
    one, many = landscape.surfaces(one), landscape.surfaces(one[:2] + rest)
    for name, values in one.items():
        np.testing.assert_allclose(values, many[name], rtol=1e-6)


def test_surfaces_show_what_is_missing():
    rows = [{"a": a, "b": 0.5, "nll": a} for a in (2.0, 1.0)]
    found = landscape.surfaces([*rows, {"a": 2.0, "b": -0.5, "nll": 3.0}])
    np.testing.assert_array_equal(found["a"], [1, 2])
    np.testing.assert_array_equal(found["b"], [-0.5, 0.5])
    np.testing.assert_array_equal(found["nll"], [[np.nan, 3], [1, 2]])


def test_curvature_is_that_of_the_quadratic_function_that_fits():
    a, b = np.linspace(-0.1, 0.1, 7), np.linspace(-0.2, 0.2, 5)
    x, y = np.meshgrid(a, b)
    values = 0.5 - x + 0.2 * y + 0.5 * (30 * x**2 + 2 * 7 * x * y + 10 * y**2)
    values[0, 3] = np.nan  # where the network overflowed
    mean, residual = landscape.curvature(a, b, values)
    assert mean == pytest.approx(20)
    assert residual == pytest.approx(0, abs=1e-12)
    noise = np.random.default_rng(0).normal(0, 0.01, values.shape)
    assert landscape.curvature(a, b, values + noise)[1] == pytest.approx(0.01, rel=0.3)
    values.ravel()[5:] = np.nan  # five values cannot tell six terms
    assert np.isnan(landscape.curvature(a, b, values)).all()


def test_statistics_can_be_estimated_anew(reference, data):
    """Against NumPy: mean and unbiased variance of what the layer is given."""
    images, labels = data
    _, variables, (d0, _) = linear(reference)
    kernel = variables["params"]["stem_conv"]["kernel"] + d0["stem_conv"]["kernel"] / 2
    x = np.asarray(scaled(None, images))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, i : i + 8, j : j + 8] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    # Two batches count by their examples.
    parts = [(8, y[:8]), (5, y[8:])]
    mean = sum(n * part.mean((0, 1, 2)) for n, part in parts) / 13
    var = sum(n * part.var((0, 1, 2), ddof=1) for n, part in parts) / 13
    params = variables["params"]
    y = (y - mean) / np.sqrt(var + 1e-5)
    y = y * params["stem_norm"]["scale"] + params["stem_norm"]["bias"]
    dense = params["head"]["dense"]["kernel"] + d0["head"]["dense"]["kernel"] / 2
    logits = np.maximum(y, 0).mean((1, 2)) @ dense + params["head"]["dense"]["bias"]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    (row, _) = scan(
        reference,
        data,
        [(0.5, 0.0), (0.0, 0.0)],
        prepare=scaled,
        recalibration=batches.sequential(*data, batch_size=8),
        mesh=sharding.mesh(2),
    )
    assert row["nll"] == pytest.approx(-log_probs[np.arange(13), labels].mean(), 1e-5)


def raw_directions(layout):
    """The two directions of the golden values, as PyTorch state dictionaries."""
    for number in range(2):
        state = {}
        for key, *shape in layout:
            rng = np.random.default_rng(zlib.crc32(f"basis{number}:{key}".encode()))
            state[key] = rng.standard_normal(shape).astype(np.float32)
        yield state


@pytest.mark.slow
def test_landscape_of_a_resnet_equals_golden_values(reference):
    layout = golden.table("layouts")["cifar/resnet_dnn_18"]
    model = models.build("resnet_dnn_18", num_classes=100)
    flax = lambda state: ss.convert.from_pytorch(
        "resnet_dnn_18", state, num_classes=100
    )
    variables = flax(golden.state_dict(layout))
    drawn = [flax(state)["params"] for state in raw_directions(layout)]
    shifts = tuple(
        directions.normalize(d, variables["params"], normalization="reference")
        for d in drawn
    )
    for shift, expected in zip(shifts, reference["resnet_dnn_18/bases"], strict=True):
        state = ss.convert.to_pytorch(
            "resnet_dnn_18", {**variables, "params": shift}, num_classes=100
        )
        rows = [statistics(key, state) for key, *_ in layout]
        scale = np.abs(expected[:, 1:]).max(0)
        np.testing.assert_allclose(rows / scale, expected[:, 1:] / scale, atol=1e-5)
    labels = np.int32([46, 7, 46, 21, 53, 35, 94, 49])
    rows = list(
        landscape.scan(
            model,
            variables,
            shifts,
            reference["resnet_dnn_18/grid/ratios"],
            batches.sequential(golden.images(3, 8, 32), labels, batch_size=8),
            key=KEY,
            prepare=plain,
            num_samples=0,
            mesh=sharding.mesh(1),
        )
    )
    for name in ("nll", "accuracy", "brier", "ece"):
        values = [row[name] for row in rows]
        expected = reference[f"resnet_dnn_18/grid/{name}"]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def statistics(key, state):
    """Of a direction, the columns of the golden values."""
    moves = np.ndim(state.get(key, 0)) > 1
    flat = np.float64(state[key]).ravel() if moves else np.zeros(1)
    norm, places = np.linalg.norm(flat), (0, flat.size // 2, -1)
    return [norm, flat.sum(), np.abs(flat).sum(), *flat[list(places)]]
