import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from spatial_smoothing.data import streams

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3)).astype(np.uint8)
SQUARE = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)


def save(folder, names, images=SQUARE):
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images, strict=False):
        PIL.Image.fromarray(image).save(folder / name)
    return folder


def test_files_are_frames_in_the_order_of_their_numbers(tmp_path):
    names = ["Frame2.png", "frame10.png", "frame9.png", "frame1.png"]
    folder = save(tmp_path / "video", names)
    (folder / ".DS_Store").write_text("hidden")
    (folder / "more").mkdir()
    frames = streams.read_frames(folder, size=8)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, SQUARE[[3, 0, 2, 1]])


def test_numbers_anywhere_in_a_name_count(tmp_path):
    names = ["2_b10.png", "10_a1.png", "2_b9.png", "02_b9.png"]
    frames = streams.read_frames(save(tmp_path / "video", names), size=8)
    np.testing.assert_array_equal(frames, SQUARE[[3, 2, 0, 1]])


def test_files_are_cropped_and_resized(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    frames = streams.read_frames(save(tmp_path / "video", ["a.png"], [wide]), size=4)
    assert frames.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(frames[0, :, 1:3], 200, atol=3)  # none of the black


def test_a_stack_is_read_from_disk_as_it_is(tmp_path):
    np.save(tmp_path / "video.npy", SQUARE)
    frames = streams.read_frames(str(tmp_path / "video.npy"), size=8)
    assert isinstance(frames, np.memmap)
    np.testing.assert_array_equal(frames, SQUARE)


def test_an_image_becomes_a_moving_crop(tmp_path):
    save(tmp_path, ["photo.png"])
    frames = streams.read_frames(tmp_path / "photo.png", size=8)
    expected = streams.moving_crop(jnp.asarray(SQUARE[:1]))[:, 0]
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_array_equal(frames[-1], SQUARE[0])


def test_unusable_folders_are_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no frames in .*empty: the folder holds no"):
        streams.read_frames(tmp_path / "empty", size=8)
    with pytest.raises(ValueError, match=r"no frames in .*none: give a folder"):
        streams.read_frames(tmp_path / "none", size=8)
    folder = save(tmp_path / "video", ["frame1.png", "frame2.png"])
    (folder / "frame3.png").write_text("no image")
    with pytest.raises(ValueError, match=r"frame3\.png is not an image file"):
        streams.read_frames(folder, size=8)
    (folder / "frame3.png").unlink()
    whole = (folder / "frame2.png").read_bytes()
    (folder / "frame2.png").write_bytes(whole[:-60])
    with pytest.raises(ValueError, match=r"cannot read .*frame2\.png: .*truncated"):
        streams.read_frames(folder, size=8)


def test_what_is_no_image_is_skipped_and_counted(tmp_path, caplog):
    folder = save(tmp_path / "video", ["frame1.png", "frame2.png"])
    (folder / "frame2.png").rename(folder / "frame2")  # told by its content
    for name in (".DS_Store", "._frame1.png", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    np.testing.assert_array_equal(streams.read_frames(folder, size=8), SQUARE[:2])
    assert not caplog.records
    (folder / "notes.txt").write_text("no image")
    (folder / "video.mp4").write_bytes(b"no image")
    save(folder / "more", ["frame3.png"])
    np.testing.assert_array_equal(streams.read_frames(folder, size=8), SQUARE[:2])
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{folder}: 3 of 5 files or folders are no images and are skipped: more, "
        "notes.txt, video.mp4"
    )
    only = tmp_path / "only"
    only.mkdir()
    (only / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"no images, but 1 other files .*: notes"):
        streams.read_frames(only, size=8)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (SQUARE / 255, r"must hold uint8 in 0 to 255, got float64"),
        (SQUARE[0], r"must be \[T, 8, 8, 3\] .*, got \[8, 8, 3\]"),
        (SQUARE[:, :6], r"got \[4, 6, 8, 3\]; a folder of images is cropped"),
        (SQUARE[:0], r"at least one frame, got \[0, 8, 8, 3\]"),
        (np.array([SQUARE, None], object), r"cannot read .*save uint8 frames with"),
    ],
)
def test_unusable_stacks_are_refused(stack, message, tmp_path):
    np.save(tmp_path / "video.npy", stack, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        streams.read_frames(tmp_path / "video.npy", size=8)


def test_damaged_stacks_are_refused(tmp_path):
    path = tmp_path / "video.npy"
    with pytest.raises(ValueError, match=r"no file .*video\.npy"):
        streams.read_frames(path, size=8)
    np.save(path, SQUARE)
    whole = path.read_bytes()
    for content in (whole[:-10], whole[:20], b"", b"no stack"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read .*video\.npy: ") as caught:
            streams.read_frames(path, size=8)
        assert "\n" not in str(caught.value)
    with path.open("wb") as file:
        np.savez(file, SQUARE)
    with pytest.raises(ValueError, match="it is an archive of arrays"):
        streams.read_frames(path, size=8)


@pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_crops_move_to_the_image_itself(mode):
    frames = mode(streams.moving_crop)(jnp.asarray(IMAGES))
    padded = np.pad(IMAGES, ((0, 0), (0, 4), (0, 4), (0, 0)), mode="reflect")
    expected = [padded[:, at : at + 9, at : at + 7] for at in (4, 3, 2, 2, 1, 0)]
    np.testing.assert_array_equal(frames, expected)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[-1], IMAGES)


@pytest.mark.parametrize(
    ("num_frames", "padding", "offsets"),
    [(1, 4, [0]), (5, 4, [4, 3, 2, 1, 0]), (3, 6, [6, 3, 0]), (3, 0, [0, 0, 0])],
)
def test_paths_are_straight_and_even(num_frames, padding, offsets):
    """Of an image whose values tell their column."""
    columns = np.arange(16, dtype=np.uint8)
    image = np.broadcast_to(columns[None, None, :, None], (1, 16, 16, 3))
    for turned in (image, image.swapaxes(1, 2)):
        frames = streams.moving_crop(turned, num_frames=num_frames, padding=padding)
        assert frames.shape == (num_frames, 1, 16, 16, 3)
        np.testing.assert_array_equal(frames[:, 0, 0, 0, 0], offsets)


def test_an_image_moves_alone_as_in_company():
    whole = streams.moving_crop(IMAGES)
    np.testing.assert_array_equal(streams.moving_crop(IMAGES[1:2]), whole[:, 1:2])


def test_paths_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        streams.moving_crop(IMAGES, num_frames=0)
    for padding in (-1, 7):
        with pytest.raises(ValueError, match=f"of 9x7 images, got {padding}"):
            streams.moving_crop(IMAGES, padding=padding)
