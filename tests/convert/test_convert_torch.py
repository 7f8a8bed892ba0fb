"""`convert` against PyTorch itself: logits of small networks, files, strictness."""

import os
import pathlib
import pickle

import jax
import numpy as np
import pages
import pytest

torch = pytest.importorskip("torch")

import torchvision_networks as networks  # noqa: E402, needs torch
from authors_networks import Authors  # noqa: E402
from checkout import ROOT  # noqa: E402

import spatial_smoothing as ss  # noqa: E402

CLASSES = 10
SHORT = (2, 1)
TAPS = {"taps": (1, 2, 1), "padding": "zero"}
PLAN = [8, 8, "M", 16, "M", 32, "M", 64, "M", 64, "M"]


# Label -> (network in PyTorch, name, arguments of `from_pytorch`, its naming).
RESIDUAL = {
    "torchvision basic": (
        lambda: networks.TorchvisionResNet(8, SHORT, CLASSES),
        "resnet_dnn_18",
        {"stages": SHORT, "width": 8},
        "torchvision",
    ),
    "torchvision bottleneck, large images": (
        lambda: networks.TorchvisionResNet(8, SHORT, CLASSES, inner=1, large=True),
        "resnet_mcdo_50",
        {"stages": SHORT, "width": 8, "stem": "imagenet"},
        "torchvision",
    ),
    "torchvision resnext": (
        lambda: networks.TorchvisionResNet(16, SHORT, CLASSES, inner=2, groups=32),
        "resnext_dnn_50",
        {"stages": SHORT, "width": 16},
        "torchvision",
    ),
    "torchvision wide": (
        lambda: networks.TorchvisionResNet(8, SHORT, CLASSES, inner=2),
        "wideresnet_dnn_50",
        {"stages": SHORT, "width": 8},
        "torchvision",
    ),
    "authors' basic, blurred": (
        lambda: authors(
            "resnet_dnn_smoothing_18", smoothing={"blur": ((1, 2, 1), "constant")}
        ),
        "resnet_dnn_smoothing_18",
        {"stages": SHORT, "width": 8, **TAPS},
        "authors",
    ),
    "authors' pre-activation bottleneck, normalised twice": (
        lambda: authors("preresnet_mcdo_smoothing_50", smoothing={"norm": True}),
        "preresnet_dnn_smoothing_50",
        {"stages": SHORT, "width": 8, "smoothing_norm": True, "shortcut_norm": True},
        "authors",
    ),
}


def authors(name, **options):
    return Authors(name, CLASSES, width=8, stages=SHORT, rate=0, **options)


def images(size=32):
    drawn = np.random.default_rng(0).standard_normal((2, size, size, 3))
    return drawn.astype(np.float32)


def torch_logits(network, inputs):
    with torch.no_grad():
        return network(torch.from_numpy(inputs.transpose(0, 3, 1, 2))).numpy()


def flax_logits(name, variables, inputs, **arguments):
    model = ss.models.build(name, num_classes=CLASSES, **arguments)
    return np.asarray(jax.jit(model.apply)(variables, inputs))


def error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def as_tensors(state):
    return {key: torch.from_numpy(value) for key, value in state.items()}


@pytest.mark.parametrize("label", RESIDUAL)
def test_logits_agree(label):
    make, name, arguments, _ = RESIDUAL[label]
    network = networks.randomize(make())
    inputs = images(64 if arguments.get("stem") else 32)
    variables = ss.convert.from_pytorch(
        name, network.state_dict(), num_classes=CLASSES, **arguments
    )
    expected = torch_logits(network, inputs)
    assert error(flax_logits(name, variables, inputs, **arguments), expected) < 1e-5


@pytest.mark.parametrize("label", RESIDUAL)
def test_logits_agree_in_double_precision(label):
    make, name, arguments, _ = RESIDUAL[label]
    network = networks.randomize(make()).double()
    inputs = images(64 if arguments.get("stem") else 32).astype(np.float64)
    expected = torch_logits(network, inputs)
    with jax.enable_x64(True):
        variables = ss.convert.from_pytorch(
            name, network.state_dict(), num_classes=CLASSES, **arguments
        )
        actual = flax_logits(name, variables, inputs, **arguments)
    assert error(actual, expected) < 1e-10


@pytest.mark.parametrize("label", RESIDUAL)
def test_pytorch_loads_strictly_what_comes_back_bit_by_bit(label):
    make, name, arguments, naming = RESIDUAL[label]
    source = networks.randomize(make()).state_dict()
    variables = ss.convert.from_pytorch(name, source, num_classes=CLASSES, **arguments)
    back = ss.convert.to_pytorch(
        name, variables, num_classes=CLASSES, naming=naming, **arguments
    )
    make().load_state_dict(as_tensors(back), strict=True)
    assert back.keys() == source.keys()
    for key, value in source.items():
        assert back[key].dtype == value.numpy().dtype
        np.testing.assert_array_equal(back[key], value.numpy(), err_msg=key)


def test_biases_of_vgg_go_into_the_normalisation():
    network = networks.randomize(networks.TorchvisionVGG(PLAN, CLASSES))
    name, arguments = "vgg_dnn_11", {"stages": (2, 1, 1, 1, 1), "width": 8}
    assert network.features[0].bias.abs().max() > 0.1
    variables = ss.convert.from_pytorch(
        name, network.state_dict(), num_classes=CLASSES, **arguments
    )
    inputs = images()
    expected = torch_logits(network, inputs)
    assert error(flax_logits(name, variables, inputs, **arguments), expected) < 1e-5
    back = ss.convert.to_pytorch(
        name, variables, num_classes=CLASSES, naming="torchvision", **arguments
    )
    network.load_state_dict(as_tensors(back), strict=True)
    assert not network.features[0].bias.any()
    assert error(torch_logits(network, inputs), expected) < 1e-5


def test_biases_of_alexnet_are_kept_and_refused_where_there_are_none():
    network = networks.randomize(networks.TorchvisionAlexNet(8, CLASSES))
    name, arguments = "alexnet_dnn", {"width": 8, "stem": "imagenet"}
    biases = [f"features.{i}.bias" for i in (0, 3, 6, 8, 10)]
    message = rf"no bias here without conv_bias=True: {', '.join(biases)}$"
    with pytest.raises(ValueError, match=message):
        ss.convert.from_pytorch(
            name, network.state_dict(), num_classes=CLASSES, **arguments
        )
    inputs = images(96)
    check_alexnet(network, name, inputs, conv_bias=True, **arguments)
    for key in biases:
        network.state_dict()[key].zero_()
    check_alexnet(network, name, inputs, **arguments)


def check_alexnet(network, name, inputs, **arguments):
    """Compares logits, and the state dictionary after a round trip."""
    state = network.state_dict()
    variables = ss.convert.from_pytorch(name, state, num_classes=CLASSES, **arguments)
    expected = torch_logits(network, inputs)
    assert error(flax_logits(name, variables, inputs, **arguments), expected) < 1e-5
    back = ss.convert.to_pytorch(
        name, variables, num_classes=CLASSES, naming="torchvision", **arguments
    )
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value.numpy(), err_msg=key)


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_reads_checkpoints_and_bare_state_dicts(tmp_path, suffix, is_zip):
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = network.state_dict()
    path = tmp_path / f"model{suffix}"
    for content, name in [
        (state, None),
        ({"state_dict": state, "epoch": 3}, None),
        ({"model": state, "epoch": 3}, None),
        (
            {
                "name": "resnet_dnn_18",
                "state_dict": state,
                "optimizer": optimizer.state_dict(),
            },
            "resnet_dnn_18",
        ),
    ]:
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        found, arrays = ss.convert.load_state_dict(path)
        assert found == name
        assert arrays.keys() == state.keys()
        for key, value in state.items():
            assert isinstance(arrays[key], np.ndarray)
            np.testing.assert_array_equal(arrays[key], value)


def test_half_precision_is_widened_exactly(tmp_path):
    values = torch.tensor([1.0, -0.3, 7e-5])
    state = {"b": values.bfloat16(), "h": values.half()}
    torch.save(state, tmp_path / "model.pth")
    _, arrays = ss.convert.load_state_dict(tmp_path / "model.pth")
    for key, value in state.items():
        assert arrays[key].dtype == np.float32
        np.testing.assert_array_equal(arrays[key], value.float())
        found = ss.convert.files.as_array(key, torch.nn.Parameter(value))
        np.testing.assert_array_equal(found, value.float())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.ones(3, dtype=torch.complex64).conj(),
        torch.ones(3, device="meta"),
    ],
)
def test_tensors_that_are_no_arrays_are_named(tmp_path, tensor):
    torch.save({"a.weight": tensor}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"cannot read .*\.pth: a\.weight is no array"):
        ss.convert.load_state_dict(tmp_path / "model.pth")


def test_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = lambda: networks.TorchvisionResNet(64, (2, 2, 2, 2), 1000, large=True)
    trained, network = networks.randomize(make()), make().eval()
    torch.save(trained.state_dict(), "resnet18.pth")
    names = pages.run(ROOT / "docs/convert.md", replace=[("224, 224", "32, 32")])
    network.load_state_dict(torch.load("back.pth"))
    inputs = np.array(names["images"])  # a copy, which may be written to
    expected = torch_logits(network, inputs)
    assert error(names["logits"], expected) < 1e-5
    np.testing.assert_array_equal(expected, torch_logits(trained, inputs))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, how):
    path, folder = tmp_path / "model.pth", tmp_path / "made"
    content = {"state_dict": {"a": torch.ones(2)}, "extra": Payload(folder)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content["extra"], protocol=2))
        message = "cannot read|is refused"
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
        message = r"is refused: it asks for (posix|nt)\.mkdir, and reading that may run"
    with pytest.raises(ValueError, match=message) as caught:
        ss.convert.load_state_dict(path)
    assert "weights_only" not in str(caught.value)
    assert not folder.exists()


def test_a_whole_network_is_refused(tmp_path):
    torch.save(torch.nn.Linear(3, 2), tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"refused: it asks for torch\.nn\.modules"):
        ss.convert.load_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ([1, 2], "list"),
        ({"model": {"a": 1}, "epoch": 3}, "model, epoch"),
        ({"state_dict": {"a": 1}}, "a$"),
    ],
)
def test_files_without_a_state_dict(tmp_path, content, held):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=f"holds no state_dict.*{held}"):
        ss.convert.load_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_files(tmp_path, is_zip, share):
    path = tmp_path / "model.pth"
    torch.save({"a": torch.ones(5000)}, path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cannot read .*model\.pth: damaged"):
        ss.convert.load_state_dict(path)
