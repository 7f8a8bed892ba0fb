import functools
import math

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spatial_smoothing as ss

CASES = golden.table("models")
# More than 60 million parameters: drawing them takes seconds.
SLOW = ("vgg_mcdo_16", "vgg_dnn_smoothing_19", "wideresnet", "imagenet/alex", "mlp")
KEY = jax.random.key(0)
LIVE = {"dropout": jax.random.key(1)}


def cases():
    slow = lambda case: any(name in case for name in SLOW)
    return [
        pytest.param(case, marks=[pytest.mark.slow] if slow(case) else [])
        for case in CASES
    ]


def images(stem="cifar"):
    return golden.images(0, 2, 32) if stem == "cifar" else golden.images(1, 2, 224)


def small(name="resnet_mcdo_smoothing_18", **overrides):
    """Returns a narrow network of two stages, and variables for it."""
    overrides = {"stages": (1, 1), **overrides}
    model = ss.models.build(name, num_classes=5, width=8, **overrides)
    return model, golden.variables(model, images())


def compiled(model, variables, **options):
    """Returns a compiled `apply` on the images, as a function of rngs."""
    apply = functools.partial(model.apply, **options)
    return lambda **rngs: jax.jit(apply)(variables, images(), **rngs)


@pytest.mark.parametrize("case", cases())
def test_logits_equal_golden_values(case):
    row, expected = CASES[case], golden.arrays("models")
    options = {"num_classes": row["num_classes"], "stem": row["stem"]}
    model = ss.models.build(row["name"], **options, **row["overrides"])
    values = golden.state_dict(golden.table("layouts")[row["layout"]])
    variables = ss.convert.from_pytorch(
        row["name"], values, **options, **row["overrides"]
    )
    x = images(row["stem"])
    apply = functools.partial(model.apply, rngs=LIVE, mutable=["intermediates"])
    with golden.dropout_by_channel():
        logits, _ = apply(variables, x)
    assert_near(logits, expected[f"{case}/logits"], 2e-5)
    with jax.enable_x64(True), golden.dropout_by_channel():
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        logits, state = apply(variables, x.astype(np.float64))
        assert_near(logits, expected[f"{case}/logits64"], 1e-10)
        assert_near(state["intermediates"]["logits"][0], logits, 0)
        for stage, numbers in row.get("stages", {}).items():
            name = stage.replace("layer0", "stem").replace("layer", "stage")
            assert_near(statistics(state["intermediates"][name][0]), numbers, 1e-10)


def assert_near(actual, expected, tolerance):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def statistics(x):
    """What is recorded of a stage; see the golden values' README."""
    x = np.asarray(x)
    _, height, width, channels = x.shape
    middle = x[0, height // 2, width // 2, channels // 2]
    first, last = x[1, 0, 0, channels - 1], x[1, height - 1, width - 1, 0]
    return np.array([x.mean(), x.std(), middle, first, last])


def test_names_are_those_of_the_reference():
    assert sorted(ss.models.names()) == sorted(golden.table("parameter_counts"))


def parameters(variables):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def check_names(stem, size, extra):
    """Traces every name and compares its parameters with the CIFAR stem's."""
    x = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    for name, count in golden.table("parameter_counts").items():
        model = ss.models.build(name, num_classes=100, stem=stem)
        logits, variables = jax.eval_shape(model.init_with_output, KEY, x)
        assert logits.shape == (2, 100), name
        params = jax.tree.leaves(variables["params"])
        more = extra.get(ss.models.spec(name).family, extra["others"])
        assert sum(math.prod(leaf.shape) for leaf in params) == count + more, name


def test_every_name_has_its_number_of_parameters():
    check_names("cifar", 32, {"others": 0})


def test_every_name_has_an_imagenet_stem():
    # First kernels of 11x11 or 7x7 in place of 3x3; below an MLP a grid of 6, not 2.
    alexnet = (11**2 - 3**2) * 3 * 64 + (6**2 - 2**2) * 256 * 4096
    extra = {"alexnet": alexnet, "vgg": 0, "prevgg": 0}
    check_names("imagenet", 224, {**extra, "others": (7**2 - 3**2) * 3 * 64})


def test_rows_follow_from_their_names():
    assert sorted(ss.models.names()) == sorted(golden.table("parameter_counts"))
    for name in ss.models.names():
        row = ss.models.spec(name)
        rate = 0.1 if "alexnet" in name else 0.3
        assert row.arguments["rate"] == (rate if "mcdo" in name else 0)
        assert row.name == name
        last = "smoothing" in name and row.family != "preresnet"
        places = row.arguments["smoothing"]
        assert places[-1] == last
        assert set(places[:-1]) == {int("smoothing" in name)}


@pytest.mark.parametrize("train", [False, True])
def test_dropout_is_live_exactly_when_its_key_is_given(train):
    model, variables = small("resnet_mcdo_18")
    apply = compiled(model, variables, train=train, mutable=["batch_stats"])
    sample, _ = apply(rngs=LIVE)
    np.testing.assert_array_equal(apply(rngs=LIVE)[0], sample)
    assert np.abs(apply(rngs={"dropout": KEY})[0] - sample).max() > 1e-3
    if train:
        with pytest.raises(ValueError, match=r"dropout rate 0\.3 needs a key; pass"):
            apply()
    else:
        twin = ss.models.build("resnet_dnn_18", num_classes=5, width=8, stages=(1, 1))
        mean, _ = apply()
        np.testing.assert_allclose(mean, compiled(twin, variables)(), rtol=1e-6)
        assert np.abs(mean - sample).max() > 1e-3


def test_dropout_is_the_layer_of_flax_itself():
    """So that whoever intercepts or replaces that layer reaches every mask."""
    seen = []

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            seen.append(type(context.module))
        return call(*args, **kwargs)

    model, variables = small("resnet_mcdo_18", mc_stages=(1, 2, "head"))
    with nn.intercept_methods(intercept):
        jax.eval_shape(lambda: model.apply(variables, images(), rngs=LIVE))
    assert set(seen) == {nn.Dropout}
    assert len(seen) >= 3


def test_networks_without_dropout_ignore_its_key():
    model, variables = small("resnet_dnn_18")
    apply = compiled(model, variables)
    np.testing.assert_array_equal(apply(rngs=LIVE), apply())


def test_training_updates_all_statistics_and_evaluation_none():
    model, variables = small("resnet_dnn_18")
    for train in (True, False):
        apply = compiled(model, variables, train=train, mutable=["batch_stats"])
        changed = jax.tree.map(
            lambda new, old: bool((new != old).any()),
            apply()[1]["batch_stats"],
            variables["batch_stats"],
        )
        assert set(jax.tree.leaves(changed)) == {train}


TAPS = {
    "resnet_mcdo_smoothing_18": {
        **{"stem": (32, 8), "stage1": (32, 8), "smooth1": (33, 8)},
        **{"stage2": (17, 16), "smooth2": (18, 16), "stage3": (9, 32)},
        **{"smooth3": (10, 32), "stage4": (5, 64), "smooth4": (6, 64)},
    },
    "preresnet_dnn_smoothing_50": {
        **{"stem": (32, 8), "stage1": (32, 32), "smooth1": (33, 32)},
        **{"stage2": (17, 64), "smooth2": (18, 64), "stage3": (9, 128)},
        **{"smooth3": (10, 128), "stage4": (5, 256)},
    },
    "vgg_dnn_11": {
        **{"stage0": (32, 8), "stage1": (16, 16), "stage2": (8, 32)},
        **{"stage3": (4, 64), "stage4": (2, 64), "pool": (1, 64)},
    },
    "alexnet_dnn_smoothing": {
        **{"stage0": (16, 8), "smooth0": (17, 8), "stage1": (8, 24)},
        **{"smooth1": (9, 24), "stage2": (4, 32), "smooth2": (5, 32), "pool": (2, 32)},
    },
}


@pytest.mark.parametrize("name", TAPS)
def test_intermediates_are_named(name):
    model = ss.models.build(name, num_classes=5, width=8)

    def run(x):
        variables = model.init(KEY, x)
        return model.apply(variables, x, mutable=["intermediates"])

    logits, state = jax.eval_shape(run, images())
    shapes = {tap: value.shape for tap, (value,) in state["intermediates"].items()}
    expected = {tap: (2, s, s, c) for tap, (s, c) in TAPS[name].items()}
    assert shapes == {**expected, "logits": logits.shape}


def test_smoothing_layers_follow_the_fields():
    options = {"squash": "clip", "temperature": 2.0, "taps": (1, 2, 1)}
    model, variables = small(padding="edge", **options)
    taps = compiled(model, variables, mutable=["intermediates"])()[1]["intermediates"]
    expected = ss.smooth(taps["stage1"][0], padding="edge", **options)
    np.testing.assert_allclose(taps["smooth1"][0], expected, rtol=1e-5, atol=1e-6)
    twice, variables = small(smoothing=(2, 0), smoothing_norm=True)
    assert {"smoothing1_0", "smoothing1_1"} <= set(variables["params"])
    taps = compiled(twice, variables, mutable=["intermediates"])()[1]["intermediates"]
    assert taps["smooth1"][0].shape == (2, 34, 34, 8)
    assert "smooth2" not in taps


def test_overrides_change_the_network():
    for stages, smoothing in (((1,), (1,)), ((2, 1, 3), (1, 1, 1))):
        model = ss.models.build(
            "resnet_dnn_smoothing_18", num_classes=5, width=8, stages=stages
        )
        assert model.smoothing == smoothing
        variables = jax.eval_shape(model.init, KEY, images())
        blocks = [key for key in variables["params"] if "block" in key]
        assert len(blocks) == sum(stages)
    model = ss.models.build("preresnet_dnn_smoothing_18", num_classes=5, stages=(1, 1))
    assert model.smoothing == (1, 0)
    # Numbers and lists of any type.
    arrays = {"num_classes": np.int64(5), "stages": np.array([1, 1])}
    ss.models.build("resnet_mcdo_18", rate=jnp.float32(0.1), **arrays)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet_dnn_19"}, "'resnet_dnn_19'; did you mean 'resnet_dnn_18'"),
        ({"rates": 0.5}, "unknown field of resnet_mcdo_18 'rates'; did you mean 'rate"),
        ({"parent": None}, "unknown field of resnet_mcdo_18 'parent'"),
        ({"stem": "cifr"}, "unknown stem 'cifr'; did you mean 'cifar'. choices: cifar"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"width": -1}, "width must be at least 1, got -1"),
        ({"rate": 1.0}, r"rate must be in \[0, 1\), got 1.0"),
        ({"smoothing": (1, 0)}, r"smoothing \(1, 0\) must have one entry for each of"),
        ({"smoothing": (-1,) * 4}, "smoothing must be numbers of at least 0, got"),
        ({"stages": (2, 0)}, r"stages must be numbers of at least 1, got \(2, 0\)"),
        ({"head_temperature": 0}, "head_temperature must be positive, got 0"),
        ({"num_classes": "5"}, "num_classes must be a whole number, got '5'"),
        ({"width": 4.5}, r"width must be a whole number, got 4\.5"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"stages": 2}, "stages must be a list of whole numbers, got 2"),
        ({"stages": (1.5, 1)}, r"list of whole numbers, got \(1\.5, 1\)"),
        ({"mc_stages": "head"}, r"mc_stages must be a list, such as \['head'\], or"),
        ({"rate": None}, "rate must be a number, got None"),
        ({"rate": "0.1"}, "rate must be a number, got '0.1'"),
        # Of a network that has no smoothing, too.
        ({"temperature": -1}, "temperature must be positive, got -1"),
        ({"taps": (1, -1)}, r"taps \(1\.0, -1\.0\) cannot be normalised"),
        ({"padding": "valid"}, "unknown padding 'valid'"),
        ({"squash": "tan"}, "unknown squash 'tan'"),
        (
            {"name": "resnext_dnn_101", "width": 12},
            "convolutions of 48 channels, which 32 groups .*; take a multiple of 8",
        ),
    ],
)
def test_unusable_arguments_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        ss.models.build(**{"name": "resnet_mcdo_18", "num_classes": 5, **options})


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("vgg_dnn_11", {}, 31, "nothing is left of images of 31x31 after 'pool'"),
        ("vgg_dnn_11", {}, 15, "nothing is left of images of 15x15 after 'stage4'"),
        ("alexnet_dnn", {"stem": "imagenet"}, 32, "of images of 32x32 after 'pool'"),
        ("alexnet_dnn", {"stages": (2, 2, 2)}, 32, "AlexNet has 5 convolutions, got"),
    ],
)
def test_networks_too_deep_for_their_images_are_explained(name, options, size, message):
    model = ss.models.build(name, num_classes=5, width=8, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, np.zeros((1, size, size, 3), np.float32))


def test_unusable_heads_and_images_are_explained():
    model, variables = small("resnet_dnn_18")
    with pytest.raises(ValueError, match=r"images are \[B, H, W, 3\], got shape"):
        model.apply(variables, images()[0])
    model = ss.models.build("resnet_dnn_18", num_classes=5, width=8, head="gab")
    with pytest.raises(ValueError, match="unknown head 'gab'; did you mean 'gap'"):
        jax.eval_shape(model.init, KEY, images())


def test_bfloat16_has_float32_parameters_and_logits():
    model, variables = small(dtype=jnp.bfloat16)
    float32 = {np.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == float32
    logits, state = compiled(model, variables, train=True, mutable=True)(rngs=LIVE)
    taps = state.pop("intermediates")
    assert taps["stage1"][0].dtype == taps["smooth2"][0].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, state))} == float32
    wide, _ = small()
    np.testing.assert_allclose(
        compiled(model, variables)(), compiled(wide, variables)(), atol=0.05
    )


def test_state_dictionaries_that_do_not_fit_are_explained():
    layout = golden.table("layouts")["cifar/resnet_dnn_18"]
    values = {key: np.zeros(shape, np.float32) for key, *shape in layout}
    values["layer9.weight"] = values.pop("layer0.0.weight")
    values["layer1.0.bn1.bias"] = np.zeros(3)
    with pytest.raises(ValueError, match="does not fit resnet_dnn_18") as error:
        ss.convert.from_pytorch("resnet_dnn_18", values, num_classes=100)
    for part in (
        "missing: layer0.0.weight",
        "left over: layer9.weight",
        "misshapen: layer1.0.bn1.bias is (3,)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("places", [None, (1,), (2,), ("head",), (1, "head")])
def test_halves_make_the_whole(places):
    model, variables = small(mc_stages=places)
    apply = functools.partial(jax.jit(model.apply, static_argnames="half"), variables)
    fixed = apply(images(), half="deterministic")
    for rngs in (None, LIVE):
        whole = apply(images(), rngs=rngs)
        np.testing.assert_array_equal(
            apply(images(), half="deterministic", rngs=rngs), fixed
        )
        np.testing.assert_allclose(
            apply(fixed, half="stochastic", rngs=rngs), whole, rtol=1e-5, atol=1e-6
        )
    assert np.abs(whole - apply(images())).max() > 1e-6


def test_dropout_is_where_it_is_asked_for():
    """Each part differs between two samples from the first with dropout on."""
    for places, first in [((1,), "stage1"), ((2,), "stage2"), (("head",), "logits")]:
        model, variables = small("resnet_mcdo_18", mc_stages=places)
        apply = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))
        taps = [
            apply(variables, images(), rngs={"dropout": jax.random.key(seed)})[1]
            for seed in (0, 1)
        ]
        one, other = (tap["intermediates"] for tap in taps)
        differ = {name: bool((one[name][0] != other[name][0]).any()) for name in one}
        order = ["stem", "stage1", "stage2", "logits"]
        position = order.index(first)
        assert differ == {name: order.index(name) >= position for name in order}


@pytest.mark.parametrize("places", [(), (0,), (3,), ("tail",)])
def test_unusable_places_of_dropout(places):
    message = r"mc_stages .* must name some of \(1, 2, 'head'\); for no dropout"
    with pytest.raises(ValueError, match=message):
        small("resnet_mcdo_18", mc_stages=places)


def test_unknown_half():
    model, variables = small()
    with pytest.raises(ValueError, match="unknown half 'stocastic'; did you mean"):
        model.apply(variables, images(), half="stocastic")


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize(
    "head", ["gap", "bn_gap", "median", "gap_clip", "gap_mlp", "mlp"]
)
def test_types_are_float32_under_x64_and_promoted_nowhere(x64, head, dtype):
    model = ss.models.build(
        "vgg_mcdo_smoothing_11",
        num_classes=3,
        width=4,
        stages=(1, 1, 1, 1, 1),
        head=head,
        smoothing_norm=True,
        dtype=dtype,
    )
    images = jnp.zeros((2, 32, 32, 3), jnp.float32)
    options = {"train": True, "mask": jnp.array([True, False])}
    with jax.numpy_dtype_promotion("strict"):
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        trained = jax.eval_shape(
            lambda v, key: model.apply(
                v, images, rngs={"dropout": key}, mutable=["batch_stats"], **options
            ),
            *(variables, jax.random.key(1)),
        )
        evaluated = jax.eval_shape(model.apply, variables, images)
    leaves = jax.tree.leaves((variables, trained, evaluated))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
