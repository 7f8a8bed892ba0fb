"""Segmentation data sets: images with a class for every pixel, and their videos.

Contract of this file: a batch is `{"image": u8[B, H, W, 3], "label": i32[B, H, W],
"mask": bool[B, H, W]}`. Labels are in [0, K). The mask is False where a pixel has no
class (void), which is stored as the label 0, and in images that are padding. Outside of
batches, labels are u8[H, W], and a void pixel has the label `VOID`.

Every example is a frame of a video. Videos have frames without labels too; these are no
examples, but `windows` and `streams` return them. A set of single images has videos of
one frame.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.numbered_batches import Batch, BatchPlan, NumberedBatches


class Frames(Protocol):
    """The frames of some videos, by number. Workers get a pickled copy.

    Attributes:
      image_shape: (H, W, 3) of every frame.
      sequences: i64[F], number of the video of each frame, not decreasing.
      times: i64[F], position of each frame in its video, increasing within a video.
        Frames that follow each other in the video differ by one.
      labelled: bool[F], whether a frame has a label.
    """

    image_shape: tuple[int, int, int]
    sequences: np.ndarray
    times: np.ndarray
    labelled: np.ndarray

    def image(self, number: int) -> np.ndarray:
        """Returns the pixels of a frame, u8[H, W, 3], RGB."""

    def label(self, number: int) -> np.ndarray:
        """Returns the classes of the pixels of a labelled frame, u8[H, W]."""


@dataclasses.dataclass(frozen=True)
class ArrayFrames:
    """Frames in memory, all of which have labels.

    Attributes:
      images: u8[F, H, W, 3], RGB.
      labels: u8[F, H, W], `VOID` where a pixel has no class.
      sequences: i64[F], number of the video of each frame, not decreasing.
      times: i64[F], position of each frame in its video.
    """

    images: np.ndarray
    labels: np.ndarray
    sequences: np.ndarray
    times: np.ndarray

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""
        return self.images.shape[1:]

    @property
    def labelled(self) -> np.ndarray:
        """bool[F], all True."""
        return np.ones(len(self.images), bool)

    def image(self, number: int) -> np.ndarray:
        """Returns the pixels of a frame, u8[H, W, 3]."""
        return self.images[number]

    def label(self, number: int) -> np.ndarray:
        """Returns the classes of the pixels of a frame, u8[H, W]."""
        return self.labels[number]


@dataclasses.dataclass(frozen=True)
class SegmentationDataset(NumberedBatches):
    """Examples with a class for every pixel.

    Attributes:
      frames: All frames of the videos of the examples.
      rows: i64[N], numbers of the frames that are the examples, in order. These frames
        have labels.
      decoded: Images u8[N, H, W, 3] and labels u8[N, H, W] of the examples, where they
        are held in memory; None where they are decoded when they are needed.
      num_workers: Number of processes that decode what is not in memory; 0 for threads
        of this process.
    """

    frames: Frames
    rows: np.ndarray
    decoded: tuple[np.ndarray, np.ndarray] | None = None
    num_workers: int = 0

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""
        return tuple(self.frames.image_shape)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """(H, W): a label has a class for every pixel."""
        return self.image_shape[:2]

    @property
    def in_memory(self) -> bool:
        """Whether the examples are held in memory."""
        return self.decoded is not None

    @property
    def images(self) -> np.ndarray:
        """Images of the examples in memory, u8[N, H, W, 3]."""
        return self.decoded[0]

    @property
    def labels(self) -> np.ndarray:
        """Labels of the examples in memory, u8[N, H, W], `VOID` where void."""
        return self.decoded[1]

    def checksum(self) -> str:
        """Returns a short text that differs where data sets do.

        Of examples that are not in memory, the first, middle and last one count.
        """
        count, value = self.num_examples, 0
        chosen = range(count) if self.in_memory else {0, count // 2, count - 1}
        for position in sorted(chosen):
            for array in self.example(position):
                value = zlib.crc32(np.ascontiguousarray(array), value)
        return f"{count} examples with checksum {value:08x}"

    def subset(self, rows: np.ndarray) -> "SegmentationDataset":
        """Returns some of the examples. Their videos stay whole.

        Args:
          rows: i64[n], their positions in this data set; or a mask, bool[N].
        """
        decoded = self.decoded and tuple(array[rows] for array in self.decoded)
        return dataclasses.replace(self, rows=self.rows[rows], decoded=decoded)

    def make_batch(self, plan: BatchPlan) -> Batch:
        """Makes a batch. Nothing is cropped or flipped: the device does so.

        Args:
          plan: The examples of the batch; see `NumberedBatches`.
        """
        images = np.zeros((plan.num_rows, *self.image_shape), np.uint8)
        labels = np.full((plan.num_rows, *self.label_shape), VOID, np.uint8)
        for row, position in plan.examples:
            images[row], labels[row] = self.example(position)
        mask = labels != VOID
        return {
            "image": images,
            "label": np.where(mask, labels, 0).astype(np.int32),
            "mask": mask,
        }

    def windows(self, batch_size: int, *, past: int = 5) -> Iterator[Batch]:
        """Yields every example with the frames before it, in order.

        A window does not reach into another video, and has no gaps: where a video
        begins less than `past` frames before the example, or the frame before is not
        there, the window is shorter, as the history of a stream is at its beginning.
        What is missing is black and has a False in `frame_mask`.

        Args:
          batch_size: B, number of examples of a batch.
          past: P, number of frames before the example, at least 0.

        Yields:
          A batch whose `image` is u8[B, P + 1, H, W, 3], from the oldest frame to the
          example itself; `label` and `mask` are those of the example. `frame_mask`,
          bool[B, P + 1], tells which frames are there. In padding none is.
        """
        for start in range(0, self.num_examples, batch_size):
            batch = self._empty(batch_size, past + 1)
            for row in range(min(batch_size, self.num_examples - start)):
                number = int(self.rows[start + row])
                history = self._history(number, past)
                for place, each in enumerate(history, past + 1 - len(history)):
                    batch["image"][row, place] = self.frames.image(each)
                    batch["frame_mask"][row, place] = True
                self._put_label(batch, row, start + row)
            yield batch

    def streams(self, batch_size: int) -> Iterator[Batch]:
        """Yields the videos of the examples frame by frame, B videos at once.

        Every row of a batch shows one video after the other, each from its first frame
        to its last example. A predictor of streams keeps a state for each row, and
        forgets it where `start` is True.

        Args:
          batch_size: B, number of videos that are shown at once.

        Yields:
          A batch of the next frame of each video: `image` u8[B, H, W, 3]; `label`
          i32[B, H, W] and `mask` bool[B, H, W], False in all pixels of a frame that is
          no example; `start` bool[B], whether the frame is not the one after that of
          the batch before: a video begins, or frames are missing; `frame_mask` bool[B],
          whether there is a frame at all; and `example` i64[B], position of the frame
          among the examples, -1 where it is none.
        """
        position_of = {int(number): i for i, number in enumerate(self.rows)}
        queues = self._queues(batch_size)
        for step in range(max(map(len, queues), default=0)):
            batch = self._empty(batch_size, None)
            batch["start"] = np.zeros(batch_size, bool)
            batch["example"] = np.full(batch_size, -1)
            for row, queue in enumerate(queues):
                if step >= len(queue):
                    continue
                number = queue[step]
                batch["image"][row] = self.frames.image(number)
                batch["frame_mask"][row] = True
                before = queue[step - 1] if step else None
                batch["start"][row] = not self._follows(before, number)
                if number in position_of:
                    batch["example"][row] = position_of[number]
                    self._put_label(batch, row, position_of[number])
            yield batch

    def _queues(self, batch_size: int) -> list[list[int]]:
        """Returns the numbers of the frames that each row of `streams` shows."""
        last = {}  # number of a video -> its last example
        for number in self.rows:
            video = int(self.frames.sequences[number])
            last[video] = max(last.get(video, 0), int(number))
        queues = [[] for _ in range(batch_size)]
        for video in sorted(last):
            first = int(np.searchsorted(self.frames.sequences, video))
            shortest = min(queues, key=len)
            shortest += range(first, last[video] + 1)
        return queues

    def _history(self, number: int, past: int) -> list[int]:
        """Returns the numbers of a frame and of those before it, oldest first."""
        found = [number]
        while len(found) <= past and self._follows(found[0] - 1, found[0]):
            found.insert(0, found[0] - 1)
        return found

    def _follows(self, before: int | None, number: int) -> bool:
        """Whether a frame comes directly after another one in their video."""
        if before is None or before < 0:
            return False
        sequences, times = self.frames.sequences, self.frames.times
        is_same = sequences[before] == sequences[number]
        return bool(is_same and times[number] == times[before] + 1)

    def _empty(self, batch_size: int, num_frames: int | None) -> Batch:
        """Returns a batch that has nothing but padding; see `windows`."""
        leading = (batch_size,) if num_frames is None else (batch_size, num_frames)
        return {
            "image": np.zeros((*leading, *self.image_shape), np.uint8),
            "label": np.zeros((batch_size, *self.label_shape), np.int32),
            "mask": np.zeros((batch_size, *self.label_shape), bool),
            "frame_mask": np.zeros(leading, bool),
        }

    def _put_label(self, batch: Batch, row: int, position: int) -> None:
        """Writes the label of an example to a row of a batch."""
        label = self.label(position)
        batch["mask"][row] = label != VOID
        batch["label"][row] = np.where(label == VOID, 0, label)

    def label(self, position: int) -> np.ndarray:
        """Returns the label u8[H, W] of an example.

        Args:
          position: Position of the example in this data set, in [0, N).
        """
        if self.in_memory:
            return self.labels[position]
        return self.frames.label(int(self.rows[position]))

    def example(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns image u8[H, W, 3] and label u8[H, W] of an example.

        Args:
          position: Position of the example in this data set, in [0, N).
        """
        if self.in_memory:
            return self.images[position], self.labels[position]
        return self.frames.image(int(self.rows[position])), self.label(position)


def single_images(images: np.ndarray, labels: np.ndarray) -> SegmentationDataset:
    """Returns a data set of images in memory that are no videos.

    Args:
      images: u8[N, H, W, 3], RGB.
      labels: u8[N, H, W], classes, `VOID` where a pixel has none.
    """
    count = len(images)
    frames = ArrayFrames(images, labels, np.arange(count), np.zeros(count, np.int64))
    return SegmentationDataset(frames, np.arange(count), (images, labels))


def videos(images: np.ndarray, labels: np.ndarray) -> SegmentationDataset:
    """Returns a data set of videos in memory, every frame of which is an example.

    Args:
      images: u8[V, T, H, W, 3], RGB: V videos of T frames, oldest first.
      labels: u8[V, T, H, W], classes, `VOID` where a pixel has none.
    """
    num_videos, num_frames = images.shape[:2]
    images, labels = (array.reshape(-1, *array.shape[2:]) for array in (images, labels))
    frames = ArrayFrames(
        images,
        labels,
        sequences=np.repeat(np.arange(num_videos), num_frames),
        times=np.tile(np.arange(num_frames), num_videos),
    )
    return SegmentationDataset(frames, np.arange(len(images)), (images, labels))
