import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing.models import segmentation

NAMES = [
    *("unet", "unet_dnn", "unet_dnn_smoothing", "unet_mcdo", "unet_mcdo_smoothing"),
    *("segnet", "segnet_dnn", "segnet_dnn_smoothing"),
    *("segnet_mcdo", "segnet_mcdo_smoothing"),
]
FAMILIES = pytest.mark.parametrize("family", ["unet", "segnet"])
KEY = jax.random.key(0)
LIVE = {"dropout": jax.random.key(1)}


def images(height=13, width=10, count=2):
    return jax.random.normal(KEY, (count, height, width, 3))


@functools.cache
def small(name, *, shape=(13, 10), **overrides):
    """Returns a narrow network of three levels, and variables for it."""
    overrides = {"stages": (1, 2, 1), "width": 4, **overrides}
    model = ss.models.build(name, num_classes=5, **overrides)
    return model, jax.jit(model.init)(KEY, images(*shape))


def apply(model, variables, x, **options):
    rngs = options.pop("rngs", {})
    run = functools.partial(model.apply, **options)
    return jax.jit(run)(variables, x, rngs=rngs)


def test_names_are_a_group_beside_the_92():
    assert len(ss.models.names()) == 92
    assert ss.models.names(group="segmentation") == NAMES
    assert not set(NAMES) & set(ss.models.names())
    for name in NAMES:
        model = ss.models.build(name, num_classes=11, width=64)
        assert model.rate == (0.5 if "mcdo" in name else 0)
        assert model.smoothing == ((1, 1, 1, 1, 0) if "smooth" in name else (0,) * 5)
    model = ss.models.build("unet", num_classes=2, stages=(1, 1), rate=0.5)
    assert model.smoothing == (0, 0)


def conv_weights(channels, size=3, bias=True, norm=True):
    """Returns the number of weights of convolutions, given their channels in a row."""
    return sum(
        size * size * a * b + (b if bias else 0) + (2 * b if norm else 0)
        for a, b in itertools.pairwise(channels)
    )


def test_numbers_of_parameters_are_those_of_the_reference():
    """Channels as they are listed for the networks of temporal smoothing."""
    encoder = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 3]
    unet = conv_weights([*encoder, *[1024] * 3])
    for above, below, count in ((1024, 512, 3), (512, 256, 3), (256, 128, 3)):
        unet += conv_weights([above, below], bias=False)
        unet += conv_weights([below] * (count + 1))
    unet += conv_weights([128, 64], bias=False) + conv_weights([64] * 3)
    segnet = conv_weights([*encoder, *[512] * 6, 512, 512, 256])
    segnet += conv_weights([256, 256, 256, 128, 128, 64, 64])
    for name, expected in (("unet", unet), ("segnet", segnet)):
        model = ss.models.build(name, num_classes=11, width=64)
        shapes = jax.eval_shape(model.init, KEY, images(360, 480))
        found = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        assert found == expected + 64 * 11 + 11


@FAMILIES
@pytest.mark.parametrize("padding", ["zero", "full"])
def test_logits_have_the_size_of_the_image(family, padding):
    for height, width in ((37, 53), (16, 9), (1, 2)):
        model, _ = small(f"{family}_dnn_smoothing", padding=padding)
        shapes = jax.eval_shape(
            lambda x, model=model: model.init_with_output(KEY, x)[0],
            images(height, width),
        )
        assert shapes.shape == (2, height, width, 5)
        assert shapes.dtype == jnp.float32


@FAMILIES
def test_dropout_is_live_exactly_with_a_key_and_drops_single_values(family):
    model, variables = small(f"{family}_mcdo", rate=0.5)
    x = images()
    still = apply(model, variables, x)
    np.testing.assert_array_equal(still, apply(model, variables, x))
    one = apply(model, variables, x, rngs=LIVE)
    assert (one != still).any()
    np.testing.assert_array_equal(one, apply(model, variables, x, rngs=LIVE))
    other = apply(model, variables, x, rngs={"dropout": jax.random.key(2)})
    assert (one != other).any()
    with pytest.raises(ValueError, match="needs a key"):
        model.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("family", "places"), [("unet", None), ("unet", (4, "head")), ("segnet", None)]
)
def test_halves_make_the_whole(family, places):
    model, variables = small(f"{family}_mcdo_smoothing", mc_stages=places)
    x = images()
    features = apply(model, variables, x, half="deterministic")
    again = apply(model, variables, x, half="deterministic", rngs=LIVE)
    jax.tree.map(np.testing.assert_array_equal, features, again)
    found = apply(model, variables, features, half="stochastic", rngs=LIVE)
    expected = apply(model, variables, x, rngs=LIVE)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # The samples of Monte Carlo dropout share the first half.
    logits = ss.ensembles.mc_logits(KEY, model, variables, x, num_samples=2)
    assert logits.shape == (2, 2, 13, 10, 5)
    assert (logits[0] != logits[1]).any()


def test_dropout_is_where_the_reference_has_it():
    """Stages whose output differs from that without dropout come behind a dropout."""
    # Of three levels, dropout follows the third one, and all of the decoder but its
    # last stage, or last two stages.
    for family, stages in {"unet": {4, 5}, "segnet": {4, 5, 6}}.items():
        model, variables = small(f"{family}_mcdo")
        capture = {"mutable": ["intermediates"]}
        still, live = (
            apply(model, variables, images(), rngs=rngs, **capture)[1]
            for rngs in ({}, LIVE)
        )
        changed = {
            int(name.removeprefix("stage"))
            for name, (value,) in still["intermediates"].items()
            if name.startswith("stage")
            and (value != live["intermediates"][name][0]).any()
        }
        assert changed == stages
        # Of five levels: encoder 3, 4, 5 and decoder 6, 7, 8 of both.
        network = ss.models.build(f"{family}_mcdo", num_classes=2)
        assert network.default_dropout() == {3, 4, 5, 6, 7, 8}
    with pytest.raises(ValueError, match="mc_stages"):
        small("unet_mcdo", mc_stages=(7,))


@FAMILIES
def test_smoothing_acts_before_each_pool_of_the_encoder(family):
    model, variables = small(f"{family}_dnn_smoothing", taps=(1, 2, 1))
    _, found = apply(model, variables, images(), mutable=["intermediates"])
    found = {name: value[0] for name, value in found["intermediates"].items()}
    numbers = range(1, 6 if family == "unet" else 7)
    assert found.keys() == {
        *(f"stage{number}" for number in numbers),
        *("smooth1", "smooth2", "logits"),
    }
    for number in (1, 2):
        expected = ss.smooth(found[f"stage{number}"], taps=(1, 2, 1), padding="zero")
        np.testing.assert_allclose(
            found[f"smooth{number}"], expected, rtol=1e-5, atol=1e-6
        )
    plain, _ = small(f"{family}_dnn", taps=(1, 2, 1))
    assert (found["logits"] != apply(plain, variables, images())).any()


@FAMILIES
def test_smoothing_is_inserted_before_the_pools(family):
    """A network without smoothing gets it from outside, at the same places."""
    plain, variables = small(f"{family}_dnn")
    inserted = ss.add_smoothing(plain, padding="zero")
    found = jax.jit(inserted.apply)(variables, images())
    if family == "segnet":
        # What it unpools is where the maxima were before.
        assert (found != apply(plain, variables, images())).any()
        return
    smoothed, _ = small("unet_dnn_smoothing")
    expected = apply(smoothed, variables, images())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@FAMILIES
def test_training_updates_statistics_over_the_images_in_the_mask(family):
    model, variables = small(f"{family}_dnn")
    x = images(count=3)

    def updated(x, mask):
        _, changes = apply(
            model, variables, x, train=True, mask=mask, mutable=["batch_stats"]
        )
        return changes["batch_stats"]

    masked = updated(x, jnp.array([True, True, False]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        masked,
        updated(x[:2], None),
    )
    before = variables["batch_stats"]["stage1_block0"]["norm"]["mean"]
    assert (masked["stage1_block0"]["norm"]["mean"] != before).all()


def test_bfloat16_has_float32_parameters_and_logits():
    model, variables = small("unet_mcdo_smoothing", dtype=jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    logits = apply(model, variables, images(), rngs=LIVE)
    assert logits.dtype == jnp.float32
    wide = apply(small("unet_mcdo_smoothing")[0], variables, images(), rngs=LIVE)
    assert np.abs(logits - wide).max() < 0.1 * np.abs(wide).max() + 0.05
    # What samples share does not round the head, which makes logits in float32.
    precomputed = ss.ensembles.as_apply(model).precomputed(variables, images())
    kernels = precomputed["params"]
    assert kernels["stage1_block0"]["conv"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        apply(model, precomputed, images(), rngs=LIVE), logits
    )


def test_dropout_of_channels_and_what_is_for_classifiers():
    model, variables = small("unet_mcdo", mc_stages=("head",))
    noisy = model.clone(mask="channel")
    logits = apply(noisy, variables, images(), rngs=LIVE)
    assert (logits != apply(model, variables, images(), rngs=LIVE)).any()
    # A dropped channel takes the same from the logits of a pixel as its weight says:
    # differences to those without dropout are products with one mask for all pixels.
    features = apply(model, variables, images(), half="deterministic").x
    kernel = np.asarray(variables["params"]["head"]["kernel"])[0, 0]
    features, logits = np.asarray(features), np.asarray(logits)
    still = np.asarray(apply(model, variables, images()))
    masks = [np.array([k >> c & 1 for c in range(4)]) * 2.0 for k in range(16)]
    for found, x, base in zip(logits, features, still, strict=True):
        errors = [np.abs(base + (x * (m - 1)) @ kernel - found).max() for m in masks]
        assert min(errors) < 1e-4
    for field, value in (
        *(("stage_rates", (0.1,) * 3), ("dropout_placement", "all")),
        *(("ensemble", "batch"), ("spectral_bound", 3.0)),
    ):
        with pytest.raises(ValueError, match=f"{field} .* for classifiers"):
            model.clone(**{field: value}).apply(variables, images())
    with pytest.raises(ValueError, match="mask"):
        model.clone(mask="channels").apply(variables, images())


def test_unusable_images_and_halves_are_explained():
    model, variables = small("unet")
    with pytest.raises(ValueError, match="images are"):
        model.apply(variables, images()[0])
    with pytest.raises(ValueError, match="unknown half"):
        model.apply(variables, images(), half="first")
    with pytest.raises(ValueError, match=r"smoothing \(1, 1, 1\) must end with 0"):
        model.clone(smoothing=(1, 1, 1)).apply(variables, images())
    with pytest.raises(ValueError, match="unet is for segmentation"):
        ss.convert.from_pytorch("unet", {}, num_classes=3)


def test_pool_and_places_of_odd_maps():
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 7, 3)).astype(np.float32)
    places = np.asarray(segmentation.places_of_maxima(x))
    pooled = np.asarray(segmentation.pool(x))
    expected = np.zeros_like(places)
    for b, i, j, c in np.ndindex(2, 3, 4, 3):
        window = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        row, column = np.unravel_index(window.argmax(), window.shape)
        expected[b, 2 * i + row, 2 * j + column, c] = True
        assert pooled[b, i, j, c] == window.max()
    np.testing.assert_array_equal(places, expected)
    back = np.asarray(segmentation.unpool(pooled, places))
    np.testing.assert_array_equal(back, np.where(places, x, 0))
    # A NaN stays one: zeros in its place would look like a finite loss.
    x[0, 0, 0, 0] = np.nan
    places = segmentation.places_of_maxima(x)
    assert np.isnan(segmentation.unpool(segmentation.pool(x), places)).any()
