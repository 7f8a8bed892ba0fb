import dataclasses
import itertools
import multiprocessing
import os
import signal
import time
import zlib
from multiprocessing import resource_tracker

import grain
import jpeg_images
import numpy as np
import pytest
from absl import flags

from spatial_smoothing.data import datasets, numbered_batches, sources
from spatial_smoothing.data.images import decoding, pipeline

SIZE, COUNT = 32, 13


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small ImageNet of TFDS: its directory, and split -> contents and labels."""
    root = tmp_path_factory.mktemp("tfds")
    return root, jpeg_images.prepare_imagenet(root, count=COUNT)


@pytest.fixture(scope="module")
def train(prepared):
    return sources.load("imagenet", "train", data_dir=prepared[0], image_size=SIZE)


def real(batches, key="label"):
    return np.concatenate([batch[key][batch["mask"]] for batch in batches])


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys() == {"image", "label", "mask"}
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("batch_size", [1, 5, 13, 20])
def test_evaluation_takes_all_in_order_from_the_centre(prepared, batch_size):
    root, contents = prepared
    dataset = sources.load("imagenet", "test", data_dir=root)
    assert dataset.num_examples == COUNT
    assert dataset.image_shape == (224, 224, 3)
    found = list(dataset.batches(batch_size))
    assert {batch["image"].shape for batch in found} == {(batch_size, 224, 224, 3)}
    masks = np.concatenate([batch["mask"] for batch in found])
    np.testing.assert_array_equal(masks, np.arange(len(masks)) < COUNT)
    expected = contents["validation"]
    np.testing.assert_array_equal(real(found), [label for _, label in expected])
    centres = [decoding.center_crop(content, size=224) for content, _ in expected]
    np.testing.assert_array_equal(real(found, "image"), centres)
    assert not found[-1]["image"][~found[-1]["mask"]].any()


def test_every_epoch_has_every_example_once_in_an_order_of_its_own(train):
    numbered = dataclasses.replace(train, records=Numbered(train.records))
    orders = {}
    for seed in (0, 1):
        found = list(numbered.training_batches(5, seed=seed, stop=9))
        assert [batch["mask"].sum() for batch in found] == 3 * [5, 5, 3]
        for epoch in range(3):
            order = tuple(real(found[3 * epoch : 3 * epoch + 3]))
            assert sorted(order) == list(range(COUNT))
            orders[seed, epoch] = order
    assert len(set(orders.values())) == 6


@dataclasses.dataclass
class Numbered:
    """Records whose label is their number."""

    records: pipeline.Records

    def __len__(self):
        return len(self.records)

    def read(self, number):
        return self.records.read(number)[0], number

    def describe(self, number):
        return self.records.describe(number)


def test_crops_are_drawn_anew_for_every_epoch_and_seed(train):
    one = train.subset(np.array([3]))
    images = [
        batch["image"][0]
        for seed in (0, 1)
        for batch in one.training_batches(1, seed=seed, stop=4)
    ]
    assert len({image.tobytes() for image in images}) == 8
    plain = dataclasses.replace(one, augment=False)
    (centre,) = plain.batches(1)
    for batch in plain.training_batches(1, seed=0, stop=2):
        np.testing.assert_array_equal(batch["image"], centre["image"])


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_run_can_be_continued_from_any_step(train, start):
    straight = list(train.training_batches(5, seed=1, stop=8))
    rest = train.training_batches(5, seed=1, start=start, stop=8)
    assert_same(rest, straight[start:])


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3, 4], [5]], [[5, 0], [4, 1], [2, 3]]])
def test_parts_of_processes_are_those_of_the_whole_batch(train, parts):
    for make in (
        lambda **rows: train.batches(6, **rows),
        lambda **rows: train.training_batches(6, seed=2, stop=5, **rows),
    ):
        whole = list(make())
        for rows in parts:
            assert_same(
                make(rows=rows), [{k: v[rows] for k, v in b.items()} for b in whole]
            )
    memory = datasets.Dataset(
        np.arange(7, dtype=np.uint8)[:, None], np.arange(7, dtype=np.int32)
    )
    assert [list(b["label"]) for b in memory.batches(4, rows=[1, 2])] == [
        [1, 2],
        [5, 6],
    ]


@pytest.mark.parametrize("parsed", [True, False])
def test_workers_change_nothing_and_report_their_mistakes(
    train, parsed, monkeypatch, caplog
):
    """In one test, because processes take seconds to start."""
    before = flags.FLAGS.is_parsed()
    started = []
    prefetch = grain.IterDataset.mp_prefetch
    monkeypatch.setattr(
        grain.IterDataset,
        "mp_prefetch",
        lambda *args, **options: started.append(args) or prefetch(*args, **options),
    )
    (flags.FLAGS.mark_as_parsed if parsed else flags.FLAGS.unparse_flags)()
    try:
        check_workers(train)
        assert flags.FLAGS.is_parsed() == parsed  # which belong to the program
    finally:
        (flags.FLAGS.mark_as_parsed if before else flags.FLAGS.unparse_flags)()
    assert started
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (0 if parsed else 2)
    for warning in warnings:
        assert "decoded in threads" in warning


def test_the_tracker_of_shared_memory_outlives_a_closed_terminal(monkeypatch):
    tracker = resource_tracker.ResourceTracker()
    monkeypatch.setattr(resource_tracker, "ensure_running", tracker.ensure_running)
    numbered_batches._start_tracker()
    os.kill(tracker._pid, signal.SIGHUP)
    time.sleep(0.2)
    tracker._send("PROBE", "nothing", "dummy")  # raises where nobody reads
    assert os.waitpid(tracker._pid, os.WNOHANG) == (0, 0)
    tracker._stop()


def check_workers(train):
    other = dataclasses.replace(train, num_workers=2)
    make = lambda data: data.training_batches(5, seed=3, start=1, stop=99)
    expected, batches = itertools.islice(make(train), 12), make(other)
    found = [next(batches), next(batches)]
    # As a terminal does that is closed, and Ctrl-C.
    for number in (signal.SIGHUP, signal.SIGINT):
        for process in multiprocessing.active_children():
            os.kill(process.pid, number)
    assert_same([*found, *itertools.islice(batches, 10)], expected)
    if processes := multiprocessing.active_children():
        processes[0].kill()  # as the system does that needs memory
        message = r"one of the 2 processes .* has ended: .*-9.*\(num_workers\)"
        with pytest.raises(OSError, match=message):
            list(batches)
    damaged = dataclasses.replace(other, records=Cut(train.records), num_workers=1)
    with pytest.raises(ValueError, match=r"cannot read record 2 of train in .*: "):
        list(damaged.batches(5))


class Cut(Numbered):
    """Records of which number 2 is cut short."""

    def read(self, number):
        content, label = self.records.read(number)
        return content[: 300 if number == 2 else None], label


def test_subsets_are_of_what_is_left(train):
    numbered = dataclasses.replace(train, records=Numbered(train.records))
    some = numbered.subset(np.array([9, 1, 4]))
    assert list(real(some.batches(2))) == [9, 1, 4]
    assert list(real(some.subset(np.array([True, False, True])).batches(2))) == [9, 4]
    rest, held = datasets.hold_out(numbered, fraction=0.3)
    assert (rest.num_examples, held.num_examples) == (9, 4)
    together = [*real(rest.batches(4)), *real(held.batches(4))]
    assert sorted(together) == list(range(COUNT))
    found = list(rest.training_batches(4, seed=0, stop=3))
    assert sorted(real(found)) == sorted(real(rest.batches(4)))


def test_checksums_tell_data_sets_apart(train):
    memory = datasets.Dataset(np.zeros((4, 2), np.uint8), np.arange(4, dtype=np.int32))
    assert memory.checksum() == "4 examples with checksum " + (
        f"{zlib.crc32(np.arange(4, dtype='<i4').tobytes(), zlib.crc32(bytes(8))):08x}"
    )
    for dataset, other in ((memory, np.array([1, 0, 2, 3])), (train, np.arange(12))):
        assert (
            dataset.checksum()
            == dataset.subset(np.arange(dataset.num_examples)).checksum()
        )
        assert dataset.checksum() != dataset.subset(other).checksum()


def test_unlabelled_images_are_refused(tmp_path):
    jpeg_images.prepare_imagenet(tmp_path, count=2, labels=(0, -1))
    dataset = sources.load("imagenet", "test", data_dir=tmp_path)
    with pytest.raises(ValueError, match="label -1 is not in 0 to 999"):
        list(dataset.batches(2))


def test_imagenet_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"no imagenet2012 of TFDS .* tfds build"):
        sources.load("imagenet", "test", data_dir=tmp_path)
