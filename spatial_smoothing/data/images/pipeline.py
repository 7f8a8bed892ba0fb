"""The input pipeline of ImageNet and of folders of images, by Grain.

Such data sets need not fit in memory: batches are read, decoded, cropped and flipped in
threads or worker processes, ahead of the step that takes them.

Contract of this file: batches are those of `batches`; padding is black. What batch
number `step` of a run holds is a pure function of (seed, step) and of which of its rows
are asked for, whichever threads or processes make it, and from which step on.
"""

import dataclasses
import functools
import logging
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from spatial_smoothing.data import batches
from spatial_smoothing.data.images import decoding
from spatial_smoothing.runtime import paths, progress

Batch = dict[str, np.ndarray]
_log = logging.getLogger(__name__)


class Records(Protocol):
    """Images by number, encoded or decoded. Workers get a pickled copy."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> tuple[decoding.Content, int]:
        """Returns content and label of a record."""

    def describe(self, number: int) -> str:
        """Returns where a record is, for messages."""


@dataclasses.dataclass(frozen=True)
class EncodedDataset:
    """Encoded images and their labels.

    Attributes:
      records: The images, as contents of files, and their labels.
      size: Height and width to which images are cropped, in pixels.
      rows: i64[N], numbers of the records that belong to the data set, in order; None
        for all records.
      resize: Length in pixels to which the shorter side is resized before the centre is
        taken; None for size * 256 / 224.
      upright: Whether images are turned upright, as their EXIF metadata say.
      augment: Whether training takes random crops and flips, in place of the centre.
      num_workers: Number of processes that read and decode; 0 for threads of this
        process.
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
    def label_shape(self) -> tuple[int, ...]:
        """(): a label is one class."""
        return ()

    @property
    def labels(self) -> np.ndarray:
        """i32[N]; reads every record."""
        positions = progress.track(
            range(self.num_examples), total=self.num_examples, name="reading labels"
        )
        numbers = map(self.record_number, positions)
        return np.array([self.records.read(n)[1] for n in numbers], np.int32)

    def checksum(self) -> str:
        """Returns a short text that differs where data sets do.

        It is made of the number of examples, and of the first, middle and last one.
        """
        count, value = self.num_examples, 0
        for position in sorted({0, count // 2, count - 1}):
            content, label = self.records.read(self.record_number(position))
            value = zlib.crc32(content, value + label)
        return f"{count} examples, some with checksum {value:08x}"

    def record_number(self, position: int) -> int:
        """Returns the number of the record that an example is."""
        return position if self.rows is None else int(self.rows[position])

    def subset(self, rows: np.ndarray) -> "EncodedDataset":
        """Returns some of the examples.

        Args:
          rows: i64[n], their positions in this data set; or a mask, bool[N].
        """
        every = np.arange(len(self.records)) if self.rows is None else self.rows
        return dataclasses.replace(self, rows=every[rows])

    def batches(
        self, batch_size: int, *, rows: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Yields all examples in order, their centre; the last batch is padded.

        Args:
          batch_size: B.
          rows: Positions in [0, B) of the examples of every batch that are wanted; None
            for all.
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

        Every epoch has all examples in another order, and ends with a batch that may be
        padded.

        Args:
          batch_size: B.
          seed: Seed of the order, the crops and the flips.
          start: Number of the first step.
          stop: Number of the step after the last one.
          rows: Positions in [0, B) of the examples of every batch that are wanted; None
            for all.
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
        """Yields batches number `start` to `stop`; see `_batch`."""
        rows = np.arange(batch_size) if rows is None else np.asarray(rows)
        make = functools.partial(_batch, self, batch_size, rows, seed)
        return make_ahead(make, start, stop, self.num_workers)


def make_ahead(
    make: Callable[[int], Batch], start: int, stop: int, num_workers: int
) -> Iterator[Batch]:
    """Yields what `make` returns for some numbers in order, made ahead of their use.

    Args:
      make: Number of a batch -> the batch; it can be pickled.
      start: First number.
      stop: Number behind the last one.
      num_workers: Number of processes that call `make`; 0 for threads of this process.
    """
    workers = min(num_workers, max(stop - start, 0))
    try:
        yield from _run(make, start, stop, workers)
    except Exception as error:
        if type(error).__name__ != "UnparsedFlagAccessError":
            raise
        # Grain 0.2.18 reads a flag of absl before it starts workers, and has no
        # other setting for it (google/grain#1355). The commands parse absl's flags;
        # a program without absl gets here, before the first batch.
        _log.warning(
            "images are decoded in threads and not by %d workers, because Grain "
            "does not start workers before absl's flags are parsed; call "
            "absl.flags.FLAGS.mark_as_parsed() once to have workers",
            workers,
        )
        yield from _run(make, start, stop, 0)


def _run(
    make: Callable[[int], Batch], start: int, stop: int, workers: int
) -> Iterator[Batch]:
    """Yields what `make` returns for the numbers from `start` to `stop`.

    Args:
      make: Number of a batch -> the batch; it can be pickled.
      start: First number.
      stop: Number behind the last one.
      workers: Number of processes that call `make`; 0 for threads of this process.
    """
    threads = 1 if workers else min(_num_cores(), 16)
    # An element of Grain's data set is a whole batch, so that nothing has to be put
    # together behind the threads or workers.
    import grain  # only images in files need it, and it takes a while to import

    data = grain.MapDataset.range(start, stop).map(make)
    data = data.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
    if workers:
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
    """Makes a batch, or some of its rows.

    Args:
      dataset: The data set.
      batch_size: B.
      rows: i64[R], the positions in [0, B) to make.
      seed: Seed of a run, whose batches are shuffled and augmented; None for the
        examples in order, their centre.
      step: Number of the batch.

    Returns:
      A batch of R examples, black where the mask is False.
    """
    count = dataset.num_examples
    epoch, index = divmod(step, batches.num_batches(count, batch_size))
    positions = index * batch_size + rows
    mask = positions < count
    images = np.zeros((len(rows), *dataset.image_shape), np.uint8)
    labels = np.zeros(len(rows), np.int32)
    for row in np.flatnonzero(mask):
        position, rng = int(positions[row]), None
        if seed is not None:
            position = shuffled(position, count, seed, epoch)
            if dataset.augment:
                rng = np.random.default_rng((seed, epoch, position))
        images[row], labels[row] = _example(dataset, position, rng)
    return {"image": images, "label": labels, "mask": mask}


def _num_cores() -> int:
    """Returns how many cores this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _epoch_seed(seed: int, epoch: int) -> int:
    """Returns the seed, u32, of the order of an epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def shuffled(position: int, count: int, seed: int, epoch: int) -> int:
    """Returns which of `count` examples is at a position of a shuffled epoch.

    The permutation is computed for one position at a time, so that no memory holds the
    order of millions of examples.
    """
    import grain

    return grain.experimental.index_shuffle(
        position, max_index=count - 1, seed=_epoch_seed(seed, epoch), rounds=4
    )


def _example(
    dataset: EncodedDataset, position: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, int]:
    """Returns the pixels u8[S, S, 3] and the label of an example.

    Args:
      dataset: The data set.
      position: Position of the example in the data set.
      rng: Generator of the random crop; None for the centre.
    """
    number = dataset.record_number(position)
    options = {"size": dataset.size, "upright": dataset.upright}
    try:
        content, label = dataset.records.read(number)
        if rng is None:
            options["resize"] = dataset.resize
            return decoding.center_crop(content, **options), label
        return decoding.random_crop(content, rng, **options), label
    except Exception as error:  # every decoder and file system raises its own type
        where = dataset.records.describe(number)
        raise ValueError(
            f"cannot read {where}: {paths.first_line(error)}; replace or remove it"
        ) from None


def _start_worker(index: int, count: int) -> None:
    """Prepares a worker process: it ignores signals, and ends when its parent ends.

    The run itself handles signals and stops its workers. A run that is killed cannot do
    so; each worker therefore waits for its parent in a thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def end_with_the_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
