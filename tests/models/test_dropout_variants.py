"""Masks of channels, other places of dropout, and rates of stages."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing.runs.labels import label

LIVE = {"dropout": jax.random.key(3)}


def images(count=2):
    return jax.random.normal(jax.random.key(0), (count, 16, 16, 3))


def small(name="preresnet_mcdo_smoothing_18", **fields):
    fields = {"width": 4, "stages": (1, 1), **fields}
    model = ss.models.build(name, num_classes=5, **fields)
    return model, jax.jit(model.init)(jax.random.key(1), images())


def dropout_layers(model, variables):
    """Returns path of the scope, input and output of each dropout layer of a pass."""
    found = []

    def intercept(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if isinstance(context.module, nn.Dropout):
            path = "/".join(context.module.path[:-1])
            found.append((path, context.module.rate, args[0], result))
        return result

    with nn.intercept_methods(intercept):
        model.apply(variables, images(), rngs=LIVE)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout_placement": "all", "mask": "channel"},
        {"dropout_placement": "all", "mc_stages": (2,)},
        {"dropout_placement": "last", "mask": "channel"},
        {"stage_rates": (0.0, 0.3)},
    ],
)
def test_halves_make_the_whole(fields):
    model, variables = small(**fields)
    apply = functools.partial(jax.jit(model.apply, static_argnames="half"), variables)
    fixed = apply(images(), half="deterministic")
    # Dropout everywhere begins behind the stem, of which there is one for all samples.
    first = fields.get("dropout_placement") == "all" and "mc_stages" not in fields
    assert fixed.shape[1:] == ((16, 16, 4) if first else fixed.shape[1:])
    for rngs in (None, LIVE):
        whole = apply(images(), rngs=rngs)
        again = apply(fixed, half="stochastic", rngs=rngs)
        np.testing.assert_allclose(again, whole, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(
            apply(images(), half="deterministic", rngs=rngs), fixed
        )
    assert np.abs(whole - apply(images())).max() > 1e-6


def test_masks_of_channels_keep_or_drop_a_whole_map():
    model, variables = small(mask="channel", dropout_placement="all", rate=0.5)
    kept = []
    for _, rate, before, after in dropout_layers(model, variables):
        before, after = np.asarray(before), np.asarray(after)
        shown = np.abs(after).max((1, 2)) > 0
        expected = before * shown[:, None, None, :] / (1 - rate)
        np.testing.assert_allclose(after, expected, rtol=1e-6)
        kept.append(shown[np.abs(before).max((1, 2)) > 0])
    kept = np.concatenate(kept)
    assert 0.3 < kept.mean() < 0.7


def test_masks_of_the_head_are_of_its_channels():
    model, variables = small(mask="channel", mc_stages=("head",), rate=0.5)
    ((path, _, before, after),) = dropout_layers(model, variables)
    assert path == "head"
    assert before.ndim == 2
    assert len(np.unique(np.asarray(after != 0), axis=0)) == 2  # drawn for each example


def conv(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def test_dropout_everywhere_is_that_of_uncertainty_baselines():
    """Each dropout layer is a factor here, so that its place shows in the result."""
    model, variables = small(
        "preresnet_mcdo_18", stages=(1, 1), dropout_placement="all"
    )
    factors = iter((2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0))

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            return args[0] * next(factors)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        _, taps = model.apply(variables, images(), rngs=LIVE, mutable=["intermediates"])
    taps = {name: value[0] for name, value in taps["intermediates"].items()}
    params = variables["params"]
    norm = lambda x: jax.nn.relu(x / np.sqrt(1 + 1e-5))  # as it is before training
    x = taps["stem"] * 2.0  # behind the stem
    kernels = [params["stage1_block0"][f"conv{n}"]["kernel"] for n in (1, 2)]
    y = conv(norm(x) * 3.0, kernels[0], 1)
    y = conv(norm(y) * 5.0, kernels[1], 1) * 7.0
    np.testing.assert_allclose(taps["stage1"], x + y, rtol=1e-4, atol=1e-4)
    block, x = params["stage2_block0"], taps["stage1"]
    y = conv(norm(x) * 11.0, block["conv1"]["kernel"], 2)
    y = conv(norm(y) * 13.0, block["conv2"]["kernel"], 1) * 17.0
    shortcut = conv(norm(x), block["shortcut_conv"]["kernel"], 2) * 19.0
    np.testing.assert_allclose(taps["stage2"], shortcut + y, rtol=1e-4, atol=1e-3)
    assert next(factors, None) is None


@pytest.mark.parametrize("name", ["vgg_mcdo_11", "resnet_mcdo_18"])
@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"stage_rates": (0.1, 0.4)}, {1: 0.1, 2: 0.4}),
        ({"stage_rates": (0.1, 0.0)}, {1: 0.1}),
        ({"stage_rates": (0.1, 0.4, 0.2), "mc_stages": (2, "head")}, {2: 0.4, 0: 0.2}),
        ({"dropout_placement": "last", "rate": 0.25}, {0: 0.25}),
    ],
)
def test_stages_have_their_rates(name, fields, paths):
    first = 0 if name.startswith("vgg") else 1
    fields = dict(fields)
    if "mc_stages" in fields:
        fields["mc_stages"] = (1 + first, "head")
    model, variables = small(name, head="gap", **fields)
    found = {path: rate for path, rate, *_ in dropout_layers(model, variables)}
    assert found == {
        f"stage{stage + first - 1}_block0" if stage else "head": rate
        for stage, rate in paths.items()
    }


def test_dropout_follows_from_the_rates_of_stages_alone():
    model, variables = small("preresnet_dnn_18", stage_rates=(0.0, 0.5))
    assert model.has_dropout
    with pytest.raises(ValueError, match=r"training with dropout rate 0\.5 needs"):
        model.apply(variables, images(), train=True, mutable=["batch_stats"])
    probs = ss.mc_dropout(LIVE["dropout"], model, variables, images(), num_samples=2)
    assert np.abs(probs[0] - probs[1]).max() > 1e-6
    assert not small("preresnet_mcdo_18", stage_rates=(0.0, 0.0))[0].has_dropout


def test_places_of_vgg_are_everywhere_already():
    model, variables = small("vgg_mcdo_11", head="gap")
    twin, _ = small("vgg_mcdo_11", head="gap", dropout_placement="all")
    one, other = (each.apply(variables, images(), rngs=LIVE) for each in (model, twin))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": "chanel"}, "unknown mask 'chanel'; did you mean 'channel'"),
        ({"dropout_placement": "al"}, "unknown dropout_placement 'al'; did you mean"),
        (
            {"dropout_placement": "last", "mc_stages": (1,)},
            r"'last' is dropout in the head alone, and mc_stages is \(1,\)",
        ),
        (
            {"stage_rates": (0.1,)},
            r"stage_rates \(0.1,\) must have one rate for each of the 2 stages",
        ),
        (
            {"stage_rates": (0.1, 0.1), "mc_stages": (1, "head")},
            "for each of the 2 stages and one for the head",
        ),
        ({"stage_rates": (0.1, 1.0)}, r"stage_rates must be in \[0, 1\)"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        small(**fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "MC dropout"),
        ({"mask": "channel"}, "MC dropout of channels"),
        ({"dropout_placement": "last"}, "MC dropout in head"),
        (
            {"mask": "channel", "dropout_placement": "all", "mc_stages": (2,)},
            "MC dropout of channels everywhere in stage 2",
        ),
    ],
)
def test_labels_say_what_differs(fields, text):
    model = ss.models.build("resnet_mcdo_18", num_classes=5, **fields)
    assert label(model) == text
