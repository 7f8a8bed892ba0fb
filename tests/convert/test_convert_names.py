import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_weights import NORM, SMALL, assert_same

import spatial_smoothing as ss


def numbered(name, **arguments):
    """Variables of a network, no two numbers of a leaf alike."""
    model = ss.models.build(name, **arguments)
    size = 224 if arguments.get("stem") == "imagenet" else 32
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = dict(jax.eval_shape(model.init, jax.random.key(0), images))
    return jax.tree.map(
        lambda leaf: np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape), shapes
    )


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("vgg_dnn_11", (0, 4, 8, 11, 15, 18, 22, 25)),
        ("vgg_mcdo_13", (0, 3, 7, 10, 14, 17, 21, 24, 28, 31)),
        ("vgg_dnn_16", (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)),
        (
            "vgg_dnn_smoothing_19",
            (0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49),
        ),
        ("alexnet_dnn", (0, 3, 6, 8, 10)),
    ],
)
def test_torchvision_counts_the_layers_of_plain_networks(name, convolutions):
    model = ss.models.build(name, num_classes=10)
    blocks = [
        f"stage{stage}_block{block}"
        for stage, depth in enumerate(model.stages)
        for block in range(depth)
    ]

    def key(*path):
        return ss.convert.pytorch_key(model, path, naming="torchvision")

    for block, index in zip(blocks, convolutions, strict=True):
        assert key("params", block, "conv", "kernel") == f"features.{index}.weight"
        if "vgg" in name:
            found = key("batch_stats", block, "norm", "var")
            assert found == f"features.{index + 1}.running_var"
    dense = [key("params", "head", f"dense{i}", "bias") for i in (1, 2, 3)]
    expected = (0, 3, 6) if "vgg" in name else (1, 4, 6)
    assert dense == [f"classifier.{index}.bias" for index in expected]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("vgg_dnn_11", ["0.0", "1.1", "2.1", "2.2", "3.1", "3.2", "4.1", "4.2"]),
        ("prevgg_mcdo_11", ["0.0", "1.1", "2.1", "2.2", "3.1", "3.2", "4.1", "4.2"]),
        ("alexnet_dnn", ["0.0", "1.1", "2.1", "2.2", "2.3"]),
    ],
)
def test_authors_count_the_pools_of_plain_networks(name, blocks):
    arguments = {"num_classes": 3, "width": 1}
    state = ss.convert.to_pytorch(name, numbered(name, **arguments), **arguments)
    leaves = ["conv.weight"]
    if "vgg" in name:
        leaves += [f"bn.{leaf}" for leaf in (*NORM, "num_batches_tracked")]
    assert state.keys() == {
        *(f"layer{block}.{leaf}" for block in blocks for leaf in leaves),
        *(f"classifier.2.dense{i}.{leaf}" for i in (1, 2, 3) for leaf in NORM[:2]),
    }


@pytest.mark.parametrize("naming", ["authors", "torchvision"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet_mcdo_smoothing_18", {"stages": (2, 1)}),
        ("resnet_dnn_50", {"stages": (2, 1), "stem": "imagenet"}),
        ("resnext_dnn_50", {"stages": (1, 1), "width": 16}),
        ("wideresnet_mcdo_101", {"stages": (1, 1)}),
        ("vgg_dnn_smoothing_11", {"width": 1}),
        ("alexnet_mcdo", {"width": 1}),
    ],
)
def test_round_trip_is_exact(name, arguments, naming):
    arguments = {"num_classes": 3, "width": 8, **arguments}
    variables = numbered(name, **arguments)
    state = ss.convert.to_pytorch(name, variables, naming=naming, **arguments)
    assert all(value.flags.c_contiguous for value in state.values())
    assert_same(ss.convert.from_pytorch(name, state, **arguments), variables)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("preresnet_mcdo_50", {"stages": (1, 1)}),
        ("prevgg_dnn_11", {"width": 1}),
        ("resnet_dnn_18", {"stages": (1, 1), "head": "mlp", "width": 1}),
        ("resnet_dnn_smoothing_18", {"stages": (1, 1), "smoothing_norm": True}),
    ],
)
def test_only_the_authors_have_names_for_some(name, arguments):
    arguments = {"num_classes": 3, "width": 8, **arguments}
    variables = numbered(name, **arguments)
    state = ss.convert.to_pytorch(name, variables, **arguments)
    assert_same(ss.convert.from_pytorch(name, state, **arguments), variables)
    message = "there is no torchvision name for .* namings: authors, torchvision"
    with pytest.raises(ValueError, match=message):
        ss.convert.to_pytorch(name, variables, naming="torchvision", **arguments)


def test_unknown_naming():
    with pytest.raises(ValueError, match="unknown naming 'timm'; choices: authors, "):
        ss.convert.to_pytorch("resnet_dnn_18", {}, naming="timm", **SMALL)
