import dataclasses

import numpy as np
import pytest

from spatial_smoothing.data import batches, datasets, sources
from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.segmentation import moving_shapes, sets
from spatial_smoothing.data.segmentation.sets import SegmentationDataset

H, W = 3, 5
# Videos of 3, 1 and 4 frames; the last one lacks the frame after its second.
SEQUENCES = np.array([0, 0, 0, 1, 2, 2, 2, 2])
TIMES = np.array([0, 1, 2, 0, 0, 1, 3, 4])
LABELLED = np.array([0, 1, 1, 1, 1, 0, 0, 1], bool)


@dataclasses.dataclass(frozen=True)
class NumberedFrames:
    """Frames whose pixels are their number, as if they were decoded when needed."""

    image_shape = (H, W, 3)
    sequences, times, labelled = SEQUENCES, TIMES, LABELLED

    def image(self, number):
        return np.full((H, W, 3), number, np.uint8)

    def label(self, number):
        assert LABELLED[number]
        label = np.full((H, W), number, np.uint8)
        label[0, 0] = VOID
        return label


def numbered(*, in_memory):
    frames, rows = NumberedFrames(), np.flatnonzero(LABELLED)
    decoded = None
    if in_memory:
        decoded = (
            np.stack([frames.image(number) for number in rows]),
            np.stack([frames.label(number) for number in rows]),
        )
    return SegmentationDataset(frames, rows, decoded)


both = pytest.mark.parametrize("in_memory", [True, False])


@both
def test_batches_have_all_examples_and_mask_void_and_padding(in_memory):
    found = list(numbered(in_memory=in_memory).batches(3))
    assert len(found) == 2
    for batch in found:
        assert batch["image"].shape == (3, H, W, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].shape == batch["mask"].shape == (3, H, W)
        assert batch["label"].dtype == np.int32
        assert batch["mask"].dtype == bool
        assert not batch["mask"][:, 0, 0].any()
        assert (batch["label"][~batch["mask"]] == 0).all()
    labels = np.concatenate([batch["label"][:, 1, 1] for batch in found])
    np.testing.assert_array_equal(labels, [1, 2, 3, 4, 7, 0])
    masks = np.concatenate([batch["mask"][:, 1, 1] for batch in found])
    np.testing.assert_array_equal(masks, [1, 1, 1, 1, 1, 0])
    some = next(numbered(in_memory=in_memory).batches(3, rows=[2]))
    np.testing.assert_array_equal(some["label"][:, 1, 1], [3])


@both
def test_training_batches_are_a_function_of_seed_and_step(in_memory):
    data = numbered(in_memory=in_memory)
    every = [b["label"][:, 1, 1] for b in data.training_batches(2, seed=1, stop=6)]
    for epoch in (every[:3], every[3:]):
        assert sorted(np.concatenate(epoch)) == [0, 1, 2, 3, 4, 7]
    assert not np.array_equal(every[:3], every[3:])
    later = next(data.training_batches(2, seed=1, start=4, stop=6))
    np.testing.assert_array_equal(later["label"][:, 1, 1], every[4])


@both
def test_windows_stay_in_their_video_and_have_no_gaps(in_memory):
    (batch,) = numbered(in_memory=in_memory).windows(6, past=2)
    there = batch["frame_mask"]
    numbers = np.where(there, batch["image"][:, :, 1, 1, 0].astype(int), -1)
    expected = [
        *([-1, 0, 1], [0, 1, 2], [-1, -1, 3]),
        *([-1, -1, 4], [-1, 6, 7], [-1, -1, -1]),
    ]
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(batch["label"][:, 1, 1], [1, 2, 3, 4, 7, 0])
    assert not batch["mask"][:, 0, 0].any()
    assert not batch["mask"][5].any()
    (alone,) = numbered(in_memory=in_memory).windows(6, past=0)
    assert alone["image"].shape == (6, 1, H, W, 3)


@both
def test_streams_show_every_frame_up_to_the_last_example(in_memory):
    data = numbered(in_memory=in_memory)
    found = list(data.streams(2))
    columns = {name: np.stack([b[name] for b in found], 1) for name in found[0]}
    there = columns["frame_mask"]
    numbers = np.where(there, columns["image"][:, :, 1, 1, 0].astype(int), -1)
    np.testing.assert_array_equal(numbers, [[0, 1, 2, -1, -1], [3, 4, 5, 6, 7]])
    np.testing.assert_array_equal(columns["start"], [[1, 0, 0, 0, 0], [1, 1, 0, 1, 0]])
    np.testing.assert_array_equal(
        columns["example"], [[-1, 0, 1, -1, -1], [2, 3, -1, -1, 4]]
    )
    np.testing.assert_array_equal(columns["mask"][:, :, 1, 1], columns["example"] >= 0)
    # A subset shows the videos of its examples only, and no label of another example.
    some = list(data.subset(np.array([1, 2])).streams(1))
    assert [int(b["example"][0]) for b in some] == [-1, -1, 0, 1]


def test_videos_are_told_apart():
    images = np.zeros((2, 3, H, W, 3), np.uint8)
    data = sets.videos(images, np.zeros((2, 3, H, W), np.uint8))
    (batch,) = data.windows(6, past=5)
    np.testing.assert_array_equal(batch["frame_mask"].sum(1), [1, 2, 3, 1, 2, 3])
    data = sets.single_images(images[0], np.zeros((3, H, W), np.uint8))
    (batch,) = data.windows(3, past=5)
    np.testing.assert_array_equal(batch["frame_mask"].sum(1), [1, 1, 1])


def test_whole_videos_are_held_out():
    images = np.arange(30, dtype=np.uint8).repeat(H * W * 3)
    images = images.reshape(10, 3, H, W, 3)
    data = sets.videos(images, np.zeros((10, 3, H, W), np.uint8))
    kept, held = datasets.hold_out(data, fraction=0.15)
    assert (kept.num_examples, held.num_examples) == (24, 6)
    of = lambda part: {int(image[0, 0, 0]) // 3 for image in part.images}
    assert not of(kept) & of(held)
    few = sets.videos(images[:1], np.zeros((1, 3, H, W), np.uint8))
    with pytest.raises(ValueError, match="too few"):
        datasets.hold_out(few, fraction=0.3)
    assert datasets.hold_out(few, fraction=0)[1].num_examples == 0


def test_mask_of_images_keeps_images_with_void_pixels():
    mask = np.ones((3, H, W), bool)
    mask[0, 0], mask[2] = False, False
    np.testing.assert_array_equal(batches.image_mask(mask), [True, True, False])
    np.testing.assert_array_equal(batches.image_mask(mask[:, 1, 1]), mask[:, 1, 1])


def test_moving_shapes_is_deterministic_in_the_seed():
    images, labels = moving_shapes.generate("train", num_videos=2)
    more = moving_shapes.generate("train", num_videos=3)
    np.testing.assert_array_equal(more[0][:2], images)
    np.testing.assert_array_equal(more[1][:2], labels)
    for other in (
        moving_shapes.generate("test", num_videos=2),
        moving_shapes.generate("train", seed=1, num_videos=2),
    ):
        assert (other[0] != images).mean() > 0.9
    assert images.shape == (2, 12, 48, 64, 3)
    assert labels.shape == images.shape[:-1]
    assert labels.dtype == images.dtype == np.uint8


@pytest.fixture(scope="module")
def some_videos():
    return moving_shapes.generate("train", num_videos=30)


def test_moving_shapes_has_what_it_says(some_videos):
    images, labels = some_videos
    share = np.bincount(labels.ravel(), minlength=6) / labels.size
    assert len(share) == moving_shapes.NUM_CLASSES == len(moving_shapes.CLASS_NAMES)
    assert (share > 0.02).all()
    assert 0.5 < share[0] < 0.85
    # Figures move: some labels change from frame to frame, and most do not.
    changed = (labels[:, 1:] != labels[:, :-1]).mean()
    assert 0.02 < changed < 0.2
    scaled = images / 255
    np.testing.assert_allclose(scaled.mean((0, 1, 2, 3)), moving_shapes.MEAN, atol=0.05)
    np.testing.assert_allclose(scaled.std((0, 1, 2, 3)), moving_shapes.STD, atol=0.03)


def test_moving_shapes_masks_are_where_the_figures_are(some_videos):
    """A disc is uniform inside of its mask in frames without much noise."""
    images, labels = some_videos
    inside, outside = [], []
    for image, label in zip(
        images.reshape(-1, 48, 64, 3), labels.reshape(-1, 48, 64), strict=True
    ):
        disc = label == 1
        rim = np.zeros_like(disc)
        rim[1:-1, 1:-1] = disc[2:, 1:-1] | disc[:-2, 1:-1]
        rim &= label == 0
        if disc.sum() > 200 and rim.sum() > 5:
            colour = image[disc].mean(0)
            inside.append(np.abs(np.median(image[disc], 0) - colour).mean())
            outside.append(np.abs(np.median(image[rim], 0) - colour).mean())
    assert len(inside) > 50
    assert np.mean(outside) > 4 * np.mean(inside)


def test_source_of_moving_shapes():
    source = sources.source("moving_shapes")
    assert source.task == "segmentation"
    assert source.image_shape == (48, 64, 3)
    assert source.label_shape == (48, 64)
    assert np.shape(source.palette) == (source.num_classes, 3)
    assert source.facts() == {}
    assert sources.source("cifar10").label_shape == ()
    assert sources.source("cifar10").image_shape == (32, 32, 3)
