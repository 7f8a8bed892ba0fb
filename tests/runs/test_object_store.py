"""Workdirs in a bucket: `gs://` paths over a file system of the test's own."""

import ast
import os
import pathlib

import fsspec
import jax
import jpeg_images
import numpy as np
import pytest
import report_rows
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from prepared_sets import write

import spatial_smoothing
from spatial_smoothing import report
from spatial_smoothing.data import sources, streams
from spatial_smoothing.data.corruption import official_sets
from spatial_smoothing.data.corruption.writer import write_cifar_c
from spatial_smoothing.data.images import decoding, image_files
from spatial_smoothing.data.tfds import prepared
from spatial_smoothing.evaluation import suites
from spatial_smoothing.metrics import per_example
from spatial_smoothing.runs import workdirs
from spatial_smoothing.runtime import paths
from spatial_smoothing.training import logs

RUN = "gs://bucket/runs/a"


class Bucket(MemoryFileSystem):
    """Objects in memory, whole or not there: nothing can be appended to them."""

    protocol = ("gcs", "gs")
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").removeprefix("gcs://").strip("/")

    def _open(self, path, mode="rb", **options):
        assert mode in ("rb", "wb"), f"object stores cannot open for {mode!r}"
        return super()._open(path, mode, **options)


@pytest.fixture(autouse=True)
def bucket():
    """Puts an empty one in the place of Google's."""
    for name in ("gcs", "gs"):
        fsspec.register_implementation(name, Bucket, clobber=True)
    epath.backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.store.clear()
    yield Bucket.store
    epath.backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("gs://bucket/a", "gs://bucket/a"),
        (epath.Path("gs://bucket/a") / "b", "gs://bucket/a/b"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("/a/b/../c", "/a/c"),
        ("a", f"{os.getcwd()}/a"),
        ("~/a", f"{os.path.expanduser('~')}/a"),
    ],
)
def test_absolute_paths(path, expected):
    assert os.fspath(paths.absolute(path)) == expected


def names(bucket):
    return sorted(name.removeprefix("/bucket/runs/a/") for name in bucket)


def test_a_run_claims_and_logs(bucket):
    config = {"model": "resnet_dnn_18", "dataset": "shapes", "stages": (1,)}
    for _ in range(2):
        path = workdirs.claim(RUN, config)
        log = logs.RunLog(path, name="test")
        log.start(step=0, total=4, steps_per_epoch=2)
        log.epoch(
            record := {
                "epoch": 1,
                "step": 2,
                "train_loss": 1.5,
                "train_accuracy": 0.5,
                "learning_rate": 0.1,
                "images_per_second": 10.0,
            }
        )
        log.close()
    assert str(path) == RUN
    held = workdirs.read_config(RUN)
    assert {name: held[name] for name in config} == {**config, "stages": [1]}
    (read,) = logs.read(path / "metrics.jsonl")
    assert read.pop("time")
    assert read == record
    found = names(bucket)
    assert found[:3] == ["config.json", "metrics.jsonl", "provenance.json"]
    assert found[3].startswith("tensorboard/events.out.tfevents.")
    with pytest.raises(ValueError, match="holds another config: dataset is"):
        workdirs.claim(RUN, {**config, "dataset": "cifar10"})


def test_an_evaluation_is_written_and_read(bucket):
    output = f"{RUN}/evaluation"
    probs = np.full((4, 3), 1 / 3, np.float32)
    examples = per_example(np.log(probs), np.arange(4) % 3)
    for label in ("old", "new"):  # the second replaces the first
        (row,) = report_rows.curve(label, sizes=(1,))
        rows, files = suites.pack_examples([{**row, "examples": examples}])
        about = {"provenance": {"seed": 0}, "title": "a title"}
        page = report.write(output, rows, files=files, **about)
    assert "a title" in page.read_text()
    assert workdirs.evaluation_path(RUN) == page.with_name("metrics.json")
    rows, provenance = report.read(workdirs.evaluation_path(RUN))
    assert ([row["label"] for row in rows], provenance) == (["new"], {"seed": 0})
    (row,) = suites.load_examples(output, rows)
    np.testing.assert_array_equal(row["examples"].nll, examples.nll)
    assert [name for name in bucket if "tmp" in name] == []


def local_only(path):
    """Yields what a file does that works on local paths alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "open":
            yield f"{path.name}:{node.lineno} open()"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "os.path":
            yield f"{path.name}:{node.lineno} os.path"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None), *(n.name for n in node.names)}
            if names & {"pathlib", "os.path", "tempfile"}:
                yield f"{path.name}:{node.lineno} {ast.unparse(node)}"


def test_files_that_know_workdirs_leave_paths_to_epath():
    package = pathlib.Path(spatial_smoothing.__file__).parent
    names = (
        "runs/workdirs",
        "training/logs",
        "training/checkpoints",
        "serving/loading",
    )
    files = [package / f"{name}.py" for name in names]
    files += [*package.glob("report/**/*.py")]
    files += [*package.glob("evaluation/suites/*.py")]
    files += [package / "cli" / f"{name}.py" for name in ("train", "evaluate")]
    assert all(file.exists() for file in files)
    assert [what for path in files for what in local_only(path)] == []


def upload(folder, target):
    """Copies a local folder to the bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            copy = epath.Path(target) / path.relative_to(folder).as_posix()
            copy.write_bytes(path.read_bytes())


def test_data_sets_of_tfds_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))
    written = write(tmp_path / "tfds")
    upload(tmp_path / "tfds", "gs://bucket/tfds")
    images, labels = sources.load("cifar10", "test", data_dir="gs://bucket/tfds")
    np.testing.assert_array_equal(images, written.images["test"])
    np.testing.assert_array_equal(labels, written.labels["test"])
    folder = prepared.find(epath.Path("gs://bucket/tfds"), "cifar10")
    with prepared.local_copy(folder, "test") as copy:
        copied = {path.name for path in copy.iterdir()}
    left = {path.name for path in folder.iterdir()} - copied
    assert left
    assert all("-train.array_record-" in name for name in left)
    with pytest.raises(ValueError, match=r"no cifar100 of TFDS in .* gs://bucket/tfds"):
        sources.load("cifar100", "test", data_dir="gs://bucket/tfds")


def test_imagenet_has_to_be_mounted(tmp_path):
    jpeg_images.prepare_imagenet(tmp_path, count=1)
    upload(tmp_path, "gs://bucket/tfds")
    message = r"cannot be read in a bucket: gs://bucket/tfds/imagenet2012/5.1.0; mount"
    with pytest.raises(ValueError, match=message):
        sources.load("imagenet", "test", data_dir="gs://bucket/tfds")


def test_folders_of_images_are_read(tmp_path):
    upload(jpeg_images.write_folder(tmp_path, count=2), "gs://bucket/pets")
    here, there = (
        next(sources.load(f"folder:{root}", "train", image_size=32).batches(4))
        for root in (tmp_path, "gs://bucket/pets")
    )
    np.testing.assert_array_equal(here["image"], there["image"])
    np.testing.assert_array_equal(here["label"], there["label"])


def test_files_of_images_and_arrays_are_read(tmp_path):
    content = jpeg_images.encode(jpeg_images.image(0), "PNG")
    stack = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "stack.npy", stack)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(content)
    upload(tmp_path, "gs://bucket/a")
    np.testing.assert_array_equal(
        streams.read_frames("gs://bucket/a/stack.npy", size=8), stack
    )
    np.testing.assert_array_equal(
        streams.read_frames("gs://bucket/a/frames", size=32, resize=37),
        decoding.center_crop(content, size=32)[None],
    )
    with pytest.raises(ValueError, match="no image file gs://bucket/none"):
        image_files.read("gs://bucket/none", size=8)


def test_corrupted_images_are_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3)).astype(np.uint8)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(10, dtype=np.int32) % 2)
    upload(tmp_path, "gs://bucket/c")
    dataset = official_sets.read_cifar_c("gs://bucket/c", "fog", 2)
    np.testing.assert_array_equal(dataset.images, images[2:4])
    assert official_sets.available("gs://bucket/c") == ["fog"]
    with pytest.raises(
        ValueError, match="gs://bucket/c is in a bucket; write to a disk"
    ):
        write_cifar_c(jax.random.key(0), "gs://bucket/c", dataset, names=["fog"])
