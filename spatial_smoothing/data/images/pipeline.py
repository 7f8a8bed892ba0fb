"""Data sets of encoded images, which need not fit in memory, through Grain.

Contract of this file: batches are those of `batches`; padding is black. What batch
number `step` of a run holds is a pure function of (seed, step) and of which of its rows
are asked for, whichever threads or processes make it, and from which step on.
"""

import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import grain
import numpy as np
from absl import flags

from spatial_smoothing.data import batches
from spatial_smoothing.data.images import decoding
from spatial_smoothing.runtime import paths

Batch = dict[str, np.ndarray]


class Records(Protocol):
    """Encoded images by number; can be pickled, for the workers."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> tuple[bytes, int]:
        """Returns content and label of a record."""

    def describe(self, number: int) -> str:
        """Returns where a record is, for messages."""


@dataclasses.dataclass(frozen=True)
class EncodedDataset:
    """Encoded images and their labels.

    Attributes:
      records: Of the images.
      size: Height and width to which they are cropped, in pixels.
      rows: i64[N], the records that belong to the data set, in order; None for all.
      resize: Shorter side to which they are resized before the centre is taken; None
        for size * 256 / 224.
      upright: Whether images are turned as their metadata say.
      augment: Whether training takes random crops and flips, in place of the centre.
      num_workers: Processes that read and decode; 0 for threads of this one.
    """

    records: Records
    size: int
    rows: np.ndarray | None = None
    resize: int | None = None
    upright: bool = False
    augment: bool = True
    num_workers: int = 0

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.records if self.rows is None else self.rows)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, C."""
        return self.size, self.size, 3

    @property
    def labels(self) -> np.ndarray:
        """i32[N]; reads every record."""
        numbers = map(self.record_number, range(self.num_examples))
        return np.array([self.records.read(n)[1] for n in numbers], np.int32)

    def checksum(self) -> str:
        """Returns a short text that differs where data sets do: looks at a few."""
        count, value = self.num_examples, 0
        for position in sorted({0, count // 2, count - 1}):
            content, label = self.records.read(self.record_number(position))
            value = zlib.crc32(content, value + label)
        return f"{count} examples, some with checksum {value:08x}"

    def record_number(self, position: int) -> int:
        """Returns which record an example is."""
        return position if self.rows is None else int(self.rows[position])

    def subset(self, rows: np.ndarray) -> "EncodedDataset":
        """Returns the examples of these rows: numbers, or a mask."""
        every = np.arange(len(self.records)) if self.rows is None else self.rows
        return dataclasses.replace(self, rows=every[rows])

    def batches(
        self, batch_size: int, *, rows: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Yields all examples in order, from the centre; the last batch is padded.

        Args:
          batch_size: B.
          rows: The part of every batch that is wanted, numbers in [0, B); None for all.
        """
        stop = batches.num_batches(self.num_examples, batch_size)
        return self._iterate(0, stop, batch_size, rows, seed=None)

    def training_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        stop: int,
        rows: Sequence[int] | None = None,
    ) -> Iterator[Batch]:
        """Yields the batches of steps `start` to `stop` of a run.

        Every epoch has all examples in an order of its own, and ends with a batch that
        may be padded.

        Args:
          batch_size: B.
          seed: Of order, crops and flips.
          start: First step.
          stop: After the last step.
          rows: The part of every batch that is wanted, numbers in [0, B); None for all.
        """
        return self._iterate(start, stop, batch_size, rows, seed=seed)

    def _iterate(
        self,
        start: int,
        stop: int,
        batch_size: int,
        rows: Sequence[int] | None,
        *,
        seed: int | None,
    ) -> Iterator[Batch]:
        rows = np.arange(batch_size) if rows is None else np.asarray(rows)
        make = functools.partial(_batch, self, batch_size, rows, seed)
        workers = min(self.num_workers, max(stop - start, 0))
        threads = 1 if workers else min(_num_cores(), 16)
        data = grain.MapDataset.range(start, stop).map(make)
        data = data.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
        if workers:
            if not flags.FLAGS.is_parsed():  # Grain looks at flags, also where none are
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(workers)
            data = data.mp_prefetch(options, worker_init_fn=_start_worker)
        iterator = iter(data)
        try:
            yield from iterator
        finally:
            iterator.close()


def _batch(
    dataset: EncodedDataset,
    batch_size: int,
    rows: np.ndarray,
    seed: int | None,
    step: int,
) -> Batch:
    """Makes these rows of a batch: of a step of a run, or without seed in order."""
    count = dataset.num_examples
    epoch, index = divmod(step, batches.num_batches(count, batch_size))
    positions = index * batch_size + rows
    mask = positions < count
    images = np.zeros((len(rows), *dataset.image_shape), np.uint8)
    labels = np.zeros(len(rows), np.int32)
    for row in np.flatnonzero(mask):
        position, rng = int(positions[row]), None
        if seed is not None:
            position = _shuffled(position, count, seed, epoch)
            if dataset.augment:
                rng = np.random.default_rng((seed, epoch, position))
        images[row], labels[row] = _example(dataset, position, rng)
    return {"image": images, "label": labels, "mask": mask}


def _num_cores() -> int:
    """Returns how many this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def _shuffled(position: int, count: int, seed: int, epoch: int) -> int:
    """Returns the example at a position of an epoch; needs no memory for the order."""
    return grain.experimental.index_shuffle(
        position, max_index=count - 1, seed=_epoch_seed(seed, epoch), rounds=4
    )


def _example(
    dataset: EncodedDataset, position: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, int]:
    number = dataset.record_number(position)
    options = {"size": dataset.size, "upright": dataset.upright}
    try:
        content, label = dataset.records.read(number)
        if rng is None:
            options["resize"] = dataset.resize
            return decoding.center_crop(content, **options), label
        return decoding.random_crop(content, rng, **options), label
    except Exception as error:  # every decoder and file system raises its own
        where = dataset.records.describe(number)
        raise ValueError(
            f"cannot read {where}: {paths.first_line(error)}; replace or remove it"
        ) from None


def _start_worker(index: int, count: int) -> None:
    """Has a worker leave signals to the run, and end with it however that ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
