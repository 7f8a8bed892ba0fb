"""Batches that follow from a seed and their number, made ahead of the step by Grain.

Contract of this file: batches are those of `batches`; padding is black. What batch
number `step` of a run holds is a pure function of (seed, step) and of which of its rows
are asked for, whichever threads or processes make it, and from which step on.
"""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import NamedTuple

import numpy as np

from spatial_smoothing.data import batches

Batch = dict[str, np.ndarray]
_log = logging.getLogger(__name__)
# What Grain says of a worker that another program or the system has ended.
_WORKER_ENDED = "Worker process was terminated"


class BatchPlan(NamedTuple):
    """Which examples a batch holds, and where.

    Attributes:
      num_rows: R, number of rows of the batch.
      examples: Pairs of a row in [0, R) and the position of its example in the data
        set. Rows without a pair are padding.
      seed: Seed of a run, whose examples may be augmented; None for examples as they
        are evaluated.
      epoch: Number of the epoch.
    """

    num_rows: int
    examples: Sequence[tuple[int, int]]
    seed: int | None
    epoch: int


class NumberedBatches:
    """The batches of a data set of which each is made by its number.

    A subclass has the attributes and the method `make_batch`. It can be pickled, for
    workers get a copy of it.

    Attributes:
      num_examples: N.
      in_memory: Whether the examples are held in memory. Their batches are made when
        they are asked for, and not ahead.
      num_workers: Number of processes that make batches ahead; 0 for threads of this
        process.
    """

    num_examples: int
    in_memory: bool
    num_workers: int

    def make_batch(self, plan: BatchPlan) -> Batch:
        """Makes a batch of R examples, black where it is padding.

        Args:
          plan: The examples of the batch.
        """
        raise NotImplementedError

    def batches(
        self, batch_size: int, *, rows: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Yields all examples in order, not augmented; the last batch is padded.

        Args:
          batch_size: B, number of examples of a batch.
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
          batch_size: B, number of examples of a batch.
          seed: Seed of the order, and of the crops and flips where the data set has
            them.
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
        if self.in_memory:
            return map(make, range(start, stop))
        return _make_ahead(make, start, stop, self.num_workers)


def _batch(
    dataset: NumberedBatches,
    batch_size: int,
    rows: np.ndarray,
    seed: int | None,
    step: int,
) -> Batch:
    """Makes a batch, or some of its rows.

    Args:
      dataset: The data set.
      batch_size: B, number of examples of a batch.
      rows: i64[R], the positions in [0, B) to make.
      seed: Seed of a run, whose batches are shuffled; None for the examples in order.
      step: Number of the batch.
    """
    count = dataset.num_examples
    epoch, index = divmod(step, batches.num_batches(count, batch_size))
    positions = index * batch_size + rows
    examples = []
    for row in np.flatnonzero(positions < count):
        position = int(positions[row])
        if seed is not None:
            position = _shuffled(position, count, seed, epoch)
        examples.append((int(row), position))
    return dataset.make_batch(BatchPlan(len(rows), examples, seed, epoch))


@functools.cache
def _epoch_seed(seed: int, epoch: int) -> int:
    """Returns the seed, u32, of the order of an epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def _shuffled(position: int, count: int, seed: int, epoch: int) -> int:
    """Returns which of `count` examples is at a position of a shuffled epoch.

    The permutation is computed for one position at a time, so that no memory holds the
    order of millions of examples.
    """
    import grain

    return grain.experimental.index_shuffle(
        position, max_index=count - 1, seed=_epoch_seed(seed, epoch), rounds=4
    )


def _make_ahead(
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

    Raises:
      OSError: A worker process has ended, as where the system ends it to have memory.
    """
    import grain  # only images in files need it, and it takes a while to import

    threads = 1 if workers else min(_num_cores(), 16)
    # An element of Grain's data set is a whole batch, so that nothing has to be put
    # together behind the threads or workers.
    data = grain.MapDataset.range(start, stop).map(make)
    data = data.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
    if workers:
        options = grain.MultiprocessingOptions(workers)
        _start_tracker()
        data = data.mp_prefetch(options, worker_init_fn=_start_worker)
    iterator = iter(data)
    try:
        yield from iterator
    except RuntimeError as error:
        if _WORKER_ENDED not in str(error):
            raise
        raise OSError(
            f"one of the {workers} processes that decode images has ended: {error} "
            "Fewer of them (num_workers) take less memory."
        ) from None
    finally:
        iterator.close()


def _num_cores() -> int:
    """Returns how many cores this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_tracker() -> None:
    """Starts Python's tracker of shared memory, so that it outlives a closed terminal.

    It ignores SIGINT and SIGTERM by itself. SIGHUP ends it, and the new one that Python
    starts writes a traceback for each piece of memory of which it does not know.
    """
    # The process inherits what is blocked here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(index: int, count: int) -> None:
    """Prepares a worker process: it ignores signals, and ends when its parent ends.

    The run itself handles signals and stops its workers. A terminal that is closed
    sends SIGHUP to all of them, and a run that lost its workers could not save. A run
    that is killed cannot stop them; each worker therefore waits for its parent in a
    thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def end_with_the_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
