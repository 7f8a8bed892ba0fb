import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import models
from spatial_smoothing.analysis import features
from spatial_smoothing.data import batches

KEY = jax.random.key(0)
scaled = lambda images: images.astype(jnp.float32) / 64 - 2


@pytest.fixture(scope="module")
def network():
    model = models.build(
        "resnet_mcdo_smoothing_18", num_classes=3, width=4, stages=(2,)
    )
    variables = golden.variables(model, jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    return model, variables, images


@pytest.mark.parametrize("ddof", [0, 1])
def test_variance_over_samples_equals_the_reference(x64, ddof):
    reference = golden.arrays("maps")
    samples = jnp.asarray(reference["mc"].transpose(0, 1, 3, 4, 2))
    moments, _ = features.streamed(lambda i: {"x": samples[i]}, len(samples))
    variance = moments["x"][1] / (len(samples) - ddof)
    np.testing.assert_allclose(variance.mean(), reference[f"mc_var_ddof{ddof}"])
    np.testing.assert_allclose(
        jnp.sqrt(variance).mean(), reference[f"mc_std_ddof{ddof}"]
    )


def test_variance_over_space_equals_the_reference(x64):
    reference = golden.arrays("maps")
    found = features.over_space({"x": reference["x8"].transpose(0, 2, 3, 1)}, 1)["x"]
    np.testing.assert_allclose(found["space_variance"].mean(), reference["spatial_var"])
    np.testing.assert_allclose(
        found["space_deviation"].mean(), reference["spatial_std"]
    )


def test_streamed_moments_survive_a_large_mean():
    """Where a sum of squares has no digits left in float32."""
    values = np.float32(1e4 + np.random.default_rng(0).normal(size=(50, 3)))
    moments, sums = features.streamed(
        lambda i: {"x": jnp.asarray(values)[i]}, 50, also=lambda maps: maps["x"]
    )
    mean, squares = moments["x"]
    wide = values.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(squares / 50, wide.var(0), rtol=1e-2)
    np.testing.assert_allclose(sums, wide.sum(0), rtol=1e-6)


def test_taps_come_in_the_order_of_the_network(network):
    model, variables, images = network
    names = features.tap_names(model, variables, images.astype(np.float32))
    assert names == ["stem", "stage1", "smooth1"]
    blocks = features.tap_names(
        model, variables, images.astype(np.float32), blocks=True
    )
    assert blocks == ["stem", "stage1_block0", "stage1_block1", "smooth1"]


def loop(network, *, ddof, num_samples, over="samples"):
    """The statistics by one pass after another, in NumPy."""
    model, variables, images = network
    apply = jax.jit(
        lambda images, key: features.taps(model, variables, images, key=key)
    )
    parts = []
    for number, start in enumerate((0, 4)):
        key = jax.random.fold_in(KEY, number)
        part = images[start : start + 4]
        if over == "samples":
            runs = [
                apply(scaled(part), jax.random.fold_in(key, i))
                for i in range(num_samples)
            ]
        else:
            runs = [apply(scaled(np.roll(part, i, 1)), key) for i in range(3)]
        parts.append(runs)
    found = {}
    for name in ("stem", "stage1", "smooth1"):
        x = np.concatenate([[run[name] for run in runs] for runs in parts], 1)
        variance, space = x.var(0, ddof=ddof), x.var((2, 3), ddof=ddof)
        found[name] = {
            "variance": variance.mean(),
            "deviation": np.sqrt(variance).mean(),
            "space_variance": space.mean(),
            "space_deviation": np.sqrt(space).mean(),
        }
    return found


def frames(network, size):
    """Batches of three frames, each a shift of the one before, the last one padded."""
    for batch in batches.sequential(network[2], np.zeros(7, np.int32), batch_size=size):
        image = np.stack([np.roll(batch["image"], i, 1) for i in range(3)])
        yield {**batch, "image": image}


@pytest.mark.parametrize(("over", "ddof"), [("samples", 1), ("frames", 0)])
def test_variance_equals_a_plain_loop(network, over, ddof):
    model, variables, images = network
    if over == "frames":
        data = frames(network, 4)
    else:
        data = batches.sequential(images, np.zeros(7, np.int32), batch_size=4)
    options = {"num_samples": 3, "over": over, "ddof": ddof}
    rows = features.variance(model, variables, data, key=KEY, prepare=scaled, **options)
    expected = loop(network, **options)
    assert [row["tap"] for row in rows] == ["stem", "stage1", "smooth1"]
    for row in rows:
        for name, value in expected[row["tap"]].items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_sample_maps_are_two_samples_and_the_variance_of_all(network):
    model, variables, images = network
    x = scaled(images[:2])
    maps = features.sample_maps(KEY, model, variables, x, num_samples=4)
    apply = jax.jit(
        lambda i: features.taps(model, variables, x, key=jax.random.fold_in(KEY, i))
    )
    runs = [apply(i) for i in range(4)]
    assert list(maps) == ["stem", "stage1", "smooth1"]
    for name, found in maps.items():
        stacked = np.stack([run[name] for run in runs])
        np.testing.assert_allclose(found["samples"], stacked[:2], rtol=1e-4, atol=1e-5)
        expected = stacked.var(0, ddof=1)
        np.testing.assert_allclose(found["variance"], expected, rtol=1e-3, atol=1e-5)


def test_unusable_requests_are_refused(network):
    model, variables, images = network
    with pytest.raises(ValueError, match=r"unknown choice .* 'sample'; did you mean"):
        features.compile_sums(model, prepare=scaled, over="sample")
    with pytest.raises(ValueError, match="with ddof 1 needs more than 1, got 1"):
        features.compile_sums(model, prepare=scaled, num_samples=1)
    with pytest.raises(ValueError, match="nothing to analyse: no batches"):
        features.variance(model, variables, [], key=KEY, prepare=scaled)
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        features.sample_maps(KEY, model, variables, images, num_samples=1)
