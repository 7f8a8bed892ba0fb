"""The networks against PyTorch in float64, weights and dropout alike.

Golden values are of a few whole networks; these are narrow, and of all kinds.
"""

import golden
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from authors_networks import Authors, Smoothing  # noqa: E402, needs torch

import spatial_smoothing as ss  # noqa: E402

CIFAR, IMAGENET = (37, 44), (75, 97)
NAMES = {
    "alexnet_dnn_smoothing": CIFAR,
    "alexnet_mcdo": IMAGENET,
    "prevgg_dnn_13": CIFAR,
    "resnet_mcdo_50": IMAGENET,
    "preresnet_mcdo_34": CIFAR,
    "preresnet_dnn_50": CIFAR,
    "preresnet_mcdo_smoothing_101": IMAGENET,
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
        options["stages"] = (2, 1, 1)
    check(name, NAMES[name], **options)


@pytest.mark.parametrize(
    "head", ["gap", "bn_gap", "max", "median", "gap_clip", "gap_mlp", "mlp"]
)
def test_heads(head):
    options = {"head": head, "t": 0.3, "rate": 0.5, **SMALL}
    ours = {"head_temperature": 0.3, "temperature": 2.0, "rate": 0.5}
    name = "resnet_mcdo_smoothing_18"
    check(name, (8, 10), ours=ours, smoothing={"t": 2.0}, **options)


BLURS = {
    "box": {},
    None: {"taps": None},
    ((1, 3, 3, 1), "circular"): {"taps": (1, 3, 3, 1), "padding": "wrap"},
    ((1, 2, 1), "reflect"): {"taps": (1, 2, 1), "padding": "reflect"},
}


@pytest.mark.parametrize("blur", BLURS)
def test_smoothing_in_a_network(blur):
    smoothing = {"squash": "clip", "t": 0.8, "blur": blur, "norm": True}
    ours = {"squash": "clip", "temperature": 0.8, "smoothing_norm": True, **BLURS[blur]}
    name = "preresnet_dnn_smoothing_18"
    check(name, (9, 11), ours=ours, smoothing=smoothing, **SMALL)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize(
    ("squash", "t"),
    [
        *(("tanh", 0.7), ("sigmoid", 0.9), ("softmax", 5)),
        *(("clip", 0.8), ("scale", 3), ("none", 1)),
    ],
)
def test_smoothing_blocks(squash, t, blur):
    x = 3 * np.random.default_rng(0).standard_normal((2, 5, 7, 4))
    block = Smoothing(4, squash=squash, t=t, blur=blur).double()
    with torch.no_grad():
        expected = block(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
    with jax.enable_x64(True):
        y = ss.SpatialSmoothing(float(t), squash, **BLURS[blur]).apply({}, x)
    np.testing.assert_allclose(y, expected.transpose(0, 2, 3, 1), atol=1e-12)
