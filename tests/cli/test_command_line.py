"""Flags of commands: how they are read, and what is said of mistakes in them."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from checkout import ROOT
from etils import epath

from spatial_smoothing.cli import (
    command_line,
    config_fields,
    config_files,
    corrupt,
    evaluate,
    help_texts,
    predict,
    start,
    train,
)
from spatial_smoothing.configs import common
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runs import locks


def read(*arguments, required=("config", "workdir")):
    """Reads the arguments as train.py does; returns its config as a dict."""
    argv, values = ["train.py", *map(str, arguments)], start.new_flags()
    train.flags.DEFINE_string("workdir", None, "A folder.", flag_values=values)
    train.flags.DEFINE_integer("profile", 0, "N", lower_bound=0, flag_values=values)
    train.flags.DEFINE_bool("fast", False, "Or slow.", flag_values=values)
    command_line.check_flag_files(argv)
    config_files.define(values, argv=argv)
    command_line.parse(argv, values, required=required)
    config = values["config"].value.to_dict()
    return {**config_fields.read(config), "fast": values["fast"].value}


NVIDIA = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
SHAPES = ("--config=shapes", "--workdir=x")


def test_configs_have_names_and_paths(tmp_path, monkeypatch):
    cifar = ["cifar10", "cifar100", "cifar100_improved"]
    others = ["imagenet", "moving_shapes", "shapes"]
    assert config_files.names() == ["camvid", *cifar, *others]
    own = tmp_path / "own.py"
    own.write_text(
        "from spatial_smoothing.configs import shapes\n"
        "def get_config(seed='0'):\n"
        "    config = shapes.get_config()\n"
        "    config.seed = int(seed)\n"
        "    return config\n"
    )
    monkeypatch.chdir(tmp_path)
    expected = read(*SHAPES)
    assert expected["dataset"] == "shapes"
    for value in (ROOT / "configs" / "shapes.py", own, "own.py"):
        assert read(f"--config={value}", "--workdir=x") == expected
    assert read("--config=own.py:7", "--workdir=x")["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["--config.seed=7"], {"seed": 7}),
        (["--config.seed", "7"], {"seed": 7}),
        (["--noconfig.augment"], {"augment": False}),
        (["--config.augment=false", "--config.rate=0"], {"augment": False, "rate": 0}),
        (["--config.stages=2,1"], {"stages": (2, 1)}),
        (["--config.stages=(2,)"], {"stages": (2,)}),
        (["--config.mc_stages=4,head"], {"mc_stages": (4, "head")}),
        (["--config.mc_stages=4", "--config.mc_stages=head"], None),
        (["--config.milestones=()"], {"milestones": ()}),
        (["--config.seed=4294967295"], {"seed": 2**32 - 1}),
        (["--fast"], {"fast": True}),
        (["--fast", "--nofast"], {"fast": False}),
    ],
)
def test_fields_are_overridden(arguments, fields):
    fields = fields or {"mc_stages": (4, "head")}
    before, after = read(*SHAPES), read(*SHAPES, *arguments)
    assert after == {**before, **fields}


def test_flags_from_a_file(tmp_path):
    path = tmp_path / "flags"
    path.write_text("# A comment.\n--config=shapes\n--workdir=x\n--config.seed=3\n")
    assert read(f"--flagfile={path}")["seed"] == 3
    assert read(f"--flagfile={path}", "--config.seed=4")["seed"] == 4


MISTAKES = {
    # Fields: types, ranges, lists, names.
    "--config.stages=1.5,1,1,1": "stages must be a list of whole numbers of at least 1",
    "--config.stages=1,-1": "stages must be a list of whole numbers of at least 1, got",
    "--config.stages={}": "stages must be a list of whole numbers of at least 1, got (",
    "--config.smoothing=1,True": "smoothing must be a list of whole numbers of at leas",
    "--config.milestones=a": "milestones must be a list of whole numbers of at least 0",
    "--config.mc_stages=4,haed": "at least 1, or head among them, got 4,haed",
    "--config.taps=1,nan": "taps must be a list of numbers, got",
    "--config.seed=99999999999999999999": "seed must be a whole number of at least 0 a",
    "--config.seed=4294967296": "of at most 4294967295, got 4294967296; larger ones",
    f"--config.seed=1{'0' * 400}": "seed must be a whole number of at least 0 and of",
    f"--config.mean=1{'0' * 400},0,0": "mean must be a list of numbers of at least 0",
    "--config.seed=-1": "seed must be a whole number of at least 0 and of at most 4294",
    "--config.seed=1.5": "seed must be a whole number of at least 0 and of at most",
    "--config.width=2147483648": "width must be a whole number of at least 1, got 2147",
    "--config.epochs=0": "epochs must be a whole number of at least 1, got 0; without ",
    "--config.epochs=many": "epochs must be a whole number of at least 1, got many",
    "--config.learning_rate=nan": "learning_rate must be a number of at least 0, got n",
    "--config.learning_rate=inf": "learning_rate must be a number of at least 0, got i",
    "--config.learning_rate=1e39": "learning_rate must be a number of at least 0, got",
    "--config.rate=1": "rate must be a number of at least 0 and below 1, got 1.0",
    "--config.momentum=1": "momentum must be a number of at least 0 and below 1, got",
    "--config.temperature=0": "temperature must be a number above 0, got 0.0",
    "--config.augment=maybe": "augment must be True or False, got maybe",
    "--config.head=gab": "unknown head 'gab'; did you mean 'gap'? choices: gap, bn_gap",
    "--config.sed=1": "unknown config field 'sed'; did you mean 'seed'?",
    "--config.seed.x=1": "unknown config field 'seed.x'; did you mean 'seed'?",
    "--config.conv_bias=True": "the config has no field 'conv_bias'; add it to a",
    "--config.epochs": "--config.epochs needs a value, as in --config.epochs=VALUE",
    # Flags.
    "--profile=-1": "--profile must be a whole number of at least 0, got -1",
    "--profile=some": "--profile must be a whole number of at least 0, got some",
    "--fast=maybe": "--fast must be True or False, got maybe",
    "--profil=1": "unknown flag --profil; did you mean --profile? --help lists the fla",
    "--workdir": "--workdir needs a value, as in --workdir=VALUE",
    "--workdir=": "--workdir must be given; --help lists the flags",
    "more": "unexpected arguments more; flags are written --NAME=VALUE",
    "--flagfile=/nowhere": "Unable to open flagfile: [Errno 2] No such file",
    # Configs.
    "--config=shape": "unknown config 'shape'; did you mean 'shapes'? choices: camvid",
    "--config=configs/none.py": "there is no config file configs/none.py; names to",
    f"--config={ROOT}/setup.cfg": "setup.cfg is no Python file: its name must end in",
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_mistakes_are_one_line_in_our_words(argument):
    with pytest.raises(ValueError, match=re.escape(MISTAKES[argument])) as found:
        read(*SHAPES, argument)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config and --workdir must be given; --help lists the flags"),
        (["--workdir=x"], "--config must be given"),
        (
            ["--workdir=x", "--config.seed=1"],
            "--config=NAME must be given before --con",
        ),
        (
            ["--config.seed=1", *SHAPES],
            "--config=NAME must be given before --config.se",
        ),
        (
            [*SHAPES, "--config.seed=4294967295", "--config.members=2"],
            "the last member",
        ),
    ],
)
def test_mistakes_in_several_flags(arguments, message):
    with pytest.raises(ValueError, match=message):
        read(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def get_config(): return {}",
            "must return an ml_collections.ConfigDict, got",
        ),
        (
            "x = 1\ndef get_config():\n    return 1 / 0",
            "line 3: ZeroDivisionError: div",
        ),
        ("import nothing", "line 1: ModuleNotFoundError: No module named 'nothing'"),
        ("def get_config(: pass", "SyntaxError: invalid syntax"),
        ("x = 1", "has no attribute 'get_config'"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(): return ConfigDict({'seed': 0})",
            "the config lacks alpha, augment, backbone_factor, batch_repetitions",
        ),
        (
            "from spatial_smoothing.configs import common\n"
            "def get_config():\n"
            "    config = common.get_config()\n"
            "    config.learning_rat = 1\n"
            "    return config\n",
            "unknown config field 'learning_rat'; did you mean 'learning_rate'?",
        ),
    ],
)
def test_mistakes_in_a_config_file(text, message, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(f"--config={path}", "--workdir=x")


def test_every_field_is_described_and_has_an_allowed_default():
    described = {
        name: (default, text) for name, default, text in config_fields.describe()
    }
    defaults = common.get_config().to_dict()
    assert described.keys() == defaults.keys()
    # Of a row of the table of networks, and of no config.
    assert config_fields.FIELDS.keys() - described.keys() == {"conv_bias"}
    assert described["seed"][0] == "0"
    assert described["milestones"][0] == "60,120,160"
    assert "one of float32, bfloat16." in described["dtype"][1]
    for name, (_, text) in described.items():
        assert len(text) > 20, name
        assert text[0].isupper(), name
        assert text[-1] == ".", name
    for name in config_files.names():
        config_fields.read(config_files.load(name).to_dict())


@pytest.mark.parametrize("module", [train, evaluate, predict, corrupt])
def test_help_describes_every_flag_in_80_columns(module):
    text = help_texts.command(module.__doc__, module.FLAGS)
    if module is train:
        text += train.fields_help()
    assert max(map(len, text.splitlines())) <= 80
    for name in module.FLAGS:
        assert f"  --{name}" in text
        described = module.FLAGS[name].help.removesuffix(help_texts._REPEAT)
        assert described[0].isupper(), name
        assert described[-1] == ".", name


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.data_dir=x",
            "unknown flag --config.data_dir; did you mean --data_dir",
        ),
        (
            "--config.width=3",
            "unknown flag --config.width: a run keeps the config that",
        ),
        ("--num_sample=3", "unknown flag --num_sample; did you mean --num_samples?"),
    ],
)
def test_flags_that_evaluation_has_not(argument, message):
    with pytest.raises(ValueError, match=message):
        command_line.parse(["evaluate.py", argument], evaluate.FLAGS)


@pytest.fixture
def corrupting(tmp_path):
    """A function that calls corrupt.py for a data set, and the folder it writes to."""

    def call(name):
        output = tmp_path / "out"
        corrupt.FLAGS(["corrupt.py", f"--dataset={name}", f"--output={output}"])
        corrupt.corrupt()

    yield call, tmp_path / "out"
    corrupt.FLAGS.unparse_flags()


@pytest.mark.parametrize("name", ["camvid", "moving_shapes", "masks:x", "imagenet"])
def test_sets_that_cannot_be_corrupted_are_refused_before_they_are_read(
    name, corrupting, monkeypatch
):
    call, output = corrupting
    monkeypatch.setattr(corrupt.sources, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match=f"{name} cannot be written: .* cifar10, cif"):
        call(name)
    assert not output.exists()


def test_a_second_command_does_not_write_to_the_same_folder(corrupting, monkeypatch):
    call, output = corrupting
    tiny = Dataset(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int32))
    monkeypatch.setattr(corrupt.sources, "load", lambda *_, **__: tiny)
    monkeypatch.setattr(corrupt, "write_cifar_c", lambda *_, **__: 1 / 0)
    with (
        locks.locked(epath.Path(output), make=True),
        pytest.raises(ValueError, match="out is in use by process"),
    ):
        call("shapes")


def test_advice_names_flags_that_the_command_has():
    text = "pass --config.data_dir=DIR, --config.download=True or --config.seed"
    advice = "pass --data_dir=DIR, --download=True or --seed"
    assert command_line.in_flags_of(evaluate.FLAGS, text) == advice
    values = start.new_flags()
    config_files.define(values, argv=[])
    train.flags.DEFINE_string("data_dir", None, "A flag too.", flag_values=values)
    assert command_line.in_flags_of(values, text) == text


@pytest.mark.parametrize("spelling", ["--help", "-h", "--helpfull"])
def test_asking_for_help_is_no_mistake(spelling):
    done = command("train", "--config=shapes", spelling)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--config.shard_state (default: False)" in done.stdout


def test_a_command_is_named():
    done = command("--help")
    assert (done.returncode, done.stderr) == (0, "")
    names = ["train", "evaluate", "predict", "corrupt", "convert"]
    assert [line.split()[0] for line in done.stdout.splitlines()[2:7]] == names
    done = command("--version")
    assert done.stdout.startswith("spatial-smoothing 0.")
    for arguments, message in (
        (
            ["trian"],
            "unknown command 'trian'; did you mean 'train'? choices: train, ev",
        ),
        ([], "a command is missing; choices: train, evaluate"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {message}")
        assert done.stderr.count("\n") == 1


def test_convert_is_a_command():
    done = command("convert", "only_one")
    assert done.returncode == 2
    assert "required: OUT; --help shows how" in done.stderr


def command(*arguments):
    """Runs `python -m spatial_smoothing` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "spatial_smoothing", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


LOADED = """
import sys
from spatial_smoothing.cli import {name}
print(*[name for name in sys.modules if name.startswith("spatial_smoothing.")])
"""


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("commands", "cli.train cli.evaluate analysis report serving training data"),
        ("train", "cli.evaluate analysis evaluation.suites report serving"),
        ("predict", "cli.train cli.evaluate analysis report"),
        ("corrupt", "cli.train cli.evaluate analysis report serving"),
        ("convert", "cli.train cli.evaluate analysis report serving"),
    ],
)
def test_a_command_does_not_import_what_others_need(name, others):
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(name=name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert f"spatial_smoothing.cli.{name}" in loaded
    assert not {f"spatial_smoothing.{other}" for other in others.split()} & loaded


def test_a_platform_that_does_not_work_is_one_line(tmp_path):
    error = RuntimeError("Unable to initialize backend 'rocm': not in the list")
    assert start._no_device(error) == str(error)
    assert start._no_device(RuntimeError("a defect")) == ""
    assert start._no_device(AssertionError("a defect")) == ""
    if any(pathlib.Path(name).exists() for name in NVIDIA):
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "train.py", *SHAPES, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    # Where JAX's CUDA plugin is installed, it says first why it does not work.
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: JAX finds no device of JAX_PLATFORMS=cuda")
