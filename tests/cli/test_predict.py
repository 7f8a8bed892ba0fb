import numpy as np
import PIL.Image
import pytest
from random_runs import predict, write_run

from spatial_smoothing import serving
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


def test_refuses_bad_input_in_one_line(workdir, tmp_path):
    for args, message in [
        ([f"--workdir={workdir}", tmp_path / "none.png"], "no image file"),
        ([tmp_path / "none.png"], "give either --workdir=DIR or --exported=DIR"),
        (["--exported=x", "--num_samples=3", "x.png"], "--num_samples is for --workd"),
        (["--workdir=x", "--decay=0.8", "x.png"], "--decay is for --frames; images ha"),
        (["--workdir=x", "--frames=x", "--top=3"], "--top is for images; of a frame"),
    ]:
        done = predict(*args)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
