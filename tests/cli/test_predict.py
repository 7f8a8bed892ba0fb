import numpy as np
import PIL.Image
import pytest
from random_runs import predict, write_run

from spatial_smoothing import serving
from spatial_smoothing.cli import command_line
from spatial_smoothing.cli import predict as command
from spatial_smoothing.data import shapes

IMAGES, _ = shapes.generate("test", size=1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mcdo"
    return write_run(path, model="resnet_mcdo_smoothing_18", rate=0.95)


def save(path, pixels):
    PIL.Image.fromarray(pixels).save(path)
    return path


def test_prints_classes_and_uncertainty(workdir, tmp_path):
    first = save(tmp_path / "first.png", IMAGES[0])
    grey = save(tmp_path / "grey.png", np.zeros((64, 48), np.uint8))
    done = predict(f"--workdir={workdir}", "--num_samples=6", "--top=2", first, grey)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "resnet_mcdo_smoothing_18 on shapes, 6 samples"
    result = serving.load_predictor(workdir, num_samples=6)(IMAGES)
    best = np.argsort(-result.probs[0])
    assert lines[2] == str(first)
    for line, label in zip(lines[3:5], best, strict=False):
        percent, name = 100 * result.probs[0, label], shapes.CLASS_NAMES[label]
        assert line == f"  {percent:5.1f} %  {name}"
    assert lines[5] == (
        f"  entropy {result.entropy[0]:.3f} nats, "
        f"of which {result.mutual_information[0]:.3f} between samples"
    )
    changes = "(L converted to RGB, 48x64 cropped and resized to 32x32)"
    assert lines[7] == f"{grey} {changes}"


def test_tells_how_much_predictions_of_one_pass_disagree(tmp_path, capsys):
    fields = {"ensemble": "mimo", "ensemble_size": 3}
    workdir = write_run(tmp_path / "mimo", model="resnet_dnn_18", **fields)
    image = save(tmp_path / "image.png", IMAGES[0])
    command.FLAGS.unparse_flags()
    arguments = ["predict.py", f"--workdir={workdir}", str(image)]
    command.predict(command_line.parse(arguments, command.FLAGS, positional=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "resnet_dnn_18 on shapes, 1 sample of 3 predictions"
    result = serving.load_predictor(workdir)(IMAGES)
    assert lines[-1].endswith(
        f"of which {result.mutual_information[0]:.3f} between predictions"
    )


MISTAKES = [
    (["x.png"], "give either --workdir=DIR or --exported=DIR"),
    (["--workdir=x", "--exported=y", "x.png"], "give either --workdir=DIR or --export"),
    (["--workdir=x"], "give either at least one IMAGE or --frames=FOLDER_OR_NPY"),
    (["--exported=x", "--frames=y"], "--frames needs --workdir=DIR; exported runs ta"),
    (
        ["--exported=x", "--num_samples=3", "x.png"],
        "--num_samples is for --workdir; an",
    ),
    (["--workdir=x", "--decay=0.8", "x.png"], "--decay is for --frames; an image has "),
    (["--workdir=x", "--frames=x", "--decay=nan"], "--decay must be a finite number"),
    (["--workdir=x", "x.png", "https://a.b/c.png"], "https://a.b/c.png is no file; do"),
    (["--workdir=x", "--frames=http://a.b/c.mp4"], "http://a.b/c.mp4 is no file; down"),
    (["--workdir=x", "x.png", "--output="], "--output must name a folder; for the"),
    (["--workdir=x", "--frames=x", "--top=3"], "--top is for images; a frame has a li"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_flags_that_do_not_go_together(arguments, message):
    values = command.FLAGS
    values.unparse_flags()
    rest = command_line.parse(["predict.py", *arguments], values, positional=True)
    with pytest.raises(ValueError, match=message):
        command.check_flags(rest)


def test_refuses_bad_input_in_one_line(workdir, tmp_path):
    done = predict(f"--workdir={workdir}", tmp_path / "none.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "no image file" in done.stderr
    assert done.stderr.count("\n") == 1
