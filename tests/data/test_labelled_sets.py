"""Other images of the classes that a network knows, or of some of them."""

import dataclasses

import jax
import numpy as np
import PIL.Image
import pytest
from command_calls import called
from prepared_sets import write
from random_runs import write_run

from spatial_smoothing import report
from spatial_smoothing.cli import evaluate
from spatial_smoothing.data import augment, shapes, sources
from spatial_smoothing.data.labelled_sets import load_labelled
from spatial_smoothing.runs import restricted, workdirs

RNG = np.random.default_rng(0)
OWN = sources.SOURCES["shapes"]
NAMES = shapes.CLASS_NAMES


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))


def npz(path, labels, **arrays):
    images = RNG.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    np.savez(path, images=images, labels=labels, **arrays)
    return f"npz:{path}", images


def load(spec, split="test", **options):
    return load_labelled(spec, split, own=OWN, class_names=NAMES, **options)


def test_classes_are_told_by_name(tmp_path):
    held = np.array(["x", NAMES[7], NAMES[2], NAMES[5]])
    labels = np.array([1, 2, 1, 2, 2, 1])
    spec, images = npz(tmp_path / "a.npz", labels, class_names=held[[1, 1, 2]])
    found = load(spec)
    assert found.classes == (2, 7)
    np.testing.assert_array_equal(found.dataset.labels, [1, 0, 1, 0, 0, 1])
    batch = next(found.dataset.batches(6))
    np.testing.assert_array_equal(batch["image"], images)
    # A part has the classes of the whole split.
    assert load(f"{spec}[:1]").classes == load(spec, "test[:1]").classes == (2, 7)
    spec, _ = npz(tmp_path / "b.npz", labels, class_names=held)
    with pytest.raises(ValueError, match=r"1 classes .* does not know \(x\); .* --ood"):
        load(spec)


def test_folders_of_classes(tmp_path):
    for name in (NAMES[3], NAMES[1]):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (40, 40)).save(tmp_path / name / "0.png")
    found = load(f"folder:{tmp_path}")
    assert found.classes == (1, 3)
    assert len(found.dataset.labels) == 2
    assert {*found.dataset.labels} == {0, 1}


def test_folders_of_numbers_are_no_positions(tmp_path):
    """As those of ImageNet-V2: by name, 10 is in front of 2."""
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        picture = PIL.Image.new("RGB", (32, 32), (number, 0, 0))
        picture.save(tmp_path / str(number) / "0.png")
    options = {"own": dataclasses.replace(OWN, num_classes=12)}
    for names in (None, [f"n{number:02}" for number in range(12)]):
        found = load_labelled(
            f"folder:{tmp_path}", "test", class_names=names, **options
        )
        batch = next(found.dataset.batches(12))
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    with pytest.raises(ValueError, match=r"12 classes .* by their numbers from 0"):
        load(f"folder:{tmp_path}")


def test_folders_of_other_names_do_not_get_labels_by_their_order(tmp_path):
    for number in range(1, len(NAMES) + 1):
        folder = tmp_path / f"n{number:02}"
        folder.mkdir()
        PIL.Image.new("RGB", (32, 32)).save(folder / "0.png")
    with pytest.raises(ValueError, match=r"10 classes .* does not know \(n01, n02, "):
        load(f"folder:{tmp_path}")


def test_as_many_classes_under_other_names_have_the_order_of_the_network(tmp_path):
    labels = np.arange(len(NAMES))
    spelt = np.array([NAMES[0], *(name.upper() for name in NAMES[1:])])
    spec, _ = npz(tmp_path / "a.npz", labels, class_names=spelt)
    np.testing.assert_array_equal(load(spec).dataset.labels, labels)
    spec, _ = npz(tmp_path / "b.npz", labels, class_names=np.roll(spelt, 1))
    with pytest.raises(ValueError, match="9 classes that the network does not know"):
        load(spec)
    # Three digits are no three classes of ten.
    spec, _ = npz(tmp_path / "c.npz", labels[:3])
    with pytest.raises(ValueError, match="3 classes that the network does not know"):
        load(spec)


def test_sets_of_tfds_and_lists(tmp_path):
    write(tmp_path, title="shapes_r", count=6, names=list(NAMES), label=4)
    found = load("shapes_r", data_dir=tmp_path)
    assert found.classes == (4,)  # of all the names, the classes that have images
    np.testing.assert_array_equal(found.dataset.labels, 0)
    PIL.Image.new("RGB", (40, 40)).save(tmp_path / "0.png")
    # As an editor of Windows saves it.
    (tmp_path / "list.txt").write_text("0.png 9\n0.png 2\n", encoding="utf-8-sig")
    found = load(f"list:{tmp_path}/list.txt")
    assert found.classes == (2, 9)
    np.testing.assert_array_equal(found.dataset.labels, [1, 0])
    (tmp_path / "list.txt").write_text("0.png 9\n0.png 10\n")
    with pytest.raises(ValueError, match="line 2 has the label 10, not in 0 to 9"):
        load(f"list:{tmp_path}/list.txt")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", model="resnet_dnn_18")


def test_scores_are_those_of_masked_logits(tmp_path, run):
    classes = (1, 4, 8)
    labels = np.arange(16) % 3
    held = np.array([NAMES[number] for number in classes])
    spec, images = npz(tmp_path / "a.npz", labels, class_names=held)
    called(
        evaluate,
        *(f"--workdir={run}", f"--dataset={spec}", "--batch_size=16"),
        "--num_replicates=0",
    )
    output = tmp_path / "run" / "evaluation-on-npz-a.npz"
    (row,), _ = report.read(output / "metrics.json")
    whole = workdirs.load(run)
    normalized = augment.normalize(images, mean=OWN.mean, std=OWN.std)
    logits = np.float64(jax.jit(whole.model.apply)(whole.variables, normalized))
    masked = np.full_like(logits, -np.inf)
    masked[:, classes] = logits[:, classes]
    masked -= masked.max(1, keepdims=True)
    log_probs = masked - np.log(np.exp(masked).sum(1, keepdims=True))
    truth = np.array(classes)[labels]
    expected = -log_probs[np.arange(16), truth].mean()
    np.testing.assert_allclose(row["nll"], expected, rtol=1e-5)
    assert row["accuracy"] == (log_probs.argmax(1) == truth).mean()
    assert row["dataset"] == spec


def test_a_run_of_all_its_classes_stays_as_it_is(run):
    loaded = workdirs.load(run)
    assert restricted.restrict(loaded, range(10)) is loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=shapes"], "is what the run was trained on; leave it out"),
        (["--dataset=npz:a", "--suite=fourier"], "is for --suite=ensemble, not for"),
        (["--dataset=npz:a"], r"no file .*/a; expected train_images"),
        (["--dataset=cifar10"], "is a data set to train on"),
        (["--split=test[:0]"], "is empty; give a larger one"),
    ],
)
def test_data_sets_that_cannot_be_scored(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        called(evaluate, f"--workdir={run}", *arguments)
