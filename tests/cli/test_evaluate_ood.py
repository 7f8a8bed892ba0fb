"""`evaluate.py --suite=ood`, on images in the layout of OpenOOD's folders."""

import re
import types

import numpy as np
import PIL.Image
import pytest
from command_calls import called
from random_runs import write_run
from small_runs import prepare

from spatial_smoothing import report
from spatial_smoothing.cli import evaluate as command
from spatial_smoothing.cli import evaluate_flags

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small CIFAR-10, runs of it, and OpenOOD's lists and images."""
    path = tmp_path_factory.mktemp("home")
    prepare(path)
    for name, model in (("a", "resnet_mcdo_18"), ("b", "resnet_mcdo_smoothing_18")):
        fields = {"data_dir": str(path / "tfds"), "val_fraction": 0.2}
        write_run(path / name, model=model, dataset="cifar10", **fields)
    lists = path / "data/benchmark_imglist/cifar10"
    lists.mkdir(parents=True)
    for name in ("tin", "svhn", "texture", "mnist"):
        folder = path / "data/images_classic" / name
        folder.mkdir(parents=True)
        for number in range(6):
            image = RNG.integers(0, 256, (40, 36, 3)).astype(np.uint8)
            PIL.Image.fromarray(image).save(folder / f"{number}.png")
        lines = [f"{name}/{number}.png -1\n" for number in range(6)]
        (lists / f"test_{name}.txt").write_text("".join(lines))
    return path


def sets(home, **names):
    lists = home / "data/benchmark_imglist/cifar10"
    return ",".join(
        f"{distance}:list:{lists / f'test_{name}.txt'}"
        for distance, group in names.items()
        for name in group
    )


def test_one_command_makes_the_table(home, monkeypatch, capsys):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    monkeypatch.setenv("COLUMNS", "140")
    ood = sets(home, near=["tin"], far=["svhn", "texture"])
    lists = home / "data/benchmark_imglist/cifar10"
    for name in ("a", "b"):
        called(
            command,
            f"--workdir={home / name}",
            "--suite=ood",
            f"--ood={ood}",
            f"--ood_validation=list:{lists}/test_mnist.txt",
            "--confidences=msp,temperature,energy,vim",
            "--num_samples=2",
            "--num_replicates=0",
            "--batch_size=8",
        )
    out = capsys.readouterr().out
    for words in ("MSP", "TempScale (logits)", "Energy", "ViM"):
        assert words in out
    assert re.search(r"Near +Far +FPR95 near +FPR95 far +test_tin +test_svhn", out)
    assert "nan" not in out
    for name in ("a", "b"):
        folder = home / name / "evaluation"
        rows, where = report.read(folder / "metrics.json")
        assert {row["suite"] for row in rows} == {"ood"}
        assert {row["num_samples"] for row in rows} == {1, 2}
        assert where["evaluations"]["ood"]["ood"] == ood
        files = {path.name for path in folder.iterdir()}
        assert {"ood.csv", "ood.npz", "ood_roc.png", "ood_scores.png"} <= files
    output = home / "compared"
    called(command, f"--compare={home / 'a'},{home / 'b'}", f"--output={output}")
    compared, _ = report.read(output / "metrics.json")
    assert len(compared) == 2 * len(rows)
    assert (output / "ood_auroc.png").exists()
    page = (output / "report.html").read_text()
    assert "Near and far out-of-distribution detection" in page


MISTAKES = {
    "--suite=ood detects the images of other data sets, and --ood names none": (),
    "must say of each data set whether it is near or far, got cifar100": (
        "--ood=cifar100",
    ),
    "--ood names cifar10[:5], which is what the network classifies": (
        "--ood=near:cifar10[:5]",
    ),
    "--ood_validation=shapes is tested on, too": (
        "--ood=far:shapes",
        "--ood_validation=shapes",
    ),
    "unknown confidence 'knm'; did you mean 'knn'?": (
        "--ood={near}",
        "--confidences=knm",
    ),
    "--ood_images": ("--ood={near}", "--ood_images=-1"),
    "is a list for --suite=ood, which is not evaluated": (
        "--suite=ensemble",
        "--ood=near:shapes",
    ),
    "--ood_validation is for --suite=ood, which is not evaluated": (
        "--suite=ensemble",
        "--ood_validation=shapes",
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_found_before_anything_is_computed(
    message, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(home / "cache"))
    near = sets(home, near=["tin"])
    arguments = [text.format(near=near) for text in MISTAKES[message]]
    if not any(text.startswith("--suite") for text in arguments):
        arguments.append("--suite=ood")
    output = tmp_path / "new"
    with pytest.raises(ValueError, match=re.escape(message)) as found:
        called(command, f"--workdir={home / 'a'}", *arguments, f"--output={output}")
    assert "\n" not in str(found.value)
    assert {path.name for path in tmp_path.rglob("*")} <= {"new"}


@pytest.mark.parametrize("name", ["cifar100", "tfds:cifar100", "cifar100[:500]"])
def test_what_is_tested_on_is_not_foreign_by_another_name(name, monkeypatch):
    monkeypatch.setattr(evaluate_flags, "OOD", types.SimpleNamespace(value=name))
    with pytest.raises(ValueError, match="is what is tested on; choose another"):
        command.check_ood({"dataset": "cifar100"}, ["ensemble"])
    monkeypatch.setattr(evaluate_flags, "OOD", types.SimpleNamespace(value="cifar10"))
    command.check_ood({"dataset": "cifar100"}, ["ensemble"])
