import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_weights import NORM, SMALL, assert_same, convert, small_state

import spatial_smoothing as ss


def in_torchvision(state):
    """Renames authors' keys to torchvision's."""
    renamed = {}
    for key, value in state.items():
        for old, new in [
            ("layer0.0", "conv1"),
            ("layer0.1", "bn1"),
            ("shortcut", "downsample"),
            ("classifier.0.dense", "fc"),
        ]:
            key = key.replace(old, new)
        renamed[key] = value
    return renamed


def test_every_number_has_its_place():
    state = small_state()
    variables = convert(state)
    params, statistics = variables["params"], variables["batch_stats"]
    block, shortcut = params["stage2_block0"], state["layer2.0.shortcut.0.weight"]
    assert block["shortcut_conv"]["kernel"].shape == (1, 1, 4, 8)
    assert block["shortcut_conv"]["kernel"][0, 0, 3, 5] == shortcut[5, 3, 0, 0]
    kernel, weight = block["conv1"]["kernel"], state["layer2.0.conv1.weight"]
    assert kernel[2, 1, 3, 5] == weight[5, 3, 2, 1]
    dense = params["head"]["dense"]
    assert dense["kernel"][2, 9] == state["classifier.0.dense.weight"][9, 2]
    assert_same(dense["bias"], state["classifier.0.dense.bias"])
    assert_same(block["norm2"]["scale"], state["layer2.0.bn2.weight"])
    assert_same(block["norm2"]["bias"], state["layer2.0.bn2.bias"])
    found = statistics["stem_norm"]
    assert_same(found["mean"], state["layer0.1.running_mean"])
    assert_same(found["var"], state["layer0.1.running_var"])
    numbers = [v.size for key, v in state.items() if "tracked" not in key]
    assert sum(numbers) == sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_torchvision_names_are_recognised():
    state = small_state()
    assert_same(convert(in_torchvision(state)), convert(state))


def test_smoothing_and_dropout_take_the_same_weights():
    state = small_state()
    assert_same(convert(state, name="resnet_mcdo_smoothing_18"), convert(state))


def test_ensembles_of_one_pass_have_no_pytorch_names():
    variables = convert(small_state())
    for ensemble in ("batch", "packed", "mimo"):
        with pytest.raises(ValueError, match=f"has the ensemble '{ensemble}', and"):
            convert(small_state(), ensemble=ensemble)
    # Masks are no variables, but without them the network would be another one.
    with pytest.raises(ValueError, match="has the ensemble 'masksembles', and"):
        ss.convert.to_pytorch(
            "resnet_dnn_18", variables, num_classes=10, ensemble="masksembles"
        )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.model."])
def test_the_prefixes_of_wrappers_are_dropped(prefix):
    state = small_state()
    prefixed = {f"{prefix}{key}": value for key, value in state.items()}
    assert_same(convert(prefixed), convert(state))
    # A prefix is one of all names.
    prefixed["odd"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"no known layout|left over: .*odd"):
        convert(prefixed)


def test_counters_may_be_left_out():
    state = small_state()
    without = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    assert len(without) == len(state) - 6
    assert_same(convert(without), convert(state))


# Index of a convolution -> its channels.
VGG_WIDTHS = {0: 1, 4: 2, 8: 4, 11: 4, 15: 8, 18: 8, 22: 8, 25: 8}


def vgg_state():
    """`vgg_dnn_11` of one channel in torchvision's names; its MLP is of zeros."""
    rng, state, features = np.random.default_rng(1), {}, 3
    for index, out in VGG_WIDTHS.items():
        state[f"features.{index}.weight"] = rng.standard_normal((out, features, 3, 3))
        state[f"features.{index}.bias"] = rng.standard_normal(out)
        for leaf in NORM:
            state[f"features.{index + 1}.{leaf}"] = rng.random(out)
        features = out
    sizes = (features * 49, 4096, 4096, 3)
    for number, index in enumerate((0, 3, 6)):
        state[f"classifier.{index}.weight"] = np.zeros(sizes[number : number + 2][::-1])
        state[f"classifier.{index}.bias"] = np.zeros(sizes[number + 1])
    return {key: value.astype(np.float32) for key, value in state.items()}


def test_a_bias_moves_the_mean_behind_it():
    state = vgg_state()
    variables = ss.convert.from_pytorch("vgg_dnn_11", state, num_classes=3, width=1)
    statistics = variables["batch_stats"]["stage2_block1"]["norm"]
    expected = state["features.12.running_mean"] - state["features.11.bias"]
    assert_same(statistics["mean"], expected)
    assert_same(statistics["var"], state["features.12.running_var"])
    biases = {f"features.{index}.bias" for index in VGG_WIDTHS}
    without = {key: value for key, value in state.items() if key not in biases}
    variables = ss.convert.from_pytorch("vgg_dnn_11", without, num_classes=3, width=1)
    statistics = variables["batch_stats"]["stage2_block1"]["norm"]
    assert_same(statistics["mean"], state["features.12.running_mean"])


def test_vgg_without_normalisation_is_refused():
    state = vgg_state()
    for index in VGG_WIDTHS:
        for leaf in NORM:
            del state[f"features.{index + 1}.{leaf}"]
    message = r"torchvision names\); missing: .*features\.1\.running_mean"
    with pytest.raises(ValueError, match=message):
        ss.convert.from_pytorch("vgg_dnn_11", state, num_classes=3, width=1)


BLUR = {"name": "resnet_dnn_smoothing_18", "taps": (1, 2, 1), "padding": "zero"}
KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16


def test_kernels_of_blurs_are_constants():
    state = small_state()
    kernels = {
        "smooth1.0.blur.filter": np.tile(KERNEL, (4, 1, 1, 1)),
        "smooth2.0.blur.filter": np.tile(KERNEL, (8, 1, 1, 1)),
    }
    assert_same(convert(state | kernels, **BLUR), convert(state))
    assert_same(convert(state, **BLUR), convert(state))
    back = ss.convert.to_pytorch(variables=convert(state), **SMALL | BLUR)
    for key, kernel in kernels.items():
        np.testing.assert_array_equal(back[key], kernel)
    assert back.keys() == (state | kernels).keys()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            BLUR | {"taps": (1, 1, 1)},
            r"another blur than the model's taps: smooth1\.0\.blur\.filter$",
        ),
        (
            BLUR | {"taps": (1, 3, 3, 1)},
            r"misshapen: smooth1\.0\.blur\.filter is \(4, 1, 3, 3\), "
            r"\(4, 1, 4, 4\) was expected$",
        ),
        (
            {"name": "resnet_dnn_smoothing_18"},
            r"left over: smooth1\.0\.blur\.filter$",
        ),
        ({"name": "resnet_dnn_18"}, r"left over: smooth1\.0\.blur\.filter$"),
    ],
)
def test_other_blurs_are_refused(arguments, problem):
    state = small_state() | {"smooth1.0.blur.filter": np.tile(KERNEL, (4, 1, 1, 1))}
    with pytest.raises(ValueError, match=problem):
        convert(state, **arguments)


@pytest.mark.parametrize("rename", [lambda state: state, in_torchvision])
def test_one_error_lists_every_key(rename):
    state = rename(small_state())
    state["layer2.0.bn9.weight"] = np.zeros(3)
    state["layer9.num_batches_tracked"] = np.zeros(())
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][1:]
    state["layer1.0.bn1.weight"] = state["layer1.0.bn1.weight"].astype(int)
    state["layer2.0.bn1.bias"] = state["layer2.0.bn1.bias"] * np.nan
    del state["layer1.0.bn2.bias"], state["layer2.0.bn2.running_var"]
    with pytest.raises(ValueError, match="state_dict does not fit resnet_dnn") as error:
        convert(state)
    naming = "authors" if "layer0.0.weight" in state else "torchvision"
    head, *problems = str(error.value).split("; ")
    assert head == (
        f"state_dict does not fit resnet_dnn_18 (cifar stem, {naming} names)"
    )
    found = {
        kind: set(re.split(r", (?!\d)", keys))
        for kind, keys in (problem.split(": ") for problem in problems)
    }
    assert found == {
        "missing": {"layer1.0.bn2.bias", "layer2.0.bn2.running_var"},
        "left over": {"layer2.0.bn9.weight", "layer9.num_batches_tracked"},
        "misshapen": {
            "layer1.0.conv1.weight is (3, 4, 3, 3)",
            "(4, 4, 3, 3) was expected",
        },
        "not floating": {"layer1.0.bn1.weight is int64"},
        "not finite": {"layer2.0.bn1.bias"},
    }


def test_the_other_stem_is_misshapen():
    message = (
        r"resnet_dnn_18 \(imagenet stem, torchvision names\); misshapen: conv1\.weight "
        r"is \(4, 3, 3, 3\), \(4, 3, 7, 7\) was expected$"
    )
    with pytest.raises(ValueError, match=message):
        convert(in_torchvision(small_state()), stem="imagenet")


def test_variables_that_do_not_fit():
    variables = jax.tree.map(np.asarray, convert(small_state()))
    del variables["batch_stats"]["stem_norm"]
    variables["params"]["extra"] = np.zeros(3)
    stacked = variables["params"]["head"]["dense"]
    stacked["bias"] = np.stack([stacked["bias"]] * 2)
    message = (
        r"variables do not fit resnet_dnn_18 \(cifar stem\); "
        r"missing: batch_stats/stem_norm/mean, batch_stats/stem_norm/var; "
        r"left over: params/extra; "
        r"misshapen: params/head/dense/bias is \(2, 10\), \(10,\) was expected$"
    )
    with pytest.raises(ValueError, match=message):
        ss.convert.to_pytorch("resnet_dnn_18", variables, **SMALL)


def test_what_load_state_dict_returns_is_no_state_dict():
    with pytest.raises(ValueError, match=r"got tuple; load_state_dict returns a pair"):
        convert((None, small_state()))


def test_variables_of_half_precision_are_written_in_single():
    variables = convert(small_state())
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    state = ss.convert.to_pytorch("resnet_dnn_18", half, **SMALL)
    kinds = {str(value.dtype) for value in state.values()}
    assert kinds == {"float32", "int64"}
    kernel = np.float32(half["params"]["head"]["dense"]["kernel"])
    np.testing.assert_array_equal(state["classifier.0.dense.weight"], kernel.T)


def test_counters_of_batches_may_have_an_axis():
    """As in checkpoints of some older and some distributed trainings."""
    state = small_state()
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert counters
    odd = {**state, **{key: np.array([7]) for key in counters}}
    assert_same(convert(odd), convert(state))
    odd[counters[0]] = np.array([7, 7])
    with pytest.raises(ValueError, match=rf"misshapen: {counters[0]} is \(2,\)"):
        convert(odd)


def test_unknown_layouts_list_those_that_are_known():
    state = {f"encoder.block{i}.w": np.zeros(3, np.float32) for i in range(5)}
    for given, shown in ((state, "encoder.block0.w, "), ({}, "none at all")):
        with pytest.raises(ValueError, match="of no known layout") as caught:
            convert(given)
        message = str(caught.value)
        assert shown in message
        assert "authors (layer0.0.weight, " in message
        assert "torchvision (conv1.weight, " in message
        assert "\n" not in message
        assert len(message) < 400


@pytest.mark.parametrize("x64", [False, True])
def test_weights_are_single_precision(x64):
    state = {
        key: value.astype(np.float64) if value.dtype == np.float32 else value
        for key, value in small_state().items()
    }
    with jax.enable_x64(x64):
        variables = convert(state)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    assert_same(variables, convert(small_state()))
    key = next(iter(state))
    state[key] = np.full_like(state[key], 1e300)
    with pytest.raises(ValueError, match=f"not finite: {key}"):
        convert(state)
