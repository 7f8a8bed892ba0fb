import json

import pytest
from command_calls import called
from random_runs import write_run

from spatial_smoothing.cli import evaluate as command

FEW = (
    *("--num_samples=2", "--split=test[:5]", "--num_replicates=3"),
    *("--num_pictures=0", "--nospeed", "--batch_size=8"),
)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    fields = {"dataset": "moving_shapes", "stages": [1, 1]}
    return [
        write_run(path / model, model=model, **fields)
        for model in ("unet_mcdo", "unet_mcdo_smoothing")
    ]


def rows_of(folder):
    return json.loads((folder / "metrics.json").read_text())["rows"]


def test_plain_and_smoothed_runs_make_the_table_of_four(workdirs, tmp_path, capsys):
    for number, workdir in enumerate(workdirs):
        called(
            command, f"--workdir={workdir}", *FEW, f"--output={tmp_path / str(number)}"
        )
    rows = rows_of(tmp_path / "0")
    # Without --suite, it is the one for segmentation.
    assert {row["suite"] for row in rows} == {"segmentation"}
    assert {(row["num_examples"], row["num_pixels"]) for row in rows} == {
        (5, 5 * 48 * 64)
    }
    compared = f"--compare={tmp_path / '0'},{tmp_path / '1'}"
    called(command, compared, f"--output={tmp_path / 'both'}")
    labels = [row["label"] for row in rows_of(tmp_path / "both")]
    methods = ("Mean network", "MC dropout", "MC dropout")
    wanted = [
        f"{method}{spatial}{time}"
        for spatial in ("", " + smoothing")
        for time in ("", " + temporal")
        for method in methods
    ]
    assert labels == wanted
    assert (tmp_path / "both" / "report.html").exists()
    assert "MC dropout" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite=hessian"], "the suite hessian is for classification, and the netwo"),
        (
            ["--ood=shapes"],
            "--ood is for --suite=ensemble or --suite=ood, which is not",
        ),
        (
            ["--dataset=npz:x"],
            "--dataset is for --suite=ensemble, not for segmentation",
        ),
        (
            ["--compile_for=v5e:1x1"],
            "--compile_for compiles --suite=ensemble, which is",
        ),
    ],
)
def test_what_is_not_for_segmentation_is_refused(workdirs, arguments, message):
    with pytest.raises(ValueError, match=message):
        called(command, f"--workdir={workdirs[0]}", *arguments)
