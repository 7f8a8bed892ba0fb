import pathlib
import shutil

import jpeg_images
import numpy as np
import pytest

from spatial_smoothing.data import sources
from spatial_smoothing.data.class_names import class_names
from spatial_smoothing.data.images import decoding, folders


@pytest.fixture
def root(tmp_path):
    return jpeg_images.write_folder(tmp_path / "pets", count=2)


def load(root, split="train"):
    return sources.load(f"folder:{root}", split, image_size=32)


def message(call, *arguments):
    with pytest.raises(ValueError, match=r"[a-z]") as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_source_follows_from_the_folders(root):
    source = sources.source(f"folder:{root}")
    assert source.num_classes == 2
    assert source.class_names == ("ant", "bee")
    assert (source.image_size, source.stem) == (224, "imagenet")
    assert class_names(source.name) == ["ant", "bee"]
    known = sources.source("folder:/nowhere", class_names=["a", "b", "c"])
    assert known.num_classes == 3


def test_files_are_read_in_the_order_of_class_and_name(root):
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / ".hidden").mkdir()
    dataset = load(root)
    batch = next(dataset.batches(5))
    np.testing.assert_array_equal(batch["label"], [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(batch["mask"], [True] * 4 + [False])
    files = [root / "train" / name for name in ("ant/0.jpg", "ant/1.jpg", "bee/0.jpg")]
    for pixels, file in zip(batch["image"][:3], files, strict=True):
        expected = decoding.center_crop(file.read_bytes(), size=32)
        np.testing.assert_array_equal(pixels, expected)


def test_val_stands_in_for_test(root):
    shutil.copytree(root / "test", root / "val")
    shutil.rmtree(root / "val" / "ant")
    (root / "val" / "ant").mkdir()  # a class may lack images to test on
    assert load(root, "test").num_examples == 4
    assert load(root, "val").num_examples == 2
    shutil.rmtree(root / "test")
    assert load(root, "test").num_examples == 2


def test_home_is_found(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert load("~/pets").num_examples == 4


def damage(root, change):
    """Makes one mistake in a folder."""
    train = root / "train"
    match change:
        case "empty class":
            (train / "cat").mkdir()
            (root / "test" / "cat").mkdir()
        case "class not tested":
            shutil.rmtree(root / "test" / "bee")
        case "class not trained":
            (root / "test" / "cow").mkdir()
        case "no test":
            shutil.rmtree(root / "test")
        case "nothing to test":
            for file in root.glob("test/*/*"):
                file.unlink()
        case "no train":
            train.rename(root / "training")
        case "one class":
            shutil.rmtree(train / "bee")


MISTAKES = {
    "empty class": ("train", "train/cat has no images"),
    "class not tested": ("test", "test lacks 1 classes: bee; every split needs"),
    "class not trained": ("test", "test also has 1 classes: cow"),
    "no test": ("test", "pets has no test or val/ (train); expected train/CLASS"),
    "nothing to test": ("test", "test has no images"),
    "no train": ("train", "pets has no train/ (test, training); expected"),
    "one class": ("train", "train has 1 folders of classes"),
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, root):
    damage(root, change)
    split, expected = MISTAKES[change]
    assert expected in message(load, root, split)


def test_folder_that_is_not_there():
    assert message(load, "/nowhere").startswith("no folder /nowhere; expected")


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_files_that_are_no_images_are_named(content, root):
    file = root / "train" / "bee" / "0.jpg"
    file.write_bytes(file.read_bytes()[:2000] if content == "cut" else content)
    text = message(list, load(root).batches(4))
    assert text.startswith(f"cannot read {file}: ")
    assert text.endswith("; replace or remove it")


def test_kinds_of_images_may_be_mixed(root):
    folder = root / "train" / "ant"
    for mode, kind, name in (
        ("L", "JPEG", "grey.jpg"),
        ("CMYK", "JPEG", "cmyk.jpeg"),
        ("RGBA", "PNG", "named_wrongly.JPG"),
    ):
        picture = jpeg_images.image(1).convert(mode)
        (folder / name).write_bytes(jpeg_images.encode(picture, kind))
    dataset = load(root)
    assert dataset.num_examples == 7
    (batch,) = dataset.training_batches(7, seed=0, stop=1)
    assert batch["mask"].all()
    assert isinstance(dataset.records, folders.FolderRecords)
    assert pathlib.Path(dataset.records.describe(0)).exists()


def test_hidden_files_and_folders_are_no_part_of_a_data_set(root, caplog):
    expected = load(root).records.files
    for name in (".DS_Store", "._0.jpg", "Thumbs.db"):
        (root / "train" / "ant" / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        shutil.copytree(root / "train" / "ant", root / "train" / name)
        shutil.copytree(root / "train" / "bee", root / "train" / "ant" / name)
    assert sources.source(f"folder:{root}").class_names == ("ant", "bee")
    assert load(root).records.files == expected
    assert not caplog.records


def test_images_of_all_suffixes_are_read(root, caplog):
    folder = root / "train" / "ant"
    picture = jpeg_images.image(1, (50, 50))
    kinds = {"JPEG": ("jpe", "jfif", "JPG"), "PPM": ("pgm", "ppm"), "BMP": ("bmp",)}
    for kind, suffixes in kinds.items():
        for suffix in suffixes:
            mode = "L" if suffix == "pgm" else "RGB"
            content = jpeg_images.encode(picture.convert(mode), kind)
            (folder / f"x.{suffix}").write_bytes(content)
    dataset = load(root)
    assert dataset.num_examples == 4 + 6
    assert sum(batch["mask"].sum() for batch in dataset.batches(5)) == 10
    assert not caplog.records


def test_what_is_not_read_is_said_in_one_line(root, caplog):
    ant, bee = root / "train" / "ant", root / "train" / "bee"
    (ant / "a.heic").write_bytes(b"x")
    (bee / "notes.txt").write_bytes(b"x")
    shutil.copytree(ant, bee / "more")
    shutil.copy(ant / "0.jpg", root / "train" / "stray.jpg")
    assert load(root).num_examples == 4
    (record,) = caplog.records
    message = record.getMessage()
    assert "3 files (stray.jpg, a.heic, notes.txt) and 1 subfolders (more)" in message
    assert message.startswith(f"{root / 'train'}: ")
    assert "\n" not in message


def test_a_class_whose_images_are_in_subfolders_says_so(root):
    nested = root / "train" / "ant" / "more"
    nested.mkdir()
    for file in (root / "train" / "ant").glob("*.jpg"):
        file.rename(nested / file.name)
    assert "but 1 subfolders (more); add some" in message(load, root)


def test_names_of_classes_that_are_not_utf_8_are_refused(root):
    (root / "train" / "ant").rename(root / "train" / "cl\udce9")
    text = message(sources.source, f"folder:{root}")
    assert "train/cl\\udce9 is not UTF-8" in text
    with pytest.raises(ValueError, match=r"train/cl.* is not UTF-8"):
        sources.load(f"folder:{root}", "train", class_names=["bee", "cl\udce9"])
    elsewhere = root.rename(root.with_name("pets\udce9"))
    assert "is not UTF-8" in message(sources.source, f"folder:{elsewhere}")


def test_links_are_followed(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    (root / "train" / "cat").symlink_to(root / "train" / "bee")
    (root / "test" / "cat").symlink_to(root / "test" / "bee")
    dataset = load(tmp_path / "link")
    assert dataset.records.class_names == ("ant", "bee", "cat")
    assert dataset.num_examples == 6


def test_a_name_means_the_same_folder_everywhere(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    for path in ("pets", "pets/", "./pets", "~/pets", "pets/../pets/", str(root)):
        assert load(path).num_examples == 4
    assert "folder: has no path" in message(sources.source, "folder:")
