"""Data sets that their own files describe: tfds:NAME, npz:FILE and hf:NAME."""

import io
import json
import sys
import types

import numpy as np
import PIL.Image
import pytest
from prepared_sets import write

from spatial_smoothing.data import (
    described_sets,
    huggingface,
    image_sets,
    sources,
    statistics,
)
from spatial_smoothing.data.class_names import class_names
from spatial_smoothing.data.images.pipeline import EncodedDataset

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    names = ["wren", "kite", "rook"]
    root = tmp_path_factory.mktemp("tfds")
    splits = ("train", "validation")
    return root, write(
        root, title="birds", count=20, size=8, names=names, splits=splits
    )


def npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def images(count, size=8, *channels):
    return RNG.integers(0, 256, (count, size, size, *channels), np.uint8)


def moments(pixels):
    pixels = pixels.reshape(-1, 3) / 255
    return pixels.mean(0), pixels.std(0)


def test_a_set_of_tfds_describes_itself(birds):
    root, written = birds
    source = sources.source("tfds:birds", data_dir=root)
    assert source.class_names == ("wren", "kite", "rook")
    assert class_names("tfds:birds", data_dir=root) == ["wren", "kite", "rook"]
    assert (source.num_classes, source.image_size, source.stem) == (3, 8, "cifar")
    mean, std = moments(written.images["train"])
    np.testing.assert_allclose(source.mean, mean, atol=5e-5)
    np.testing.assert_allclose(source.std, std, atol=5e-5)
    # "test" stands for "validation", the only other split.
    for split, native in (("train", "train"), ("test", "validation")):
        loaded = sources.load_source(source, split, data_dir=root)
        np.testing.assert_array_equal(loaded.images, written.images[native])
        np.testing.assert_array_equal(loaded.labels, written.labels[native])
    part = sources.load("tfds:birds", "train[25%:50%]", data_dir=root)
    np.testing.assert_array_equal(part.labels, written.labels["train"][5:10])


def test_names_beside_data_are_found_in_any_directory(tmp_path):
    names = [f"class{number}" for number in range(100)]
    for version, text in (("3.0.1", "old"), ("3.0.2", "\n".join(names))):
        folder = tmp_path / "tfds[1]" / "cifar100" / version
        folder.mkdir(parents=True)
        (folder / "label.labels.txt").write_text(text)
    assert class_names("cifar100", data_dir=tmp_path / "tfds[1]") == names


def test_facts_make_the_data_unneeded(birds, monkeypatch):
    root, _ = birds
    source = sources.source("tfds:birds", data_dir=root)
    monkeypatch.setattr(described_sets, "open_set", lambda *_, **__: 1 / 0)
    again = sources.source("tfds:birds", data_dir="nowhere", **source.facts())
    assert again == source


def test_another_size_is_decoded_when_it_is_needed(birds):
    root, _ = birds
    source = sources.source("tfds:birds", data_dir=root, image_size=16)
    assert (source.image_size, source.augments_on_host) == (16, True)
    loaded = sources.load_source(source, "test", data_dir=root)
    assert isinstance(loaded, EncodedDataset)
    assert next(loaded.batches(4))["image"].shape == (4, 16, 16, 3)


def test_grey_images_become_rgb(tmp_path):
    written = write(tmp_path, title="digits", count=5, size=6, grey=True)
    loaded = sources.load("tfds:digits", "test", data_dir=tmp_path)
    expected = np.broadcast_to(written.images["test"], (5, 6, 6, 3))
    np.testing.assert_array_equal(loaded.images, expected)


def test_npz_of_several_splits(tmp_path):
    train, test = images(12, 8, 3), images(6, 8, 3)
    labels = {"train": RNG.integers(0, 4, (12, 1)), "test": np.arange(6) % 4}
    labels["train"][0] = 3
    name = npz(
        tmp_path / "a.npz",
        train_images=train,
        train_labels=labels["train"],
        test_images=test,
        test_labels=labels["test"],
    )
    source = sources.source(name)
    assert (source.num_classes, source.image_size) == (4, 8)
    np.testing.assert_allclose(source.mean, moments(train)[0], atol=5e-5)
    loaded = sources.load_source(source, "train[-3:]")
    np.testing.assert_array_equal(loaded.images, train[-3:])
    np.testing.assert_array_equal(loaded.labels, labels["train"][-3:, 0])
    np.testing.assert_array_equal(sources.load(name, "test").images, test)


def test_class_names_of_npz_may_be_bytes(tmp_path):
    names = np.array(["Straße", "Auto"])
    for held in (names, np.char.encode(names, "utf-8")):
        name = npz(
            tmp_path / "a.npz",
            train_images=images(2, 4, 3),
            train_labels=np.arange(2),
            class_names=held,
        )
        assert sources.source(name).class_names == tuple(names)


def test_npz_that_is_written_anew_at_once_is_read_anew(tmp_path):
    labels = np.arange(2)
    for level in (0, 51):
        pixels = np.full((2, 4, 4, 3), level, np.uint8)
        name = npz(tmp_path / "a.npz", train_images=pixels, train_labels=labels)
        source = sources.source(name)
        assert source.mean == (level / 255,) * 3
        assert sources.load_source(source, "train").images.max() == level


def test_given_mean_and_std_are_taken():
    given = {"mean": (0.1, 0.2, 0.3), "std": [0.4, 0.5, 0.6]}
    source = sources.source("cifar10", **given)
    assert (source.mean, source.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_statistics_of_a_constant_channel_are_finite():
    pixels = images(3, 4, 3)
    pixels[..., 1] = 51
    dataset = sources.Dataset(pixels, np.zeros(3, np.int32))
    mean, std = statistics.mean_and_std(dataset)
    assert (mean[1], std[1]) == (0.2, 1.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "has no images"),
        ({"images": np.zeros((2, 4, 4, 3))}, "float64"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, "2 channels"),
        ({"labels": np.zeros(3)}, "whole numbers"),
        ({"labels": np.array([0, -1])}, "whole numbers"),
        ({"labels": np.array([0, 2**32])}, "the label 4294967296, .* below 100,000"),
        ({"labels": np.zeros(3, int)}, "2 images and 3 labels"),
        ({"class_names": np.array(["a"])}, "the label 1, but 1 class_names"),
        ({"class_names": np.array([["a", "b"]])}, r"class_names of .* is <U1\[1, 2\];"),
        ({"class_names": np.ones(2)}, r"float64\[2\]; it must be text"),
        ({"class_names": np.array([b"a", b"\xff"])}, "are not UTF-8"),
    ],
)
def test_unusable_npz(tmp_path, arrays, message):
    base = {"images": images(2, 4, 3), "labels": np.arange(2)}
    if "x" in arrays:
        base = {}
    name = npz(tmp_path / "a.npz", **base | arrays)
    with pytest.raises(ValueError, match=message) as error:
        sources.load(name, "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:birds#wings", "no class label 'wings'; labels: label"),
        ("tfds:fish", "no fish of TFDS .* tfds build fish --file_format=array_record"),
        ("tfds:", "tfds: has no name; give tfds:NAME"),
        ("npz:nowhere.npz", "no file .*nowhere.npz"),
        ("list:a.txt", "unknown kind of data set 'list:'; choices: tfds:, npz:, hf:"),
    ],
)
def test_sets_that_are_not_there(birds, name, message):
    with pytest.raises(ValueError, match=message):
        sources.source(name, data_dir=birds[0])


def test_a_split_that_is_not_there(birds):
    with pytest.raises(ValueError, match=r"unknown split 'extra'; .*train, validation"):
        sources.load("tfds:birds", "extra", data_dir=birds[0])


def test_a_split_without_images(monkeypatch):
    """As TFDS and the Hub may have one: scores of nothing would be NaN."""
    empty = image_sets.ArrayRecords(images(0, 8, 3), np.zeros(0, np.int32), "none")
    found = image_sets.ImageSet(
        "birds", ("wren", "kite"), ("train",), 8, lambda split: empty, lambda split: []
    )
    monkeypatch.setattr(described_sets, "open_set", lambda *_, **__: found)
    with pytest.raises(ValueError, match="the split train of birds has no images"):
        sources.source("hf:birds")
    assert huggingface._common_size(empty) is None


def test_a_damaged_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"cannot read .*a.npz"):
        sources.source(f"npz:{tmp_path}/a.npz")


def test_without_the_library_of_hugging_face(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'spatial-smoothing\[hf\]'"):
        sources.source("hf:mnist")


def test_rows_of_hugging_face_that_are_saved_anew_are_read_anew(tmp_path):
    rows = types.SimpleNamespace(
        num_rows=3, cache_files=[{"filename": tmp_path / "data.arrow"}]
    )
    versions = []
    for content in (b"before", b"after."):
        (tmp_path / "data.arrow").write_bytes(content)
        versions.append(huggingface._version({"train": rows}, "label", "train"))
    assert versions[0] != versions[1]


@pytest.mark.filterwarnings("ignore")  # the library and what it needs warn
def test_a_folder_of_parquet(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pixels, labels = images(9, 8, 3), np.arange(9) % 3

    def content(image):
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]},
    }
    file = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema(
        [("image", file), ("label", pyarrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = {
        "image": [{"bytes": content(image), "path": None} for image in pixels],
        "label": labels.tolist(),
    }
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        table = pyarrow.table(rows, schema=schema)
        parquet.write_table(table, tmp_path / "set" / f"{split}.parquet")
    name = f"hf:{tmp_path}/set"
    source = sources.source(name)
    assert (source.class_names, source.image_size) == (("a", "b", "c"), 8)
    loaded = sources.load_source(source, "test[1:]")
    np.testing.assert_array_equal(loaded.images, pixels[1:])
    np.testing.assert_array_equal(loaded.labels, labels[1:])
    with pytest.raises(ValueError, match=r"choose the label as hf:NAME#COLUMN"):
        sources.source(f"{name}#size")
