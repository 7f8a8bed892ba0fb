import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from prepared_sets import write

from spatial_smoothing.data import shapes, sources


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def damageable(prepared, tmp_path):
    folder = tmp_path / "tfds/cifar10/3.0.2"
    shutil.copytree(prepared.folder, folder)
    return folder


def message(call, *args, **kwargs):
    """Returns the text of the ValueError of a call, which must be one line."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_and_sources():
    assert sources.names() == [
        *("cifar10", "cifar100", "shapes", "imagenet"),
        *("moving_shapes", "camvid", "cityscapes"),
    ]
    for name in sources.names():
        source = sources.source(name)
        assert source.name == name
        sizes = {
            **{"imagenet": 224, "moving_shapes": (48, 64)},
            **{"camvid": (360, 480), "cityscapes": (512, 1024)},
        }
        assert source.image_size == sizes.get(name, 32)
        assert len(source.mean) == len(source.std) == 3
    assert [sources.source(n).num_classes for n in sources.names()] == [
        *(10, 100, 10, 1000),
        *(6, 11, 19),
    ]


def test_names_of_a_task():
    images = ["cifar10", "cifar100", "shapes", "imagenet"]
    assert sources.names(task="classification") == images
    assert sources.names(task="segmentation") == sources.names()[len(images) :]


def test_unknown_name_and_split():
    assert message(sources.source, "cifar1000") == (
        "unknown data set 'cifar1000'; did you mean 'cifar100'? "
        "choices: cifar10, cifar100, shapes, imagenet, moving_shapes, "
        "camvid, cityscapes"
    )
    assert message(sources.load, "shapes", "tests") == (
        "unknown split 'tests'; did you mean 'test'? choices: train, test"
    )


def test_shapes(own_cache):
    images, labels = shapes.generate("test")
    for _ in range(2):
        loaded = sources.load("shapes", "test")
        np.testing.assert_array_equal(loaded.images, images)
        np.testing.assert_array_equal(loaded.labels, labels)
        assert loaded.images.dtype == np.uint8
        assert loaded.labels.dtype == np.int32
        assert [p.name[:12] for p in own_cache.iterdir()] == ["shapes-test-"]


def test_shapes_need_no_tfds():
    code = (
        "import sys; from spatial_smoothing.data import sources\n"
        "sources.load('shapes', 'test')\n"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prepared_data_are_read_as_they_are(prepared, own_cache):
    root = prepared.folder.parent.parent
    for number, split in enumerate(sources.SPLITS, start=1):
        for _ in range(2):
            loaded = sources.load("cifar10", split, data_dir=root)
            np.testing.assert_array_equal(loaded.images, prepared.images[split])
            np.testing.assert_array_equal(loaded.labels, prepared.labels[split])
            assert loaded.images.dtype == np.uint8
            assert loaded.labels.dtype == np.int32
            assert len(list(own_cache.iterdir())) == number


def test_default_and_relative_directories(prepared, monkeypatch, own_cache):
    root = prepared.folder.parent.parent
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(root))
    monkeypatch.chdir(root.parent)
    for data_dir in (None, root.name, str(root), root):
        loaded = sources.load("cifar10", "test", data_dir=data_dir)
        np.testing.assert_array_equal(loaded.labels, prepared.labels["test"])
        assert len(list(own_cache.iterdir())) == 1


def test_what_is_prepared_is_not_prepared_again(prepared):
    root = prepared.folder.parent.parent
    loaded = sources.load("cifar10", "test", data_dir=root, download=True)
    np.testing.assert_array_equal(loaded.images, prepared.images["test"])


def test_newest_version_as_array_record_is_read(prepared, tmp_path):
    newest = write(tmp_path / "other", seed=1)
    root = tmp_path / "tfds"
    shutil.copytree(prepared.folder, root / "cifar10/3.0.2")
    shutil.copytree(newest.folder, root / "cifar10/3.0.10")
    for version, suffix in (("4.0.0", "tfrecord"), ("incomplete.XYZABC_5.0.0", "")):
        folder = root / "cifar10" / version
        folder.mkdir()
        (folder / "dataset_info.json").touch()
        (folder / f"cifar10-test.{suffix}-00000-of-00001").touch()
    loaded = sources.load("cifar10", "test", data_dir=root)
    np.testing.assert_array_equal(loaded.images, newest.images["test"])


REMEDY = (
    "pass --config.data_dir=DIR with the directory of TFDS, "
    "or --config.download=True to prepare cifar100 there"
)


@pytest.mark.parametrize(
    ("data_dir", "expected"),
    [
        ("nowhere", "data directory {root}/nowhere does not exist; {remedy}"),
        ("file", "data directory {root}/file is not a directory; {remedy}"),
        (
            "empty",
            "no cifar100 of TFDS in data directory {root}/empty (no cifar100/VERSION/"
            "dataset_info.json; prepared there: nothing); {remedy}",
        ),
        (
            "tfds",
            "no cifar100 of TFDS in data directory {root}/tfds (no cifar100/VERSION/"
            "dataset_info.json; prepared there: cifar10); {remedy}",
        ),
        ("tfds/cifar10", "{any}; did you mean --config.data_dir={root}/tfds?"),
        ("tfds/cifar10/3.0.2", "{any}; did you mean --config.data_dir={root}/tfds?"),
    ],
)
def test_directory_without_the_data_set(data_dir, expected, damageable, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty/folder").mkdir(parents=True)
    text = message(sources.load, "cifar100", "test", data_dir=tmp_path / data_dir)
    expected = expected.format(root=tmp_path, remedy=REMEDY, any="ANY")
    assert re.fullmatch(re.escape(expected).replace("ANY", ".*"), text)


@pytest.mark.parametrize("download", [False, True])
def test_other_file_format(download, damageable):
    for path in damageable.glob("*.array_record*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    root = damageable.parent.parent
    text = message(sources.load, "cifar10", "test", data_dir=root, download=download)
    assert text.startswith(
        f"{damageable} is prepared as tfrecord, which takes TensorFl"
    )
    assert "--out_file_format=array_record" in text


def test_missing_split(tmp_path):
    folder = write(tmp_path, splits=("test",)).folder
    assert message(sources.load, "cifar10", "train", data_dir=tmp_path) == (
        f"{folder} has no split 'train', only test; "
        "pass a --config.data_dir that has it"
    )
    assert len(sources.load("cifar10", "test", data_dir=tmp_path).labels) == 300


@pytest.mark.parametrize("split", sources.SPLITS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-70_000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array record" * 10_000),
        lambda path: path.write_bytes(path.read_bytes().replace(b"IDAT", b"iDAT")),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "empty", "garbage", "changed", "absent"],
)
def test_damaged_shard_is_named(damage, split, damageable):
    path = damageable / f"cifar10-{split}.array_record-00001-of-00002"
    damage(path)
    text = message(sources.load, "cifar10", split, data_dir=damageable.parent.parent)
    assert text.startswith(f"cannot read {path}: ")
    assert "if it is damaged, remove this version and prepare it again" in text


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("dataset_info.json", "{", "", "ParseError: "),
        ("features.json", "{", "", "JSONDecodeError: "),
        ("features.json", '"label"', '"class"', "KeyError: 'label'"),
    ],
)
def test_damaged_description(file, old, new, reason, damageable):
    path = damageable / file
    path.write_text(path.read_text().replace(old, new, 1))
    text = message(sources.load, "cifar10", "test", data_dir=damageable.parent.parent)
    assert text.startswith(f"cannot read {damageable}: {reason}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_classes": 11}, "3.0.2 has 11 classes, not 10"),
        ({"label": -1}, "3.0.2 has labels outside 0 to 9"),
        (
            {"size": 1},
            "cifar10-test.array_record-00000-of-00002: ValueError: "
            "images of uint8[1, 1, 3], not uint8[32, 32, 3]",
        ),
    ],
)
def test_other_content(options, expected, tmp_path):
    write(tmp_path, **options)
    text = message(sources.load, "cifar10", "test", data_dir=tmp_path)
    assert expected in text


def test_cache_follows_the_files(damageable, tmp_path, own_cache):
    root = damageable.parent.parent
    shutil.copytree(root, tmp_path / "copy")  # with the times of the files
    for number, data_dir in enumerate((root, tmp_path / "copy"), start=1):
        sources.load("cifar10", "test", data_dir=data_dir)
        assert len(list(own_cache.iterdir())) == number
    shutil.rmtree(damageable)
    other = write(root, seed=1)
    loaded = sources.load("cifar10", "test", data_dir=root)
    np.testing.assert_array_equal(loaded.images, other.images["test"])
