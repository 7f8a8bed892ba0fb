"""What evaluate.py keeps, and which mistakes it finds before it computes anything."""

import contextlib
import fnmatch
import re
import shutil

import pytest
from command_calls import called
from random_runs import write_run
from small_runs import prepare, run

from spatial_smoothing import report
from spatial_smoothing.cli import evaluate as command
from spatial_smoothing.cli import evaluate_flags, suite_choice
from spatial_smoothing.cli.evaluation_setting import load_setting
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import workdirs

MODELS = {
    "a": "resnet_mcdo_smoothing_18",
    "b": "resnet_mcdo_smoothing_18",
    "c": "preresnet_mcdo_18",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small CIFAR-10 and runs of it."""
    path = tmp_path_factory.mktemp("home")
    prepare(path)
    for seed, (name, model) in enumerate(MODELS.items()):
        fields = {"seed": seed, "data_dir": str(path / "tfds"), "val_fraction": 0.2}
        write_run(path / name, model=model, dataset="cifar10", mc_stages=[1], **fields)
    fields["ensemble"] = "batch"
    write_run(path / "d", model="resnet_dnn_18", dataset="cifar10", **fields)
    return path


def evaluate(home, *arguments):
    return run("evaluate.py", *arguments, home=home)


def read(home, name):
    return report.read(home / name / "metrics.json")


def test_an_ensemble_leaves_what_is_there_of_its_members(home):
    """The scores of a run and of its ensemble, and both in one comparison."""
    a, both = home / "a", f"--workdir={home / 'a'},{home / 'b'}"
    few = ("--num_samples=2", "--num_replicates=0")
    for arguments in (
        (f"--workdir={a}", "--suite=fourier,ensemble", "--num_images=8", *few),
        (both, *few),
    ):
        code, _, err = evaluate(home, *arguments)
        assert (code, err) == (0, "")
    rows, where = read(home, "a/evaluation")
    assert {row["suite"] for row in rows} == {"fourier", "ensemble"}
    # Fitted to the images that the run has held out.
    assert all(row["temperature"] > 0 for row in rows if row["suite"] == "ensemble")
    assert "commit" not in where
    for evaluation in where["evaluations"].values():
        assert {"commit", "device", "time", "seconds"} <= evaluation.keys()
    found, where = read(home, "a/evaluation-of-2")
    assert [run["workdir"] for run in where["runs"]] == [str(a), str(home / "b")]
    code, _, err = evaluate(home, both, f"--output={a / 'evaluation'}")
    assert code == 2
    assert "b on the split test would replace; choose another --output=DIR" in err
    assert len(read(home, "a/evaluation")[0]) == len(rows)
    code, _, err = evaluate(
        home, f"--compare={a},{a / 'evaluation-of-2'}", f"--output={home / 'compared'}"
    )
    assert (code, err) == (0, "")
    joined, _ = read(home, "compared")
    kind = lambda row: (row["suite"], row["label"], row["run"], row["num_samples"])
    kinds = [kind(row) for row in joined if row["suite"] == "ensemble"]
    assert sorted(kinds) == sorted(kind(row) for row in found)
    assert len(joined) == len(found) + len(rows) - 2


def test_held_out_images_are_loaded_for_those_who_use_them(home, tmp_path):
    data_dir = tmp_path / "tfds"
    (version,) = (home / "tfds" / "cifar10").iterdir()
    kept = data_dir / "cifar10" / version.name
    kept.mkdir(parents=True)
    for file in version.iterdir():
        content = b"" if "-train." in file.name else file.read_bytes()
        (kept / file.name).write_bytes(content)
    one = (f"--workdir={home / 'b'}", f"--data_dir={data_dir}")
    code, _, err = evaluate(home, *one, "--suite=fourier", "--num_images=8")
    assert (code, err) == (0, "")
    code, _, err = evaluate(home, *one)
    assert code == 2
    assert "-train." in err


def test_suites_that_fit_temperatures_have_held_out_images(home, monkeypatch):
    """Rows of a suite do not depend on the suites that are evaluated beside it."""
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    command.FLAGS.unparse_flags()
    command.FLAGS(["evaluate.py"])
    runs = [workdirs.load(home / "a")]
    for name in ("ensemble", "laplace", "ood", "fourier"):
        monkeypatch.setattr(suites.ood_sets, "load", lambda *_, **__: None)
        monkeypatch.setattr(suites.ood_sets, "parse", lambda name: name)
        setting = load_setting(runs, home / "out", [name], None)
        assert (setting.held_out is not None) == (name != "fourier")


MISTAKES = {
    "--workdir must name each value once, got {home}/a more than": (
        "--workdir={home}/a,{home}/b/../a",
    ),
    "nothing is published of preresnet_18 on cifar10": (
        "--workdir={home}/c",
        "--published",
    ),
    "a has dropout in 1 as it was trained; leave out mc_stages": (
        "--workdir={home}/a",
        "--mc_stages=1",
    ),
    "the suite landscape takes one run, got 2; evaluate one by one, then": (
        "--workdir={home}/a,{home}/b",
        "--suite=ensemble,landscape",
    ),
    "--grid_size is for --suite=landscape, which is not evaluated": (
        "--workdir={home}/a,{home}/b",
        "--suite=all",
        "--grid_size=5",
    ),
    "the suite laplace is for networks that make one prediction in a pass": (
        "--workdir={home}/d",
        "--suite=ensemble,laplace",
    ),
    "--ood is for --suite=ensemble or --suite=ood, which is not evaluated": (
        "--workdir={home}/a",
        "--suite=fourier",
        "--ood=shapes",
    ),
    "--split is for --workdir; --compare takes": ("--compare={home}/a", "--split=test"),
    "--sizes is for --workdir; --compare takes": ("--compare={home}/a", "--sizes=1"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_found_before_anything_is_computed(
    message, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    arguments = [text.format(home=home) for text in MISTAKES[message]]
    with pytest.raises(ValueError, match=re.escape(message.format(home=home))) as found:
        called(command, *arguments, f"--output={tmp_path / 'new'}")
    assert "\n" not in str(found.value)
    # What a suite itself finds, it finds when the folder of the report is locked.
    assert {path.name for path in tmp_path.rglob("*")} <= {"new", "lock"}


def test_a_mistake_is_one_line(home, tmp_path):
    """The command as a process, with the first of these mistakes."""
    output = tmp_path / "new"
    both = f"--workdir={home}/a,{home}/b/../a"
    code, out, err = evaluate(home, both, f"--output={output}")
    assert (code, out) == (2, "")
    assert err.startswith("error: --workdir must name each value once")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("*"))


def test_all_suites_are_chosen_by_one_word():
    values = command.FLAGS
    values.unparse_flags()
    values(["evaluate.py", "--suite=all"])
    usable = [name for name in suites.SUITES if name != "segmentation"]
    without_ood = [name for name in usable if name != "ood"]
    assert list(command.chosen_suites()) == without_ood
    values.unparse_flags()
    values(["evaluate.py", "--suite=all", "--ood=near:cifar10"])
    assert list(command.chosen_suites()) == usable
    for given, message in (
        ("all,ensemble", "--suite=all takes no other names, got all,ensemble"),
        ("ensembel", "unknown suite 'ensembel'; did you mean 'ensemble'?"),
        ("fourier,fourier", "--suite must name each value once, got fourier more than"),
    ):
        values.unparse_flags()
        values(["evaluate.py", f"--suite={given}"])
        with pytest.raises(ValueError, match=message):
            command.chosen_suites()


@pytest.mark.parametrize(
    ("workdirs", "left_out", "reasons"),
    [
        (
            "a,b",
            "landscape, hessian, variance, fourier, frequency",
            "the suites landscape, hessian, variance, fourier, frequency take one run, "
            "got 2; evaluate one by one, then --compare them",
        ),
        (
            "d",
            "ood, laplace, variance, fourier",
            "the suite ood: ResNet has no features: * the suite laplace is for * makes "
            "several in a pass; the suite fourier looks at * makes several in a pass",
        ),
        ("a", None, None),
    ],
)
def test_all_suites_are_those_that_take_the_runs(
    workdirs, left_out, reasons, home, tmp_path, monkeypatch, capsys
):
    """What is left out is said in one line; the other suites are evaluated."""
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    evaluated = {}
    keep = lambda runs, setting, chosen, given, **_: evaluated.update(given)
    monkeypatch.setattr(command, "run_suites", keep)
    folders = ",".join(str(home / name) for name in workdirs.split(","))
    options = ("--suite=all", "--ood=near:shapes", "--sizes=1,2", "--num_samples=2")
    called(command, f"--workdir={folders}", f"--output={tmp_path}", *options)
    lines = [line for line in capsys.readouterr().out.splitlines() if "leaves" in line]
    names = left_out.split(", ") if left_out else []
    usable = [name for name in suites.SUITES if name not in ("segmentation", *names)]
    assert list(evaluated) == usable
    assert evaluated["ensemble"] == {"sizes": (1, 2)}
    if left_out is None:
        assert not lines
    else:
        (line,) = lines
        assert fnmatch.fnmatch(line, f"--suite=all leaves out {left_out}: {reasons}")


def test_frames_of_feature_maps_need_no_temporal_smoothing(home, tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    evaluated = {}
    keep = lambda runs, setting, chosen, given, **_: evaluated.update(given)
    monkeypatch.setattr(command, "run_suites", keep)
    frames, where = "--num_frames=9", (f"--workdir={home}/a", f"--output={tmp_path}")
    called(command, *where, "--suite=ensemble,variance", frames)
    assert evaluated == {"ensemble": {}, "variance": {"num_frames": 9}}
    called(command, *where, "--suite=ensemble,variance", frames, "--temporal=1")
    assert evaluated["ensemble"] == {"num_frames": 9, "temporal": (1,)}
    with pytest.raises(ValueError, match="are for temporal smoothing; give temporal=1"):
        called(command, *where, "--suite=ensemble", frames)


def test_suites_are_those_of_the_task():
    values = command.FLAGS

    def chosen(*arguments, task):
        values.unparse_flags()
        values(["evaluate.py", *arguments])
        return list(command.chosen_suites(task=task))

    assert chosen(task="classification") == ["ensemble"]
    assert chosen(task="segmentation") == ["segmentation"]
    assert chosen("--suite=all", task="segmentation") == ["segmentation"]
    message = "the suite fourier is for classification, and the network for "
    message += "segmentation; choose among segmentation"
    with pytest.raises(ValueError, match=message):
        chosen("--suite=fourier,segmentation", task="segmentation")
    message = "the suite segmentation is for segmentation, and the network for "
    with pytest.raises(ValueError, match=message):
        chosen("--suite=segmentation", task="classification")
    tasks = suite_choice.DEFAULT_SUITES
    counts = {task: evaluate_flags.numbers(task=task) for task in tasks}
    assert counts["classification"]["batch_size"] == 128
    # The eight devices of the tests divide it.
    assert counts["segmentation"]["batch_size"] == 8


def test_a_workdir_may_have_commas_in_its_name(home, monkeypatch):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    workdir = home / "lr=0.1,bs=16"
    shutil.copytree(home / "b", workdir)
    called(
        command,
        f"--workdir={workdir}",
        "--suite=fourier",
        "--fourier_images=8",
        "--num_samples=1",
    )
    rows, where = read(home, "lr=0.1,bs=16/evaluation")
    assert [run["workdir"] for run in where["runs"]] == [str(workdir)]
    assert {row["suite"] for row in rows} == {"fourier"}
    assert where["evaluations"]["fourier"]["num_images"] == 8


def test_suites_are_counted_while_they_run(monkeypatch):
    seen = []

    class Task:
        def update(self, done):
            seen.append((self.name, done))

    @contextlib.contextmanager
    def task(name, *, total):
        assert total == 2
        yield Task()

    monkeypatch.setattr(command.progress, "task", task)
    assert list(command.suites_in_turn(["ensemble", "hessian"])) == [
        "ensemble",
        "hessian",
    ]
    assert seen == [("suite 1 of 2 (ensemble)", 1), ("suite 2 of 2 (hessian)", 2)]
