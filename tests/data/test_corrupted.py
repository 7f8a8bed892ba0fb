import json

import jax
import numpy as np
import PIL.Image
import pytest

from spatial_smoothing.data import shapes
from spatial_smoothing.data.corruption import official_sets, transforms, writer
from spatial_smoothing.data.sources import Dataset

KEY = jax.random.key(0)
DATASET = Dataset(*shapes.generate("test", size=10))
NAMES = ["contrast", "frost"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of the writer."""
    folder = tmp_path_factory.mktemp("generated")
    found = write(folder)
    assert found == NAMES
    return folder


@pytest.fixture
def official(tmp_path):
    """A folder in the layout of CIFAR-10-C, with blocks of four images."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "labels.npy", np.tile([3, 1, 4, 1], 5))
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.save(tmp_path / "fog.npy", images)
    return tmp_path


def write(folder, *, key=KEY, dataset=DATASET, names=NAMES, batch_size=4, **options):
    return writer.write_cifar_c(
        key, folder, dataset, names=names, batch_size=batch_size, **options
    )


def test_blocks_are_severities(official):
    images = np.load(official / "fog.npy")
    for severity in transforms.SEVERITIES:
        found = official_sets.read_cifar_c(official, "fog", severity, num_classes=10)
        block = slice(4 * severity - 4, 4 * severity)
        np.testing.assert_array_equal(found.images, images[block])
        np.testing.assert_array_equal(found.labels, [3, 1, 4, 1])
        assert found.labels.dtype == np.int32
        assert isinstance(found.images, np.memmap)
    assert official_sets.available(official) == ["fog"]
    assert official_sets.provenance(official) is None


def test_absent_files_are_named(official, tmp_path):
    with pytest.raises(ValueError, match=r"no file .*snow.npy \(there: fog\); extract"):
        official_sets.read_cifar_c(official, "snow", 1)
    with pytest.raises(ValueError, match=r"no folder .*nowhere; pass the one with lab"):
        official_sets.read_cifar_c(tmp_path / "nowhere", "fog", 1)
    (official / "labels.npy").unlink()
    with pytest.raises(ValueError, match=r"no file .*labels.npy \(there: fog\)"):
        official_sets.read_cifar_c(official, "fog", 1)
    (official / "fog.npy").unlink()
    with pytest.raises(ValueError, match=r"\(there: no corruption\)"):
        official_sets.read_cifar_c(official, "fog", 1)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels", np.zeros(24, int), "are not five blocks"),
        ("labels", np.zeros(25, int), "has 20 images, but labels.npy has 25 labels"),
        ("labels", np.zeros(0, int), "0 labels, which are not five blocks"),
        ("labels", np.full(20, 10), "has the label 10, not in 0 to 9"),
        ("labels", np.full(20, -1), "has the label -1, not in 0 to 9"),
        ("labels", np.zeros(20), r"must be integers \[5 N\], not float64\[20\]"),
        ("labels", np.zeros((20, 1), int), r"not int64\[20, 1\]"),
        ("labels", np.array([None] * 20), "Python objects in dtype"),
        ("fog", np.zeros((20, 32, 32, 3)), r"uint8\[N, H, W, 3\], not float64\[20, 32"),
        ("fog", np.zeros((20, 3, 32, 32), np.uint8), r"not uint8\[20, 3, 32, 32\]"),
        ("fog", np.zeros((20, 3072), np.uint8), r"not uint8\[20, 3072\]"),
    ],
)
def test_wrong_files_are_refused(official, file, content, message):
    np.save(official / f"{file}.npy", content)
    with pytest.raises(ValueError, match=message) as caught:
        official_sets.read_cifar_c(official, "fog", 1, num_classes=10)
    assert f"{file}.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_files_are_refused(official):
    path = official / "fog.npy"
    whole = path.read_bytes()
    for size in (len(whole) - 1, 200, 50, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cannot read .*fog.npy: .*truncated"):
            official_sets.read_cifar_c(official, "fog", 1)


def test_unknown_names_and_severities_are_refused(official):
    with pytest.raises(ValueError, match="corruption 'fogg'; did you mean 'fog'"):
        official_sets.read_cifar_c(official, "fogg", 1)
    with pytest.raises(ValueError, match="severity '0'; choices: 1, 2, 3, 4, 5"):
        official_sets.read_cifar_c(official, "fog", 0)
    with pytest.raises(ValueError, match="perturbation 'fog'"):
        official_sets.read_cifar_p(official, "fog")
    with pytest.raises(ValueError, match="corruption 'fogg'"):
        official_sets.read_imagenet_c(official, "fogg", 1)
    with pytest.raises(ValueError, match="corruption 'fogg'"):
        write(official, names=["fogg"])


def test_sequences(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 32, 3), np.uint8)
    np.save(tmp_path / "translate.npy", images)
    found = official_sets.read_cifar_p(tmp_path, "translate")
    np.testing.assert_array_equal(found, images)
    assert isinstance(found, np.memmap)
    np.save(tmp_path / "scale.npy", images)
    with pytest.raises(ValueError, match=r"scale.npy has 16 frames, not 31"):
        official_sets.read_cifar_p(tmp_path, "scale")
    np.save(tmp_path / "scale.npy", images[0])
    with pytest.raises(ValueError, match=r"uint8\[N, T, H, W, 3\], not uint8\[16, 32"):
        official_sets.read_cifar_p(tmp_path, "scale")
    with pytest.raises(
        ValueError, match=r"no file .*tilt.npy \(there: translate, scal"
    ):
        official_sets.read_cifar_p(tmp_path, "tilt")


def test_imagenet_c(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "fog" / "2"
    for wnid, count in (("n02", 1), ("n01", 2)):
        (root / wnid).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (224, 224, 3), np.uint8)
            PIL.Image.fromarray(image).save(root / wnid / f"{i}.JPEG")
    found = official_sets.read_imagenet_c(tmp_path, "fog", 2, num_classes=2)
    assert (found.num_examples, found.image_shape) == (3, (224, 224, 3))
    (batch,) = found.batches(4)
    np.testing.assert_array_equal(batch["label"][:3], [0, 0, 1])
    np.testing.assert_array_equal(batch["mask"], [True, True, True, False])
    files = ["n01/0.JPEG", "n01/1.JPEG", "n02/0.JPEG"]
    for image, file in zip(batch["image"][:3], files, strict=True):
        np.testing.assert_array_equal(image, PIL.Image.open(root / file))  # as it is

    with pytest.raises(ValueError, match="2 classes, not 1000; extract the archive"):
        official_sets.read_imagenet_c(tmp_path, "fog", 2)
    with pytest.raises(ValueError, match=r"no folder .*fog/3; pass the folder of Imag"):
        official_sets.read_imagenet_c(tmp_path, "fog", 3)
    (root / "n03").mkdir()
    with pytest.raises(ValueError, match="n03 has no images"):
        official_sets.read_imagenet_c(tmp_path, "fog", 2, num_classes=3)
    (root / "n03").rmdir()
    (root / "n01/0.JPEG").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read .*n01/0.JPEG: .*; replace or"):
        list(found.batches(4))


def write_classes(root, names):
    """A folder for each class, with an image of the grey level of its position."""
    for level, name in enumerate(names):
        (root / name).mkdir(parents=True)
        image = np.full((8, 8, 3), level, np.uint8)
        PIL.Image.fromarray(image).save(root / name / "0.png")


def test_classes_of_imagenet_c_are_matched_by_name(tmp_path):
    names = ["ring", "disc", "arrow"]  # labels are not in the order of the alphabet
    root = tmp_path / "fog" / "1"
    write_classes(root, names)
    options = {"num_classes": 3, "size": 8, "class_names": names}
    read = lambda **more: official_sets.read_imagenet_c(
        tmp_path, "fog", 1, **{**options, **more}
    )
    (batch,) = read().batches(3)
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    np.testing.assert_array_equal(batch["label"], [0, 1, 2])
    message = r"fog/1 lacks 1 classes: star and also has 1 classes: disc; name its"
    with pytest.raises(ValueError, match=message):
        read(class_names=["ring", "star", "arrow"])
    with pytest.raises(ValueError, match="lacks 1 classes: star; name"):
        read(class_names=[*names, "star"])


def test_wordnet_ids_are_not_taken_for_other_names(tmp_path):
    write_classes(tmp_path / "fog" / "1", ["n00000001", "n00000002"])
    message = "lacks 2 classes: cat, dog and also has 2 .* which WordNet id is which"
    with pytest.raises(ValueError, match=message) as caught:
        official_sets.read_imagenet_c(
            tmp_path, "fog", 1, num_classes=2, class_names=["cat", "dog"]
        )
    assert "\n" not in str(caught.value)


def test_hidden_files_of_imagenet_c_are_not_counted(tmp_path, caplog):
    root = tmp_path / "fog" / "1"
    write_classes(root, ["n01", "n02"])
    for name in ("._0.png", ".DS_Store", "Thumbs.db"):
        (root / "n01" / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        write_classes(root / name, ["n01"])
    found = official_sets.read_imagenet_c(tmp_path, "fog", 1, num_classes=2, size=8)
    assert found.records.files == [(0, "0.png"), (1, "0.png")]
    assert not caplog.records
    (root / "n02" / "1.avif").write_bytes(b"x")
    found = official_sets.read_imagenet_c(tmp_path, "fog", 1, num_classes=2, size=8)
    assert found.num_examples == 2
    (record,) = caplog.records
    assert "1 files (1.avif) are not read" in record.getMessage()


@pytest.mark.parametrize("name", NAMES)
def test_the_writer_writes_what_corrupt_makes(written, name):
    assert official_sets.available(written) == [
        n for n in transforms.NAMES if n in NAMES
    ]
    for severity in (1, 5):
        found = official_sets.read_cifar_c(written, name, severity, num_classes=10)
        expected = transforms.corrupt(KEY, DATASET.images, name, severity)
        np.testing.assert_array_equal(found.images, expected)
        np.testing.assert_array_equal(found.labels, DATASET.labels)
    # As NumPy itself would have written it.
    assert np.load(written / f"{name}.npy").shape == (50, 32, 32, 3)


def test_written_folders_say_so(written):
    found = official_sets.provenance(written)
    assert found["generated_by"] == "spatial_smoothing"
    assert found["deviations"]["frost"] == "procedural"
    files = {"labels.npy", "generated.json", *(f"{name}.npy" for name in NAMES)}
    assert {path.name for path in written.iterdir()} == files


def test_an_interrupted_writer_is_repeated(written, tmp_path):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "corrupt", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"labels.npy", "generated.json"}
    assert write(tmp_path, names=["contrast"]) == ["contrast"]
    (tmp_path / "frost.npy.tmp").write_bytes(b"of a process that was killed")
    before = (tmp_path / "contrast.npy").stat().st_mtime_ns
    assert write(tmp_path) == ["frost"]
    assert write(tmp_path) == []
    assert (tmp_path / "contrast.npy").stat().st_mtime_ns == before
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "frost.npy.tmp").exists()


def test_a_full_disk_is_told_by_the_name_of_the_file(small_disk):
    zeros = (np.zeros(2**20, np.uint8) for _ in range(9))
    path = small_disk / "frost.npy"
    message = rf"cannot write {path}: No space left on device, \d.* MB are free"
    with pytest.raises(OSError, match=message):
        writer._write_array(path, (9 * 2**20,), np.uint8, zeros)
    assert list(small_disk.iterdir()) == []


def test_the_writer_refuses_folders_of_other_data(written, official):
    with pytest.raises(ValueError, match=r"another key: .*; pass another folder"):
        write(written, key=jax.random.key(1))
    with pytest.raises(ValueError, match="another examples sha256"):
        write(written, dataset=Dataset(DATASET.images, DATASET.labels[::-1]))
    with pytest.raises(ValueError, match="another constants: cifar, not imagenet"):
        write(written, constants="imagenet")
    with pytest.raises(ValueError, match="that this package did not write"):
        write(official)
    assert json.loads((written / "generated.json").read_text())["constants"] == "cifar"
