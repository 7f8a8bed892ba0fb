import itertools
import json
import pathlib

import pytest

from benchmarks import reproduce, run_files
from configs import cifar100


def made_up(suite, run):
    """A row with what pages are made of."""
    numbers = ("nll", "accuracy", "ece", "border_nll", "top_mean", "mean_nll")
    others = ("mean_error", "relative_variance", "high_delta")
    row = dict.fromkeys((*numbers, *others), 0.5)
    return {"suite": suite, "run": run, "label": "A network", "num_samples": 1, **row}


def rows_of(folder):
    """Rows of an evaluated workdir, or of a folder that is kept."""
    paths = [
        pathlib.Path(folder, *names, "metrics.json") for names in ([], ["evaluation"])
    ]
    found = [path for path in paths if path.exists()]
    return json.loads(found[0].read_text())["rows"] if found else []


class Recorder:
    """Runs nothing: writes what the commands would, and remembers them.

    Args:
      codes: Exit code of a script, by its number among those of its name; 0 without.
    """

    def __init__(self, codes=None):
        self.commands, self.limits, self._codes = [], [], codes or {}

    def __call__(self, command, *, seconds):
        script, option = (
            command[0],
            dict(c.split("=", 1) for c in command[1:] if "=" in c),
        )
        number = sum(each[0] == script for each in self.commands)
        self.commands.append(command)
        self.limits.append(seconds)
        code = self._codes.get((script, number), 0)
        if script == "evaluate.py" and code == 0:
            folder = pathlib.Path(
                option["--output"]
                if "--output" in option
                else f"{option['--workdir']}/evaluation"
            )
            folder.mkdir(parents=True, exist_ok=True)
            if "--compare" in option:
                compared = option["--compare"].split(",")
                rows = [row for each in compared for row in rows_of(each)]
            else:
                rows = rows_of(option["--workdir"])
                suites = option.get("--suite", "ensemble").split(",")
                rows += [made_up(suite, option["--workdir"]) for suite in suites]
            for name in (*run_files.TEXTS, *reproduce._FIGURES, "examples.npz"):
                (folder / name).write_text(json.dumps({"rows": rows}))
        return code

    @property
    def scripts(self):
        return [command[0] for command in self.commands]


def reproduced(tmp_path, *arguments, codes=None, scale="small", seeds="1,2"):
    """Returns the exit code, and what was run."""
    recorder = Recorder(codes)
    code = reproduce.main(
        [
            *(f"--scale={scale}", f"--seeds={seeds}", "--data_dir=/data"),
            *(f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'results'}"),
            *arguments,
        ],
        execute=recorder,
    )
    return code, recorder


def names(*seeds, models=reproduce.MODELS):
    return [
        f"{model}-seed{seed}"
        for pair in reproduce.PAIRS
        for seed in seeds
        for model in pair
        if model in models
    ]


@pytest.mark.parametrize("scale", reproduce.SCALES)
def test_every_run_is_trained_then_evaluated_then_all_are_compared(scale, tmp_path):
    code, done = reproduced(tmp_path, scale=scale)
    assert code == 0
    commands = iter(done.commands)
    for name in names(1, 2):
        analyses = reproduce.ANALYSES[name.removesuffix(f"-seed{name[-1]}")]
        analyses = analyses if scale == "medium" else ()
        train, evaluate, *others = itertools.islice(commands, 2 + len(analyses))
        assert (train[0], evaluate[0]) == ("train.py", "evaluate.py")
        workdir = f"--workdir={tmp_path / 'runs' / name}"
        assert train[1:3] == ["--config=configs/cifar100.py", workdir]
        assert {"--config.data_dir=/data", f"--config.seed={name[-1]}"} <= set(train)
        assert evaluate[1:] == [workdir, "--data_dir=/data", "--num_samples=50"]
        for analysis, command in zip(analyses, others, strict=True):
            assert command == [
                "evaluate.py",
                workdir,
                "--data_dir=/data",
                *analysis.arguments,
            ]
    (last,) = commands
    assert last[0] == "evaluate.py"
    assert ("--published" in last) == (scale == "full")
    compared = last[1].removeprefix("--compare=").split(",")
    assert compared == [str(tmp_path / "runs" / name) for name in names(1, 2)]
    assert set(done.limits) == {None}


def test_the_full_scale_is_the_recipe_of_the_paper():
    fields = reproduce.SCALES["full"].fields
    # How often it is evaluated and saved changes nothing that is trained.
    assert fields.keys() == {"eval_every", "checkpoint_every"}
    config = cifar100.get_config()
    assert (config.epochs, config.milestones) == (200, (60, 120, 160))


def test_what_is_finished_is_kept_as_a_small_file_and_not_done_again(tmp_path):
    # The fourth training ends with an error.
    code, first = reproduced(tmp_path, seeds="1", codes={("train.py", 3): 1})
    assert code == 1
    assert first.scripts == ["train.py", "evaluate.py"] * 3 + ["train.py"]
    kept = tmp_path / "results" / "runs"
    assert sorted(p.name for p in kept.iterdir()) == sorted(names(1)[:3])
    for folder in kept.iterdir():
        assert {path.name for path in folder.iterdir()} == set(run_files.TEXTS)
        assert str(tmp_path) not in (folder / "metrics.json").read_text()
    # Another machine has the results, and not the workdirs.
    (tmp_path / "runs").rename(tmp_path / "gone")
    code, second = reproduced(tmp_path, seeds="1")
    assert code == 0
    assert second.scripts == ["train.py", "evaluate.py", "evaluate.py"]
    assert f"--workdir={tmp_path / 'runs' / names(1)[3]}" in second.commands[0]
    compared = second.commands[-1][1].removeprefix("--compare=").split(",")
    assert compared == [
        *(str(kept / name) for name in names(1)[:3]),
        str(tmp_path / "runs" / names(1)[3]),
    ]


def test_results_are_not_replaced_by_what_is_kept_of_runs(tmp_path, capsys):
    """A new checkout has the results, and no predictions of single images."""
    reproduced(tmp_path, seeds="1")
    page = tmp_path / "results" / "metrics.json"
    page.write_text("with differences")
    (tmp_path / "runs").rename(tmp_path / "gone")
    code, done = reproduced(tmp_path, seeds="1")
    assert (code, done.scripts) == (0, [])
    assert page.read_text() == "with differences"
    assert "no run is new, and no workdir is here" in capsys.readouterr().out


def test_an_evaluation_that_is_there_is_not_made_again(tmp_path):
    done = tmp_path / "runs" / "resnet_mcdo_18-seed1" / "evaluation"
    Recorder()(["evaluate.py", f"--workdir={done.parent}"], seconds=None)
    _, recorder = reproduced(tmp_path, "--models=resnet_mcdo_18", seeds="1")
    # train.py knows by itself that it is finished.
    assert recorder.scripts == ["train.py", "evaluate.py"]
    assert recorder.commands[-1][1].startswith("--compare=")


def test_only_the_analyses_that_are_missing_are_made(tmp_path):
    workdir = tmp_path / "runs" / "resnet_mcdo_18-seed1"
    analyses = reproduce.ANALYSES["resnet_mcdo_18"]
    for arguments in ([], [analyses[1].arguments[0]]):
        Recorder()(
            ["evaluate.py", f"--workdir={workdir}", *arguments],
            seconds=None,
        )
    # What was kept before there were analyses is not all that is asked for.
    kept = tmp_path / "results" / "runs" / "resnet_mcdo_18-seed1"
    run_files.keep(workdir / "evaluation", kept, names={})
    only = ("--models=resnet_mcdo_18",)
    _, done = reproduced(tmp_path, *only, scale="medium", seeds="1")
    assert done.scripts == ["train.py", "evaluate.py", "evaluate.py"]
    assert done.commands[1][3] == analyses[0].arguments[0]
    rows = json.loads((kept / "metrics.json").read_text())["rows"]
    assert {row["suite"] for row in rows} == {
        "ensemble",
        *(suite for analysis in analyses for suite in analysis.suites),
    }
    _, done = reproduced(tmp_path, *only, scale="medium", seeds="1")
    assert done.scripts == ["evaluate.py"]


def test_a_training_whose_time_is_over_is_no_error(tmp_path, capsys):
    code, done = reproduced(tmp_path, "--minutes=10", codes={("train.py", 1): None})
    assert code == 0
    assert done.scripts == ["train.py", "evaluate.py", "train.py", "evaluate.py"]
    # What follows the training has a minute.
    assert 9 * 60 - 5 < done.limits[0] <= 9 * 60
    # What is finished is drawn.
    compared = done.commands[-1][1]
    assert compared == f"--compare={tmp_path / 'runs' / names(1)[0]}"
    assert "results of 1 of 8 runs" in capsys.readouterr().out
    # No training begins that has no time for a step.
    code, done = reproduced(tmp_path, "--minutes=1")
    assert (code, done.scripts) == (0, ["evaluate.py"])


def test_runs_in_another_type_are_other_runs(tmp_path):
    _, done = reproduced(tmp_path, "--dtype=bfloat16", seeds="1")
    assert "--config.dtype=bfloat16" in done.commands[0]
    assert (
        f"--workdir={tmp_path}/runs/resnet_mcdo_18-bfloat16-seed1" in done.commands[0]
    )
    _, done = reproduced(tmp_path, seeds="1")
    assert len(done.scripts) == 9


def test_small_files_of_a_report_are_kept_without_paths_of_the_machine(tmp_path):
    report, results = tmp_path / "report", tmp_path / "results"
    report.mkdir()
    kept = {*run_files.TEXTS, *reproduce._FIGURES}
    for name in {*kept, "examples.npz", "time.png"}:
        (report / name).write_text("/home/me/runs/resnet-seed1")
    mean = {"suite": "corruption", "run": "/home/me/runs/resnet-seed1"}
    rows = [{**mean, "corruption": "fog", "severity": 1}, mean]
    (report / "metrics.json").write_text(json.dumps({"rows": rows, "provenance": {}}))
    run_files.keep(
        report,
        results,
        names={"/home/me/runs": "runs"},
        figures=reproduce._FIGURES,
    )
    assert {path.name for path in results.iterdir()} == kept
    assert (results / "metrics.csv").read_text() == "runs/resnet-seed1"
    # Single corruptions are most of the bytes, and their means stay.
    assert json.loads((results / "metrics.json").read_text()) == {
        "rows": [{"suite": "corruption", "run": "runs/resnet-seed1"}],
        "provenance": {},
    }
