import dataclasses
import functools
import hashlib
import http.server
import re
import sys
import tarfile
import threading

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from cifar_archive import random_content, tar_gz
from tensorflow_datasets.image_classification import cifar as official

from spatial_smoothing.data import sources
from spatial_smoothing.data.tfds import prepare_cifar

NAMES = ("cifar10", "cifar100")
OFFICIAL = {"cifar10": official.Cifar10, "cifar100": official.Cifar100}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Returns a function that puts an archive where a download would be taken from."""

    def put(name, content=None, *, url="https://archive.invalid", folder="manual"):
        content = tar_gz(random_content(name).files) if content is None else content
        builder = prepare_cifar.BUILDERS[name]
        filename = builder.archive.url.rpartition("/")[2]
        archive = dataclasses.replace(
            builder.archive,
            url=f"{url}/{filename}",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        monkeypatch.setattr(builder, "archive", archive)
        path = tmp_path / "tfds" / "downloads" / folder / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return tmp_path / "tfds"

    return put


def read_all(folder, split):
    return list(tfds.builder_from_directory(folder).as_data_source(split))


@pytest.mark.parametrize("name", NAMES)
def test_prepared_data_are_those_of_the_archive(name, serve):
    content = random_content(name)
    root = serve(name)
    folder = prepare_cifar.prepare(name, root)
    assert str(folder) == f"{root}/{name}/3.0.2"
    info = tfds.builder_from_directory(folder).info
    assert info.file_format.value == "array_record"
    for feature, class_names in content.class_names.items():
        assert info.features[feature].names == class_names
    for split, images in content.images.items():
        examples = read_all(folder, split)
        assert info.splits[split].num_examples == len(examples) == len(images)
        ids = [example["id"].decode() for example in examples]
        assert sorted(ids) == [f"{split}_{i:05d}" for i in range(len(images))]
        rows = [int(i.removeprefix(f"{split}_")) for i in ids]
        assert rows != sorted(rows)
        read = np.stack([example["image"] for example in examples])
        np.testing.assert_array_equal(read, images[rows])
        for feature, labels in content.labels[split].items():
            read = [example[feature] for example in examples]
            np.testing.assert_array_equal(read, labels[rows])
        loaded = sources.load(name, split, data_dir=root)
        np.testing.assert_array_equal(loaded.images, images[rows])
        np.testing.assert_array_equal(
            loaded.labels, content.labels[split]["label"][rows]
        )


def read_with_numpy(path, num_labels):
    """Stands in for the TensorFlow file reader of the official builder."""
    records = np.fromfile(path, np.uint8).reshape(-1, num_labels + 3072)
    for record in records:
        image = record[num_labels:].reshape(3, 32, 32).transpose(1, 2, 0)
        yield record[:num_labels], PIL.Image.fromarray(image)


@pytest.mark.parametrize("name", NAMES)
def test_same_as_of_the_official_builder(name, serve, monkeypatch, tmp_path):
    for path, data in random_content(name).files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    manager, extracted = tfds.download.DownloadManager, lambda self, url: str(tmp_path)
    monkeypatch.setattr(manager, "download_and_extract", extracted)
    monkeypatch.setattr(official, "_load_data", read_with_numpy)
    reference = OFFICIAL[name](data_dir=tmp_path / "official")
    reference.download_and_prepare(file_format="array_record")

    expected, folder = reference.data_path, prepare_cifar.prepare(name, serve(name))
    assert {p.name for p in folder.iterdir()} == {p.name for p in expected.iterdir()}
    for path in expected.iterdir():
        if path.suffix in (".json", ".txt") and path.name != "dataset_info.json":
            assert (folder / path.name).read_text() == path.read_text()
    for split in ("train", "test"):
        np.testing.assert_equal(read_all(folder, split), read_all(expected, split))


def test_checksums_are_the_ones_known_to_tfds():
    for name, builder in prepare_cifar.BUILDERS.items():
        known = OFFICIAL[name].url_infos
        archive = builder.archive
        assert archive.size == known[archive.url].size
        assert archive.sha256 == known[archive.url].checksum
        assert tfds.builder_cls(name) is OFFICIAL[name]


def test_no_tensorflow_is_looked_for(serve, monkeypatch):
    looked_for = []

    class Finder:
        def find_spec(self, name, path=None, target=None):
            looked_for.append(name)

    root = serve("cifar10")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    sources.load("cifar10", "train", data_dir=root, download=True)
    assert "tensorflow" not in looked_for
    assert "tensorflow" not in sys.modules


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "tfds/downloads/web").mkdir(parents=True)
    handler = functools.partial(Handler, directory=tmp_path / "tfds/downloads/web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_and_refusal_of_another_archive(server, serve):
    root = serve("cifar100", url=server, folder="web")
    served = root / "downloads/web/cifar-100-binary.tar.gz"
    good = served.read_bytes()
    served.write_bytes(tar_gz({}))
    with pytest.raises(ValueError, match=r"cannot prepare cifar100 in .*wrong check"):
        sources.load("cifar100", "test", data_dir=root, download=True)
    assert not list((root / "cifar100").glob("*"))
    served.write_bytes(good)
    loaded = sources.load("cifar100", "test", data_dir=root, download=True)
    assert len(loaded.labels) == 9
    served.unlink()
    (root / "cifar100").rename(root / "elsewhere")
    prepare_cifar.prepare("cifar100", root)  # from the archive that was kept


def test_failed_download_names_the_remedy(server, serve, tmp_path):
    serve("cifar100", b"", url=f"{server}/none", folder="web")
    message = (
        f"cannot prepare cifar100 in {tmp_path}/new: "
        f"Failed to get url {server}/none/cifar-100-binary.tar.gz. HTTP code: 404; "
        f"or put {server}/none/cifar-100-binary.tar.gz "
        f"(sha256 {hashlib.sha256(b'').hexdigest()}) "
        f"at {tmp_path}/new/downloads/manual/cifar-100-binary.tar.gz"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        prepare_cifar.prepare("cifar100", tmp_path / "new")


def test_wrong_file_in_place_of_a_download_is_refused(serve):
    root = serve("cifar10")
    (root / "downloads/manual/cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"to .*downloads/manual/.*wrong checksum"):
        prepare_cifar.prepare("cifar10", root)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("10-batches-bin/data_batch_3.bin", None, "lacks cifar-10.*/data_batch_3.bin"),
        ("10-batches-bin/batches.meta.txt", None, "lacks cifar-10.*/batches.meta.txt"),
        ("10-batches-bin/test_batch.bin", b"a", "has 1 bytes, .* not records of 3073"),
        (
            "100-binary/train.bin",
            b"",
            "train.bin of .* has 0 bytes, .* records of 3074",
        ),
        (
            "100-binary/test.bin",
            b"\x14" * 3074,
            "has the coarse_label 20, not in 0 to 19",
        ),
        ("10-batches-bin/batches.meta.txt", b"a", "meta.txt of .* has 1 names, not 10"),
    ],
)
def test_malformed_archive(file, change, message, serve):
    name = "cifar100" if file.startswith("100") else "cifar10"
    files = random_content(name).files
    files[f"cifar-{file}"] = change
    root = serve(name, tar_gz({k: v for k, v in files.items() if v is not None}))
    with pytest.raises(ValueError, match=message) as error:
        prepare_cifar.prepare(name, root)
    assert "\n" not in str(error.value)
    assert not list((root / name).glob("*"))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"no gzip",
        lambda data: data[:40_000] + bytes(40_000) + data[80_000:],
    ],
    ids=["truncated", "garbage", "changed"],
)
def test_damaged_archive(change, serve):
    root = serve(
        "cifar100",
        change(tar_gz(random_content("cifar100").files)),
    )
    with pytest.raises(ValueError, match="is not a readable tar"):
        prepare_cifar.prepare("cifar100", root)


def test_only_plain_files_are_read(serve):
    files = random_content("cifar10").files
    content = files.pop("cifar-10-batches-bin/test_batch.bin")
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "elsewhere.bin"
    files["cifar-10-batches-bin/elsewhere.bin"] = content
    root = serve("cifar10", tar_gz(files, link))
    with pytest.raises(ValueError, match=r"lacks cifar-10-batches-bin/test_batch\.bin"):
        prepare_cifar.prepare("cifar10", root)


def test_archive_is_not_extracted(serve, tmp_path):
    files = random_content("cifar10").files
    files |= {"../evil": b"", f"{tmp_path}/evil": b""}
    prepare_cifar.prepare("cifar10", serve("cifar10", tar_gz(files)))
    assert not list(tmp_path.rglob("evil"))


def test_interrupted_preparation_is_done_again(serve, monkeypatch):
    root = serve("cifar10")

    def interrupted(self, split, records):
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch:
        patch.setattr(prepare_cifar.Cifar10, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_cifar.prepare("cifar10", root)
    # What a process that was killed leaves behind.
    killed = root / "cifar10/incomplete.ABCDEF_3.0.2"
    killed.mkdir()
    (killed / "dataset_info.json").write_text("{")
    loaded = sources.load("cifar10", "test", data_dir=root, download=True)
    assert len(loaded.labels) == 9


def test_folder_that_is_not_complete(serve):
    root = serve("cifar10")
    (root / "cifar10/3.0.2").mkdir(parents=True)
    with pytest.raises(ValueError, match="is not a complete TFDS data set; remove it"):
        sources.load("cifar10", "test", data_dir=root, download=True)


def test_another_process_finishes_first(serve, monkeypatch):
    root = serve("cifar10")
    generate = prepare_cifar.Cifar10._generate_examples

    def overtaken(self, split, records):
        monkeypatch.setattr(prepare_cifar.Cifar10, "_generate_examples", generate)
        prepare_cifar.prepare("cifar10", root)
        yield from generate(self, split, records)

    monkeypatch.setattr(prepare_cifar.Cifar10, "_generate_examples", overtaken)
    folder = prepare_cifar.prepare("cifar10", root)
    assert len(read_all(folder, "train")) == 35


def test_data_directory_that_cannot_be_written(serve):
    root = serve("cifar10")
    (root / "cifar10").write_text("a file where the folder should be")
    message = "cannot prepare cifar10 in .*; pass a --config.data_dir that can be wri"
    with pytest.raises(ValueError, match=message):
        prepare_cifar.prepare("cifar10", root)
