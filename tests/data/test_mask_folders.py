import functools
import itertools

import numpy as np
import PIL.Image
import pytest

from spatial_smoothing.data import sources
from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.segmentation import camvid, mask_files

RNG = np.random.default_rng(0)
H, W = 8, 12


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(folder))


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def picture(height=H, width=W):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def message(function, *args, **options):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the caller looks
        function(*args, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


# CamVid's colours, written out by hand: name of the table -> (class, colour).
COLOURS = {
    "Sky": (0, (128, 128, 128)),
    "Bridge": (1, (0, 128, 64)),
    "Wall": (1, (64, 192, 0)),
    "TrafficCone": (2, (0, 0, 64)),
    "LaneMkgsDriv": (3, (128, 0, 192)),
    "RoadShoulder": (4, (128, 128, 192)),
    "VegetationMisc": (5, (192, 192, 0)),
    "TrafficLight": (6, (0, 64, 64)),
    "Fence": (7, (64, 64, 128)),
    "OtherMoving": (8, (128, 64, 64)),
    "Animal": (9, (64, 128, 64)),
    "MotorcycleScooter": (10, (192, 0, 192)),
    "Void": (VOID, (0, 0, 0)),
    "unlisted": (VOID, (1, 2, 3)),
}


def colour_masks(height, width):
    """Returns random colours of the table, and their classes."""
    labels, colours = (
        np.array(column) for column in zip(*COLOURS.values(), strict=True)
    )
    chosen = RNG.integers(0, len(COLOURS), (height, width))
    return colours[chosen].astype(np.uint8), labels[chosen]


def test_camvid_in_colour_at_half_size(tmp_path):
    names = {"train": ["0001TP_006690", "0016E5_00390"], "val": ["0016E5_07959"]}
    names["test"] = ["0001TP_008550", "Seq05VD_f00000"]
    images, labels = {}, {}
    for name in itertools.chain(*names.values()):
        images[name], (colours, labels[name]) = picture(16, 24), colour_masks(16, 24)
        save(tmp_path / "701_StillsRaw_full" / f"{name}.png", images[name])
        save(tmp_path / "LabeledApproved_full" / f"{name}_L.png", colours)
    for split, expected in names.items():
        data = sources.load("camvid", split, data_dir=tmp_path, image_size=(8, 12))
        assert data.in_memory
        assert data.num_examples == len(expected)
        for position, name in enumerate(expected):
            # Nearest: of two rows, the second one.
            np.testing.assert_array_equal(
                data.labels[position], labels[name][1::2, 1::2]
            )
            near = images[name].reshape(8, 2, 12, 2, 3).mean((1, 3))
            assert np.abs(data.images[position] - near).mean() < 20
    # Lists choose other splits, by names or paths.
    (tmp_path / "train.txt").write_text(
        "0016E5_07959.png\n/SegNet/train/0001TP_006690.png /SegNet/x.png\n"
    )
    data = sources.load("camvid", "train", data_dir=tmp_path, image_size=16)
    assert data.image_shape == (16, 21, 3)
    assert data.num_examples == 2
    (tmp_path / "val.txt").write_text("nobody.png\n")
    text = message(sources.load, "camvid", "val", data_dir=tmp_path)
    assert "val.txt lists 1 images that are not there: nobody" in text


def test_camvid_in_class_numbers(tmp_path):
    labels = {}
    for split in ("train", "val", "test"):
        labels[split] = RNG.integers(0, 12, (H, W)).astype(np.uint8)
        save(tmp_path / split / "0001TP_000001.png", picture())
        save(tmp_path / f"{split}annot" / "0001TP_000001.png", labels[split])
    for split, label in labels.items():
        data = sources.load("camvid", split, data_dir=tmp_path, image_size=(H, W))
        np.testing.assert_array_equal(
            data.labels[0], np.where(label == 11, VOID, label)
        )
        batch = next(data.batches(1))
        np.testing.assert_array_equal(batch["mask"][0], label != 11)
    again = sources.load("camvid", "val", data_dir=tmp_path, image_size=(H, W))
    np.testing.assert_array_equal(again.labels[0] == VOID, labels["val"] == 11)
    labels["val"][3, 4] = 12
    save(tmp_path / "valannot" / "0001TP_000001.png", labels["val"])
    text = message(sources.load, "camvid", "val", data_dir=tmp_path, image_size=(H, W))
    assert "number 12 at row 3, column 4" in text


def test_camvid_windows_take_frames_of_the_video(tmp_path):
    for number in (5, 40):
        save(tmp_path / "test" / f"Seq05VD_f{number:05}.png", picture())
        mask = np.zeros((H, W), np.uint8)
        save(tmp_path / "testannot" / f"Seq05VD_f{number:05}.png", mask)
    for number in (3, 4, 9, 38, 39, 41):
        frame = np.full((H, W, 3), number, np.uint8)
        save(tmp_path / "frames" / f"Seq05VD_f{number:05}.png", frame)
    data = sources.load("camvid", "test", data_dir=tmp_path, image_size=(H, W))
    assert data.num_examples == 2
    (batch,) = data.windows(2, past=5)
    np.testing.assert_array_equal(
        batch["frame_mask"], [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    )
    np.testing.assert_array_equal(batch["image"][:, 3:5, 0, 0, 0], [[3, 4], [38, 39]])
    # Frames that are more than a second before a label are not read.
    assert len(data.frames.images) == 6


def test_camvid_errors_are_a_line(tmp_path):
    assert "pass --config.data_dir" in message(sources.load, "camvid", "train")
    text = message(sources.load, "camvid", "train", data_dir=tmp_path / "nothing")
    assert "no folder" in text
    text = message(sources.load, "camvid", "train", data_dir=tmp_path)
    assert "no train split of CamVid (nothing)" in text
    for number in (1, 2):
        save(tmp_path / "train" / f"0001TP_{number}.png", picture())
    save(tmp_path / "trainannot" / "0001TP_1.png", np.zeros((H, W), np.uint8))
    text = message(sources.load, "camvid", "train", data_dir=tmp_path)
    assert "lacks 1 masks: 0001TP_2" in text
    save(tmp_path / "trainannot" / "0001TP_2.png", np.zeros((H, W + 1), np.uint8))
    text = message(sources.load, "camvid", "train", data_dir=tmp_path)
    assert "8x13 pixels, and its image 0001TP_2.png has 8x12" in text


def test_names_of_camvid_that_stand_for_one_frame_are_refused(tmp_path):
    names = ("0001TP_006690", "0001TP_f6690")
    for name in names:
        save(tmp_path / "train" / f"{name}.png", picture())
        save(tmp_path / "trainannot" / f"{name}.png", np.zeros((H, W), np.uint8))
    load = functools.partial(sources.load, "camvid", "train", data_dir=tmp_path)
    text = message(load, image_size=(H, W))
    assert "0001TP_006690.png and 0001TP_f6690.png are both frame 6690 of" in text
    # Among the frames without labels, too; beside a labelled one, that one counts.
    (tmp_path / "train" / f"{names[1]}.png").unlink()
    (tmp_path / "trainannot" / f"{names[1]}.png").unlink()
    save(tmp_path / "frames" / f"{names[1]}.png", picture())
    save(tmp_path / "frames" / "0001TP_6689.png", picture())
    assert len(load(image_size=(H, W)).frames.images) == 2
    save(tmp_path / "frames" / "0001TP_06689.png", picture())
    assert "are both frame 6689 of 0001TP" in message(load, image_size=(H, W))
    save(tmp_path / "train" / f"{names[0]}.bmp", picture())
    text = message(load, image_size=(H, W))
    assert "has 0001TP_006690.bmp and 0001TP_006690.png, of which only one" in text


def test_lists_of_camvid_may_be_empty_or_begin_with_a_mark(tmp_path):
    save(tmp_path / "701_StillsRaw_full" / "0001TP_006690.png", picture())
    mask = np.zeros((H, W, 3), np.uint8)
    save(tmp_path / "LabeledApproved_full" / "0001TP_006690_L.png", mask)
    load = functools.partial(sources.load, "camvid", "train", data_dir=tmp_path)
    assert load(image_size=(H, W)).num_examples == 1
    # As an editor of Windows saves it.
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf0001TP_006690\r\n")
    assert load(image_size=(H, W)).num_examples == 1
    (tmp_path / "train.txt").write_bytes(b"caf\xe9\n")
    assert "train.txt is not UTF-8" in message(load, image_size=(H, W))
    (tmp_path / "train.txt").write_text("\n")
    assert "has no image of the train split" in message(load, image_size=(H, W))


def test_camvid_has_the_classes_of_the_reference():
    assert len(camvid.CLASS_NAMES) == sources.source("camvid").num_classes == 11
    colours = np.array([colour for _, colour in COLOURS.values()], np.uint8)[None]
    found = camvid.CODES.classes(colours, None)
    assert found[0].tolist() == [label for label, _ in COLOURS.values()]
    assert sum(map(len, camvid.CLASSES.values())) == 31


@pytest.fixture
def folder(tmp_path):
    """Images and masks of two classes and void, of which class 1 is rarer."""
    (tmp_path / "classes.txt").write_text(
        "grey road 10 20 30\nvoid 0 0 0\n\nblue sky 1 2 3\n"
    )
    for split in ("train", "val"):
        for name in ("a2", "a10"):
            save(tmp_path / split / "images" / f"{name}.jpg", picture())
            mask = RNG.choice([0, 1, 2, 255], (H, W)).astype(np.uint8)
            save(tmp_path / split / "masks" / f"{name}.png", mask)
        for number in range(4):
            image = np.full((H, W, 3), number, np.uint8)
            save(tmp_path / split / "images" / "drive" / f"{number + 8}.png", image)
        colours = np.array([(10, 20, 30), (0, 0, 0), (1, 2, 3)], np.uint8)
        mask = colours[np.arange(H * W).reshape(H, W) % 3]
        save(tmp_path / split / "masks" / "drive" / "11.png", mask)
    return tmp_path


def test_folders_of_masks(folder):
    name = f"masks:{folder}"
    source = sources.source(name)
    assert source.class_names == ("grey road", "blue sky")
    assert source.palette == ((10, 20, 30), (1, 2, 3))
    assert source.image_size == (H, W)
    assert source.in_memory
    data = sources.load(name, "test")
    assert data.num_examples == 3
    for position, file in ((0, "a2.png"), (1, "a10.png")):
        mask = np.asarray(PIL.Image.open(folder / "val" / "masks" / file))
        expected = np.select([mask == 0, mask == 2], [0, 1], VOID)
        np.testing.assert_array_equal(data.labels[position], expected)
    expected = np.array([0, VOID, 1])[np.arange(H * W).reshape(H, W) % 3]
    np.testing.assert_array_equal(data.labels[2], expected)
    # The frames of a video are in the order of their numbers.
    (batch,) = data.windows(3, past=5)
    np.testing.assert_array_equal(batch["frame_mask"].sum(1), [1, 1, 4])
    np.testing.assert_array_equal(batch["image"][2, 2:, 0, 0, 0], [0, 1, 2, 3])


def test_folders_of_masks_are_known_without_their_data(folder):
    name = f"masks:{folder}"
    source = sources.source(name, image_size=4)
    assert source.image_size == (4, 6)
    facts = source.facts()
    (folder / "classes.txt").unlink()
    assert sources.source(name, **facts) == source


def test_folders_of_masks_may_not_fit_in_memory(folder, monkeypatch):
    name = f"masks:{folder}"
    in_memory = list(sources.load(name, "train").batches(2))
    monkeypatch.setattr(mask_files, "MAX_BYTES_IN_MEMORY", 100)
    assert not sources.source(name).in_memory
    read = list(sources.load(name, "train").batches(2))
    for one, other in zip(in_memory, read, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_errors_of_folders_of_masks_are_a_line(folder):
    name = f"masks:{folder}"
    masks = folder / "train" / "masks"
    assert "no folder" in message(sources.source, f"masks:{folder / 'nothing'}")
    assert "no path" in message(sources.source, "masks:")
    save(masks / "a10.png", np.full((H, W), 3, np.uint8))
    assert "number 3 at row 0, column 0" in message(sources.load, name, "train")
    save(masks / "a10.png", np.full((H, W, 3), 7, np.uint8))
    assert "colour (7, 7, 7) at row 0" in message(sources.load, name, "train")
    save(masks / "a10.png", np.zeros((H + 1, W), np.uint8))
    assert "9x12 pixels, and its image a10.jpg has 8x12" in message(
        sources.load, name, "train"
    )
    (masks / "a10.png").write_bytes(b"no image")
    assert "a10.png: it is no image, or" in message(sources.load, name, "train")
    image = folder / "train" / "images" / "a10.jpg"
    for mode, size in (("I;16", None), ("L", 99)):  # the second one is cut short
        grey = PIL.Image.fromarray(RNG.integers(0, 99, (H, W), np.uint8))
        grey.convert(mode).save(image, "png")
        image.write_bytes(image.read_bytes()[:size])
        assert f"cannot read {image}: " in message(sources.load, name, "train")
    (masks / "a10.png").unlink()
    assert "1 images in" in message(sources.load, name, "train")
    save(masks / "lost.png", np.zeros((H, W), np.uint8))
    assert "have no image: /lost" in message(sources.load, name, "train")
    (folder / "classes.txt").write_text("one\none\n")
    assert "the class 'one' twice" in message(sources.source, name)
    (folder / "classes.txt").write_text("one 1 2 300\ntwo\n")
    assert "above 255" in message(sources.source, name)
    (folder / "classes.txt").write_text("one\n" + 300 * "void\n" + "two\n")
    assert "302 lines; masks hold numbers below 255" in message(sources.source, name)
    (folder / "classes.txt").write_bytes("straße\nauto\n".encode("latin-1"))
    assert "classes.txt is not UTF-8" in message(sources.source, name)
    save(folder / "train" / "images" / "a2.png", picture())
    (folder / "classes.txt").write_text("one\ntwo\n")
    assert "has a2.jpg and a2.png" in message(sources.source, name)


def test_a_mark_of_the_byte_order_is_no_part_of_a_name(folder):
    text = (folder / "classes.txt").read_text()
    lines = ["void 0 0 0", *(line for line in text.splitlines() if "void" not in line)]
    (folder / "classes.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    assert sources.source(f"masks:{folder}").class_names == ("grey road", "blue sky")


def test_cityscapes_as_tfds_prepares_it(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    numbers = RNG.integers(0, 34, (2, 16, 32)).astype(np.uint8)
    images = RNG.integers(0, 256, (2, 16, 32, 3), np.uint8)

    class SemanticSegmentation(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "cityscapes"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="semantic_segmentation"),)

        def _info(self):
            features = {
                "image_id": tfds.features.Text(),
                "image_left": tfds.features.Image(shape=(16, 32, 3)),
                "segmentation_label": tfds.features.Image(shape=(16, 32, 1)),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            splits = ("train", "validation", "test")
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            for i in range(2):
                yield (
                    i,
                    {
                        "image_id": f"aachen_{i}",
                        "image_left": PIL.Image.fromarray(images[i]),
                        "segmentation_label": PIL.Image.fromarray(numbers[i]),
                    },
                )

    builder = SemanticSegmentation(data_dir=tmp_path)
    builder.download_and_prepare(file_format="array_record")
    data = sources.load("cityscapes", "test", data_dir=tmp_path, image_size=(8, 16))
    assert not data.in_memory
    (batch,) = data.batches(2)
    # The published pairs of label id and train id.
    ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    expected = {
        tuple(
            np.where(np.isin(n, ids), np.searchsorted(ids, n), -1)[1::2, 1::2].ravel()
        )
        for n in numbers
    }
    found = np.where(batch["mask"], batch["label"], -1).reshape(2, -1)
    assert set(map(tuple, found)) == expected
    assert sources.source("cityscapes").num_classes == len(ids)
    text = message(sources.load, "cityscapes", "train", data_dir=tmp_path / "none")
    assert "does not exist" in text
