"""README and docs: every block of Python is run, and every command is one there is."""

import importlib
import pathlib
import re

import jax
import numpy as np
import pages
import pytest
from absl import flags
from checkout import ROOT
from random_runs import write_run

import spatial_smoothing as ss
from spatial_smoothing import models
from spatial_smoothing.cli import convert, corrupt, evaluate, predict, start, train
from spatial_smoothing.cli.config_fields import FIELDS
from spatial_smoothing.evaluation.suites import SUITES

BY_NAME = {pages.name_of(path): path for path in pages.PAGES}
WITH_CODE = [name for name, path in BY_NAME.items() if pages.blocks(path)]
# Pages that have a test of their own, because they need something or say more.
TESTED = {"README", "convert", "existing_models", "own_models", "serving"}
# `make docs` executes these; they train networks.
NOTEBOOKS = [n for n in WITH_CODE if "kernelspec:" in BY_NAME[n].read_text()]
OTHERS = [name for name in WITH_CODE if name not in TESTED and name not in NOTEBOOKS]
DOCS = {name: page for name, page in BY_NAME.items() if name != "README"}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_code_runs_from_the_top(name):
    pages.run(BY_NAME[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_run(name, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    # Users have no strict settings, and matplotlib compares shapes of its own.
    with jax.numpy_rank_promotion("allow"):
        pages.run(BY_NAME[name])


def test_readme(tmp_path):
    names = pages.run(BY_NAME["README"])
    stage, maps = names["Stage"](), names["images"][:1]
    key = jax.random.key(0)
    assert stage.apply(stage.init(key, maps), maps).shape == (1, 16, 16, 64)
    assert [row["num_samples"] for row in names["rows"]] == [1, 2, 3, 4, 5, 10]
    assert (tmp_path / "report" / "report.html").exists()
    assert names["probs"].shape == (50, 64, 10)
    assert names["means"].shape == (5, 64, 10)
    assert 0 < names["scores"]["nll"] < 20
    logits = names["smoothed"].apply(names["variables"], names["images"])
    assert np.isfinite(logits).all()


def test_existing_models():
    names = pages.run(DOCS["existing_models"])
    assert names["probs"].shape == (20, 4, 10)
    for name in ("paper", "head", "same"):
        model = names[name]
        assert model.apply(names["variables"], names["images"]).shape == (4, 10)


@pytest.mark.slow
def test_own_models(tmp_path, capsys):
    names = pages.run(DOCS["own_models"])
    assert (tmp_path / "report" / "report.html").exists()
    assert "all samples of CNN are equal" in capsys.readouterr().out
    assert names["logits"].shape == (64, 10)
    assert [row["num_members"] for row in names["rows"]] == [1, 2, 3, 3, *(1,) * 6]
    assert all("detection" in row for row in names["rows"])


def test_serving(tmp_path):
    write_run(tmp_path / "runs/shapes", model="resnet_mcdo_smoothing_18", rate=0.95)
    for _ in range(2):  # a reader may paste it again
        names = pages.run(
            DOCS["serving"], replace=[("num_samples=20", "num_samples=5")]
        )
    for field, values in names["result"].items():
        np.testing.assert_allclose(values, names[field], atol=1e-6)


def test_the_reference_has_every_public_name():
    text = "".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
    names = re.findall(r"automodule:: (\S+)", text)
    modules = [importlib.import_module(name) for name in names]
    found = {id(value) for module in modules for value in vars(module).values()}
    found |= set(map(id, modules))
    assert [name for name in ss.__all__ if id(getattr(ss, name)) not in found] == []


COMMANDS = [
    pytest.param(command, id=f"{name}-{command.name}-{number}")
    for name, path in BY_NAME.items()
    for number, command in enumerate(pages.commands(path))
]
FLAGS = {module.__name__.rpartition(".")[-1]: module for module in (train, evaluate)}
FLAGS |= {"predict": predict, "corrupt": corrupt}
PROCESS_FLAGS = flags.FlagValues()  # defined when a command starts
start._define_process_flags(PROCESS_FLAGS)


def test_there_are_commands_on_the_pages():
    assert len(COMMANDS) > 60  # a pattern that finds none would pass


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_those_there_are(command):
    """Names, flags, fields, suites and models; values are not tried."""
    if command.name == "make":
        targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M)
        words = [word for word in command.arguments if re.fullmatch(r"[a-z-]+", word)]
        assert set(words) <= set(targets)
    elif command.name.startswith("benchmarks."):
        assert (ROOT / f"{command.name.replace('.', '/')}.py").exists()
    else:
        for word in command.arguments:
            if word.startswith("--") and word != "--" and "$" not in word[:3]:
                _check_flag(command.name, *word[2:].partition("=")[::2])


def _check_flag(name, flag, value):
    if name == "convert":
        assert f"--{flag}" in convert._parser()._option_string_actions
        return
    if flag.startswith("config."):
        assert flag.removeprefix("config.") in FIELDS
    elif flag != "config":
        known = {*FLAGS[name].FLAGS, *PROCESS_FLAGS}
        assert flag in known or flag.removeprefix("no") in known
    if flag == "config" and value:
        assert (ROOT / "configs" / f"{pathlib.Path(value).stem}.py").exists()
    if flag == "config.model" and "$" not in value:
        models.spec(value)  # raises ValueError where there is no such network
    if flag == "suite" and value not in ("all", "NAME"):
        assert set(value.split(",")) <= set(SUITES)
