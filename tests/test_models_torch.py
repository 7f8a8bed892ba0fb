"""The networks against PyTorch in float64, weights and dropout alike.

Golden values are of a few whole networks; these are narrow, and of all kinds.
"""

import golden
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from authors_networks import Authors  # noqa: E402, needs torch

import spatial_smoothing as ss  # noqa: E402

CIFAR, IMAGENET = (37, 44), (75, 97)
NAMES = {
    "alexnet_dnn_smoothing": CIFAR,
    "alexnet_mcdo": IMAGENET,
    "vgg_dnn_smoothing_11": CIFAR,
    "vgg_mcdo_16": CIFAR,
    "prevgg_dnn_13": CIFAR,
    "prevgg_mcdo_smoothing_11": IMAGENET,
    "resnet_mcdo_smoothing_34": CIFAR,
    "resnet_mcdo_50": IMAGENET,
    "preresnet_dnn_smoothing_18": IMAGENET,
    "preresnet_mcdo_34": CIFAR,
    "preresnet_dnn_50": CIFAR,
    "preresnet_mcdo_smoothing_101": IMAGENET,
    "resnext_dnn_smoothing_50": IMAGENET,
    "resnext_mcdo_101": CIFAR,
    "wideresnet_mcdo_smoothing_50": CIFAR,
}
SMALL = {"stages": (1, 2)}


def check(name, sides, *, ours=(), **options):
    """Compares logits; `options` are those of `Authors`, `ours` say the same."""
    options = {"width": 16 if "resnext" in name else 4, **options}
    network = Authors(name, 7, **options).double().eval()
    state = network.state_dict()
    for key, value in state.items():
        if not key.endswith("filter"):
            value.copy_(torch.from_numpy(golden.weight(key, value.shape)))
    fields = {"num_classes": 7, **dict(ours)}
    fields["stem"] = "imagenet" if options.pop("large", False) else "cifar"
    fields |= {
        key: options[key] for key in ("width", "stages", "head") if key in options
    }
    x = np.random.default_rng(0).standard_normal((2, *sides, 3))
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
    model = ss.models.build(name, **fields)
    rngs = {"dropout": jax.random.key(0)}
    with jax.enable_x64(True), golden.dropout_by_channel():
        variables = ss.convert.from_pytorch(name, state, **fields)
        logits = np.asarray(model.apply(variables, x, rngs=rngs))
    assert logits.dtype == np.float64
    assert np.abs(logits - expected).max() < 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_topologies(name):
    options = {"large": NAMES[name] == IMAGENET}
    if "resne" in name:
        options["stages"] = (1, 1, 2, 1) if options["large"] else (2, 1, 1, 1)
    check(name, NAMES[name], **options)


@pytest.mark.parametrize(
    ("blur", "norm"),
    [("box", True), (None, True), (((1, 3, 3, 1), "circular"), False)],
)
@pytest.mark.parametrize(
    ("squash", "t"),
    [
        *(("tanh", 0.7), ("sigmoid", 0.9), ("softmax", 5)),
        *(("clip", 0.8), ("scale", 3), ("none", 1)),
    ],
)
def test_smoothing_blocks(squash, t, blur, norm):
    ours = {"squash": squash, "temperature": float(t), "smoothing_norm": norm}
    if blur != "box":
        ours["taps"] = blur and blur[0]
        ours["padding"] = "wrap"
    smoothing = {"squash": squash, "t": t, "blur": blur, "norm": norm}
    check("resnet_dnn_smoothing_18", (9, 11), ours=ours, smoothing=smoothing, **SMALL)


@pytest.mark.parametrize("sides", [(8, 10), (2, 1)])
@pytest.mark.parametrize(
    "head", ["gap", "bn_gap", "max", "median", "gap_clip", "gap_mlp", "mlp"]
)
def test_heads(head, sides):
    options = {"head": head, "t": 0.3, "rate": 0.5, **SMALL}
    ours = {"head_temperature": 0.3, "temperature": 2.0, "rate": 0.5}
    smoothing = {"t": 2.0}
    name = "resnet_mcdo_18" if sides == (2, 1) else "resnet_mcdo_smoothing_18"
    check(name, sides, ours=ours, smoothing=smoothing, **options)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("taps", [(1, 1), (1, 2, 1)])
def test_paddings_of_other_blurs(taps, mode):
    """The box blur that grows the map is the default alone."""
    padding = {"constant": "zero", "replicate": "edge", "circular": "wrap"}
    ours = {"taps": taps, "padding": padding.get(mode, mode)}
    smoothing = {"blur": (taps, mode)}
    check("preresnet_dnn_smoothing_18", (9, 8), ours=ours, smoothing=smoothing, **SMALL)
