import json
import pathlib
import subprocess
import sys

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_weights import SMALL, assert_same, convert, small_state

import spatial_smoothing as ss
from spatial_smoothing.cli import convert as command
from spatial_smoothing.cli.convert import _FIELDS, _dataset, main
from spatial_smoothing.runs import recipes, workdirs


def save_npz(path, state):
    np.savez(path, **state)


def save_safetensors(path, state):
    pytest.importorskip("safetensors.numpy").save_file(state, path)


WRITERS = {".npz": save_npz, ".safetensors": save_safetensors}


@pytest.mark.parametrize("suffix", WRITERS)
def test_reads_files(tmp_path, suffix):
    state = small_state()
    WRITERS[suffix](tmp_path / f"net{suffix}", state)
    name, found = ss.convert.load_state_dict(tmp_path / f"net{suffix}")
    assert name is None
    assert found.keys() == state.keys()
    assert_same(convert(found), convert(state))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_single(tmp_path, dtype):
    half = {
        key: value.astype(jnp.dtype(dtype)) if value.ndim else value
        for key, value in small_state().items()
    }
    save_safetensors(tmp_path / "net.safetensors", half)
    _, found = ss.convert.load_state_dict(tmp_path / "net.safetensors")
    variables = convert(found)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    single = {key: value.astype(np.float32) for key, value in half.items()}
    assert_same(variables, convert(single))


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_files(tmp_path, suffix, share):
    path = tmp_path / f"net{suffix}"
    WRITERS[suffix](path, small_state())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=rf"cannot read .*/net\{suffix}: damaged, or"):
        ss.convert.load_state_dict(path)


def test_an_npz_of_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "net.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"cannot read .*net\.npz: damaged, or not"):
        ss.convert.load_state_dict(tmp_path / "net.npz")


def test_unknown_suffix(tmp_path):
    message = (
        r"cannot tell the format of .*net\.h5; "
        r"suffixes: \.pth, \.pth\.tar, \.pt, \.ckpt, \.bin, \.safetensors, \.npz$"
    )
    with pytest.raises(ValueError, match=message):
        ss.convert.load_state_dict(tmp_path / "net.h5")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_no_such_file(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    with pytest.raises(FileNotFoundError, match=f"net{suffix}"):
        ss.convert.load_state_dict(tmp_path / f"net{suffix}")


@pytest.mark.parametrize(
    ("suffix", "library"), [(".pth", "torch"), (".safetensors", "safetensors")]
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, suffix, library):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    (tmp_path / f"net{suffix}").touch()
    message = rf"takes {library}; pip install 'spatial-smoothing\[{library}\]', or save"
    with pytest.raises(ValueError, match=message):
        ss.convert.load_state_dict(tmp_path / f"net{suffix}")


FLAGS = ["--dataset=cifar10", "--width=4", "--stages", "1", "1"]


def test_the_script_makes_a_workdir(tmp_path):
    state = small_state()
    np.savez(tmp_path / "net.npz", **state)
    out = tmp_path / "runs" / "converted"
    process = subprocess.run(
        [
            *(sys.executable, "-W", "error::RuntimeWarning"),
            *("-m", "spatial_smoothing.convert", tmp_path / "net.npz", out),
            *("--model=resnet_mcdo_smoothing_18", "--taps", "1", "2", "1", *FLAGS),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stderr == ""
    assert process.returncode == 0
    first, second = process.stdout.splitlines()
    assert first == (
        "resnet_mcdo_smoothing_18 for cifar10 (10 classes, cifar stem): "
        f"1,454 parameters from {tmp_path / 'net.npz'}"
    )
    assert second == f"step 0 in {out}; python evaluate.py --workdir={out}"
    assert [path.name for path in out.parent.iterdir()] == ["converted"]
    run = workdirs.load(out)
    assert run.step == 0
    assert_same(run.variables, convert(state))
    assert run.model == ss.models.build(
        "resnet_mcdo_smoothing_18", taps=(1.0, 2.0, 1.0), **SMALL
    )
    assert json.loads((out / "config.json").read_text())["converted_from"] == "net.npz"


@pytest.mark.parametrize("naming", ["authors", "torchvision"])
def test_the_data_set_and_the_stem_follow_from_the_weights(tmp_path, capsys, naming):
    arguments = {"num_classes": 1000, "stem": "imagenet", "stages": (1, 1), "width": 4}
    name = "resnet_dnn_50"
    model = ss.models.build(name, **arguments)
    variables = golden.variables(model, np.zeros((1, 64, 64, 3), np.float32))
    state = ss.convert.to_pytorch(name, variables, naming=naming, **arguments)
    np.savez(tmp_path / "net.npz", **state)
    out = str(tmp_path / "out")
    flags = [f"--model={name}", "--stages", "1", "1", "--width=4"]
    assert main([str(tmp_path / "net.npz"), out, *flags]) == 0
    assert (
        f"{name} for imagenet (1000 classes, imagenet stem)" in capsys.readouterr().out
    )
    run = workdirs.load(out)
    assert run.model == model
    assert_same(run.variables, variables)


def test_weights_without_a_known_last_layer(tmp_path, capsys):
    np.savez(tmp_path / "net.npz", a=np.ones(3))
    arguments = [str(tmp_path / "net.npz"), str(tmp_path / "out")]
    assert main([*arguments, "--model=resnet_dnn_18"]) == 2
    error = capsys.readouterr().err
    assert "has no last layer by a known name; pass --dataset" in error
    assert "layouts that are known: authors (layer0.0.weight, " in error


def test_no_set_for_segmentation_is_chosen_for_its_number_of_classes():
    state = {"classifier.0.dense.bias": np.ones(11)}
    with pytest.raises(ValueError, match="has 11 classes; pass --dataset=NAME, of ci"):
        _dataset(pathlib.Path("net.npz"), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "does not name its model; pass --model=NAME"),
        (["--model=resnet_19"], "unknown model 'resnet_19'; did you mean "),
        (["--model=resnet_dnn_34", "--head=bn_gap"], "does not fit resnet_dnn_34"),
        (["--model=resnet_dnn_18", "--stem=large"], "unknown stem 'large'"),
        (["--model=resnet_dnn_18", "--dtype=int"], "unknown dtype 'int'"),
        (["--model=resnet_dnn_18", "--dataset=c"], "unknown data set 'c'"),
        (["--model=resnet_dnn_18", "--dataset=cifar100"], "(100, 8) was expected"),
        (["--mc_stages", "1", "x"], "'x' is neither the number of a stage nor 'head'"),
        (["--modle=resnet_dnn_18"], "unrecognized arguments: --modle=resnet_dnn_18; "),
        (["--width=wide"], "argument --width: invalid int value: 'wide'; --help"),
        (["--model=resnet_dnn_18", "--dataset="], "of cifar10, shapes"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, arguments, message):
    np.savez(tmp_path / "net.npz", **small_state())
    source, out = str(tmp_path / "net.npz"), str(tmp_path / "out")
    assert main([source, out, *FLAGS, *arguments]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert message in stderr
    assert stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]


def test_an_interruption_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    np.savez(tmp_path / "net.npz", **small_state())
    monkeypatch.setattr(command.Checkpoints, "save", interrupted)
    arguments = [str(tmp_path / "net.npz"), str(tmp_path / "out"), *FLAGS]
    assert main([*arguments, "--model=resnet_dnn_18"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]


def test_the_script_overwrites_nothing(tmp_path, capsys):
    np.savez(tmp_path / "net.npz", **small_state())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("42")
    for out in (tmp_path / "full", tmp_path / "net.npz"):
        arguments = [str(tmp_path / "net.npz"), str(out), "--model=resnet_dnn_18"]
        assert main([*arguments, *FLAGS]) == 2
        assert f"{out} is there and not empty" in capsys.readouterr().err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "42"
    assert len(list((tmp_path / "full").iterdir())) == 1


def test_the_script_takes_every_field_of_a_model_with_weights_in_pytorch():
    of_pytorch = set(recipes.MODEL_FIELDS) - set(recipes.RIVAL_FIELDS)
    assert sorted(_FIELDS) == sorted(of_pytorch)
