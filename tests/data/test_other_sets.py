"""Data sets that a network was not trained on."""

import jpeg_images
import numpy as np
import PIL.Image
import pytest
from prepared_sets import write

from spatial_smoothing.data import image_sets, other_sets, sources
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.data.images import lists
from spatial_smoothing.runs import recipes

RNG = np.random.default_rng(0)
SMALL = sources.SOURCES["shapes"]  # images of 32 pixels, in memory
LARGE = sources.SOURCES["imagenet"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))


def picture(width, height):
    return PIL.Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


def resized(image, *, resize, size):
    """What torchvision makes: the shorter side, then the centre."""
    scale = resize / min(image.size)
    sizes = [int(side * scale) for side in image.size]
    image = image.resize(sizes, PIL.Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.fixture
def openood(tmp_path):
    """OpenOOD's folders: a list, and the images that it names beside it."""
    texture = tmp_path / "images_classic/texture/a b"
    texture.mkdir(parents=True)
    pictures = [picture(50, 40), picture(32, 64), picture(40, 40)]
    for number, each in enumerate(pictures):
        each.save(texture / f"{number}.png")
    path = tmp_path / "benchmark_imglist/cifar10/test_texture.txt"
    path.parent.mkdir(parents=True)
    lines = [f"texture/a b/{number}.png -1" for number in (2, 0, 1)]
    path.write_text("\n".join(lines) + "\n")
    return path, [pictures[number] for number in (2, 0, 1)]


def all_images(dataset):
    return np.concatenate([b["image"][b["mask"]] for b in dataset.batches(2)])


@pytest.mark.parametrize(("own", "resize"), [(SMALL, 32), (LARGE, 256)])
def test_lists_of_openood(openood, own, resize):
    path, pictures = openood
    loaded = other_sets.load_other(f"list:{path}", "test", own=own)
    size = own.image_size
    expected = [resized(each, resize=resize, size=size) for each in pictures]
    np.testing.assert_array_equal(all_images(loaded), expected)
    np.testing.assert_array_equal(loaded.labels, [0, 0, 0])
    part = other_sets.load_other(f"list:{path}[1:]", "test[:2]", own=own)
    np.testing.assert_array_equal(all_images(part), expected[1:2])


def test_the_folder_of_a_list_can_be_given(openood, tmp_path):
    path, _ = openood
    moved = tmp_path / "elsewhere/list.txt"
    moved.parent.mkdir()
    path.rename(moved)
    (tmp_path / "images_classic").rename(tmp_path / "images")
    with pytest.raises(ValueError, match=r"texture/a b/2.png, is not in .*@FOLDER"):
        other_sets.load_other(f"list:{moved}", "test", own=SMALL)
    name = f"list:{moved}@{tmp_path}/images"
    assert other_sets.load_other(name, "test", own=SMALL).num_examples == 3


def test_links_to_a_folder_above_have_no_end_and_are_passed_over(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        picture(8, 8).save(folder / "0.png")
    for name in ("loop", "again", "more"):
        (tmp_path / "a" / "b" / name).symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "a" / "b")  # a second way, which ends
    found = lists.images_below(tmp_path)
    names = [name for _, name in found.files]
    assert [n for n in names if n.startswith("a/")] == ["a/0.png", "a/b/0.png"]
    assert "c/0.png" in names


def test_images_at_any_depth_and_splits_of_folders(tmp_path):
    for name in ("x/deep/1.png", "0.png", "x/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8).save(tmp_path / name)
    load = lambda split: other_sets.load_other(f"folder:{tmp_path}", split, own=SMALL)
    assert [name for _, name in load("test").records.files] == ["0.png", "x/deep/1.png"]
    (tmp_path / "val/cat").mkdir(parents=True)
    picture(8, 8).save(tmp_path / "val/cat/2.png")
    assert [name for _, name in load("test").records.files] == ["cat/2.png"]


def test_sets_in_memory_are_resized_for_a_network_of_another_size():
    original = sources.load("shapes", "test")
    same = other_sets.load_other("shapes[:3]", "test", own=SMALL)
    assert isinstance(same, Dataset)
    np.testing.assert_array_equal(same.images, original.images[:3])
    np.testing.assert_array_equal(same.labels, 0)
    large = other_sets.load_other("shapes[:3]", "test", own=LARGE)
    expected = [
        resized(PIL.Image.fromarray(image), resize=256, size=224)
        for image in original.images[:3]
    ]
    np.testing.assert_array_equal(all_images(large), expected)


def test_sets_of_tfds_need_no_prefix_and_no_labels(tmp_path):
    written = write(
        tmp_path, title="signs", count=6, size=32, splits=("validation",), label=3
    )
    for name in ("signs", "tfds:signs"):
        loaded = other_sets.load_other(name, "test", own=SMALL, data_dir=tmp_path)
        np.testing.assert_array_equal(all_images(loaded), written.images["validation"])
        np.testing.assert_array_equal(loaded.labels, 0)
    with pytest.raises(ValueError, match="no sings of TFDS"):
        other_sets.load_other("sings", "test", own=SMALL, data_dir=tmp_path)


def test_labels_of_imagenet_are_not_those_of_the_network(tmp_path):
    jpeg_images.prepare_imagenet(tmp_path, count=3, labels=(7, 999))
    loaded = other_sets.load_other("imagenet", "test", own=SMALL, data_dir=tmp_path)
    np.testing.assert_array_equal(loaded.labels, 0)
    assert next(loaded.batches(4))["image"].shape == (4, 32, 32, 3)


def test_the_loader_of_a_config_tells_its_own_set_from_others():
    load = recipes.loader({"dataset": "shapes"})
    original = sources.load("shapes", "test")
    np.testing.assert_array_equal(load("shapes[:9]").labels, original.labels[:9])
    np.testing.assert_array_equal(
        load("shapes", "test[-9:]").labels, original.labels[-9:]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no images"),
        ("\n \n", "lists no images"),
        ("nowhere.png 3\n", "the first image of .*nowhere.png, is not in"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_unusable_lists(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        other_sets.load_other(f"list:{path}", "test", own=SMALL)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("list:nowhere.txt", "no list of images .*nowhere.txt"),
        ("folder:nowhere", "no folder .*nowhere"),
        ("folder:", "folder: has no path"),
        ("shapes[:0]", "empty"),
        ("gif:x", "unknown kind of data set 'gif:'"),
    ],
)
def test_sets_that_are_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        other_sets.load_other(name, "test", own=SMALL)


def test_names_of_one_set(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    same = [
        ("cifar10", "cifar10[:500]"),
        ("cifar10", "tfds:cifar10"),
        ("svhn_cropped", "tfds:svhn_cropped#label"),
        ("imagenet", "tfds:imagenet2012"),
        (f"folder:{tmp_path}", f"folder:{tmp_path}/link"),
        (f"list:{tmp_path}/a.txt", f"list:{tmp_path}/link/a.txt[:3]"),
    ]
    assert all(other_sets.is_same(*names) for names in same)
    assert not other_sets.is_same("cifar10", "cifar100")
    assert not other_sets.is_same("folder:a", "list:a")


def test_decoded_records_keep_their_labels():
    images = RNG.integers(0, 256, (2, 4, 4), np.uint8)
    records = image_sets.ArrayRecords(images, np.array([5, 6]), "x")
    assert records.read(1)[1] == 6
    assert image_sets.UnlabelledRecords(records).read(1)[1] == 0
