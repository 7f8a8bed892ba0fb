"""Wide residual networks WRN-d-k of Zagoruyko & Komodakis."""

import jax
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing.cli import config_fields
from spatial_smoothing.configs import common
from spatial_smoothing.models import zoo

KEY = jax.random.key(0)


def shapes(name, *, num_classes=10, **fields):
    model = ss.models.build(name, num_classes=num_classes, **fields)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return jax.eval_shape(model.init, KEY, x)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def by_table(depth, factor, num_classes):
    """Counts parameters by table 1 of the paper."""
    blocks, before = (depth - 4) // 6, 16
    total = 9 * 3 * 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        for _ in range(blocks):
            total += 2 * before + 9 * before * width  # normalisation, convolution
            total += 2 * width + 9 * width * width
            total += before * width if before != width else 0  # projection
            before = width
    return total + 2 * before + before * num_classes + num_classes


def test_wrn_28_10_has_36_and_a_half_million_parameters():
    # The numbers that the authors' code prints, in millions, have the first 3 digits.
    for num_classes, number in ((10, 36_479_194), (100, 36_536_884)):
        variables = shapes("wrn_28_10", num_classes=num_classes)
        assert count(variables["params"]) == number == by_table(28, 10, num_classes)


@pytest.mark.parametrize(("depth", "factor"), [(10, 1), (16, 4), (40, 2)])
def test_every_depth_and_width_has_the_layers_of_the_paper(depth, factor):
    params = shapes(f"wrn_{depth}_{factor}")["params"]
    assert count(params) == by_table(depth, factor, 10)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
    assert len([k for k in kernels if k.shape[0] == 3]) == depth - 4 + 1


def test_the_stem_has_16_channels_whatever_the_width():
    params = shapes("wrn_16_4", width=8)["params"]
    assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 16)
    assert params["stage1_block0"]["conv1"]["kernel"].shape == (3, 3, 16, 8)


def test_names_have_methods_and_smoothing():
    listed = ss.models.names(group="wrn")
    assert len(listed) == len(set(listed)) == len(zoo._GROUPS["wrn"]())
    assert "wrn_mcdo_smoothing_28_10" in listed
    assert set(listed) < set(ss.models.names(group="all"))
    assert not set(listed) & set(ss.models.names())
    for name in listed:
        row = ss.models.spec(name)
        assert row.name == name
        assert row.arguments["rate"] == (0.3 if "mcdo" in name else 0)
        smooths = int("smoothing" in name)
        assert row.arguments["smoothing"] == (smooths, smooths, 0)
    assert ss.models.spec("wrn_22_3") == ss.models.spec("wrn_dnn_22_3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrn_28", "unknown model 'wrn_28'; did you mean 'wrn_"),
        ("wrn_mc_28_10", "did you mean 'wrn_mcdo_28_10'"),
        ("wrn_27_10", r"wrn_27_10 has depth 27, and a WRN has 6 n \+ 4 layers"),
        ("wrn_4_10", "take 10, 16, 22"),
        ("wrn_smoothing_028_10", "unknown model"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        ss.models.build(name, num_classes=10)


def test_configs_keep_the_width_of_the_network():
    """A run of an earlier version, whose config says 64, goes on."""
    for name, width in (("resnet_mcdo_18", 64), ("wrn_28_10", 160)):
        config = common.get_config()
        config.model = name
        assert config_fields.read(config.to_dict())["width"] == width
        config.width = 8
        assert config_fields.read(config.to_dict())["width"] == 8
