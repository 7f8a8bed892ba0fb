"""Images with several right labels, as ReaL has them for ImageNet."""

import json

import jax
import numpy as np
import PIL.Image
import pytest
from command_calls import called
from random_runs import write_run

from spatial_smoothing import report
from spatial_smoothing.cli import evaluate
from spatial_smoothing.data import augment, real_labels, sources
from spatial_smoothing.evaluation.scores import most_probable_labels
from spatial_smoothing.runs import workdirs

REAL = [[2], [0, 1], [], [1], [2, 0], [0, 1], [1, 2], [0]]


@pytest.fixture
def home(tmp_path):
    """Eight images of three classes in ImageNet's names, and the file of labels."""
    rng = np.random.default_rng(0)
    for number in range(8):
        name = f"ILSVRC2012_val_{number + 1:08d}.png"
        for split in ("train", "val"):
            folder = tmp_path / "images" / split / "abc"[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name)
    (tmp_path / "real.json").write_text(json.dumps(REAL))
    return tmp_path


def load(home):
    return sources.load(f"folder:{home}/images", "test", image_size=32)


def test_every_image_has_its_labels_by_its_number(home):
    found = real_labels.reassess(load(home), home / "real.json", num_classes=3)
    records = found.dataset.records
    given = {}
    for position in range(found.dataset.num_examples):
        number = found.dataset.record_number(position)
        label = records.read(number)[1]
        image = int(records.describe(number)[-12:-4])
        given[image - 1] = np.flatnonzero(found.label_sets[label]).tolist()
    assert given == {n: sorted(each) for n, each in enumerate(REAL) if each}


def test_the_most_probable_of_the_right_labels_counts():
    log_probs = np.log(np.array([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7]], np.float32))
    label_sets = np.array([[False, True, True], [True, True, False]])
    labels = most_probable_labels(log_probs, np.array([0, 1]), label_sets)
    np.testing.assert_array_equal(labels, [2, 1])


def test_scores(home):
    run = write_run(
        home / "run",
        model="resnet_dnn_18",
        dataset=f"folder:{home}/images",
        image_size=32,
    )
    called(
        evaluate,
        *(f"--workdir={run}", f"--real_labels={home}/real.json", "--batch_size=8"),
        "--num_replicates=0",
    )
    output = home / "run" / "evaluation-on-real.json"
    (row,), _ = report.read(output / "metrics.json")
    dataset, whole = load(home), workdirs.load(run)
    images = next(dataset.batches(8))["image"]
    source = whole.source
    images = augment.normalize(images, mean=source.mean, std=source.std)
    logits = np.float64(jax.jit(whole.model.apply)(whole.variables, images))
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    names = [dataset.records.file_name(number) for number in range(8)]
    right = [REAL[int(name[-12:-4]) - 1] for name in names]
    kept = [row for row, labels in enumerate(right) if labels]
    assert row["num_examples"] == len(kept) == 7
    accuracy = np.mean([probs[i].argmax() in right[i] for i in kept])
    np.testing.assert_allclose(row["accuracy"], accuracy)
    nll = -np.mean([np.log(max(probs[i][j] for j in right[i])) for i in kept])
    np.testing.assert_allclose(row["nll"], nll, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file .*real.json; expected a list"),
        ("{", "holds something else"),
        ("[1, 2]", "holds something else"),
        ("[[0]]", "is not one of the 1 validation images"),
        (json.dumps([[3]] * 8), r"labels outside 0 to 2: \(3,\)"),
        (json.dumps([[]] * 8), "has no label for any of these images"),
    ],
)
def test_unusable_files(home, content, message):
    if content is None:
        (home / "real.json").unlink()
    else:
        (home / "real.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        real_labels.reassess(load(home), home / "real.json", num_classes=3)


def test_other_images_have_no_reassessed_labels(home):
    dataset = sources.load("shapes", "test")
    with pytest.raises(ValueError, match="is for the validation images of ImageNet"):
        real_labels.reassess(dataset, home / "real.json", num_classes=3)
