import pytest

from benchmarks import reproduce
from configs import cifar100


def planned(scale, tmp_path, **options):
    options = {"seeds": (1, 2), "data_dir": "data", "num_samples": 50, **options}
    return list(reproduce.commands(scale, runs=tmp_path, **options))


@pytest.mark.parametrize("scale", reproduce.SCALES)
def test_every_run_is_trained_then_evaluated_then_all_are_compared(scale, tmp_path):
    plan = planned(scale, tmp_path)
    scripts = [command[0] for command in plan]
    assert scripts == ["train.py", "evaluate.py"] * 8 + ["evaluate.py"]
    assert ("--published" in plan[-1]) == (scale == "full")
    workdirs = [f"{model}-seed{s}" for s in (1, 2) for model in reproduce.MODELS]
    compared = plan[-1][1].removeprefix("--compare=").split(",")
    assert compared == [str(tmp_path / workdir) for workdir in workdirs]


def test_the_full_scale_is_the_recipe_of_the_paper():
    _, fields = reproduce.SCALES["full"]
    assert fields == {}
    config = cifar100.get_config()
    assert (config.epochs, config.milestones) == (200, (60, 120, 160))


def test_what_is_evaluated_is_not_evaluated_again(tmp_path):
    done = tmp_path / "resnet_mcdo_18-seed1" / "evaluation" / "metrics.json"
    done.parent.mkdir(parents=True)
    done.write_text("[]")
    workdir = f"--workdir={done.parent.parent}"
    scripts = [c[0] for c in planned("small", tmp_path) if workdir in c]
    assert scripts == ["train.py"]  # which knows by itself that it is finished


def test_small_files_of_a_report_are_kept_without_paths_of_the_machine(tmp_path):
    report, results = tmp_path / "report", tmp_path / "results"
    report.mkdir()
    kept = {*reproduce._TEXTS, *reproduce._FIGURES}
    for name in {*kept, "examples.npz", "time.png"}:
        (report / name).write_text("/home/me/runs/resnet-seed1")
    reproduce.keep(report, results, names={"/home/me/runs": "runs"})
    assert {path.name for path in results.iterdir()} == kept
    assert (results / "metrics.csv").read_text() == "runs/resnet-seed1"
