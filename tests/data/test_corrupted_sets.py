import jax
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from etils import epath

from spatial_smoothing.data import datasets, shapes, sources
from spatial_smoothing.data.class_names import class_names
from spatial_smoothing.data.corruption import corrupted_sets, transforms, writer
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.data.tfds import prepared, read_imagenet

CLEAN = Dataset(*shapes.generate("test", size=10))
SHAPES, CIFAR10 = (sources.source(name) for name in ("shapes", "cifar10"))


def images(dataset, batch_size=4):
    """All examples, without padding."""
    found = list(dataset.batches(batch_size))
    assert {len(batch["image"]) for batch in found} == {batch_size}
    return [
        np.concatenate([np.asarray(batch[key])[batch["mask"]] for batch in found])
        for key in ("image", "label")
    ]


@pytest.fixture(scope="module")
def key():
    return jax.random.key(transforms.SEED)


@pytest.fixture(scope="module")
def generated():
    return corrupted_sets.generated(CLEAN)


def test_images_are_made_as_corrupt_makes_them(generated, key):
    found, labels = images(generated.load("gaussian_noise", 3))
    expected = transforms.corrupt(key, CLEAN.images, "gaussian_noise", 3)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, CLEAN.labels)
    assert generated.data == "corrupted (generated)"
    assert generated.deviations["frost"] == "procedural"


def test_a_part_has_the_images_of_the_whole(generated):
    whole = generated.load("gaussian_noise", 3)
    rows = np.array([1, 4, 5, 8, 9])
    part = whole.subset(rows)
    assert (part.num_examples, part.image_shape) == (5, (32, 32, 3))
    for found, expected in zip(images(part), images(whole), strict=True):
        np.testing.assert_array_equal(found, expected[rows])
    halves = [part.batches(4, rows=rows) for rows in ([0, 1], [2, 3])]
    for one, other, both in zip(*halves, part.batches(4), strict=True):
        joined = np.concatenate([one["image"], other["image"]])
        np.testing.assert_array_equal(joined, both["image"])


def test_constants_go_by_the_size_of_images():
    large = Dataset(np.zeros((1, 224, 224, 3), np.uint8), np.zeros(1, np.int32))
    assert corrupted_sets.constants_for(large) == "imagenet"
    assert corrupted_sets.constants_for(CLEAN) == "cifar"


def test_a_written_folder_is_what_is_made(generated, key, tmp_path):
    numbers = datasets.choose(10, 6)
    writer.write_cifar_c(
        key,
        tmp_path,
        CLEAN.subset(numbers),
        names=["gaussian_noise"],
        numbers=numbers,
        batch_size=4,
    )
    read = corrupted_sets.read(tmp_path, SHAPES)
    assert (read.data, read.deviations) == (generated.data, generated.deviations)
    expected = images(generated.load("gaussian_noise", 5).subset(numbers))
    for one, other in zip(
        images(read.load("gaussian_noise", 5)), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"no file .*fog.npy \(there: gaussian_noise"):
        read.check("fog", 1)


def test_folders_of_others_go_by_their_name(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.zeros(10, np.int64))
    np.save(folder / "fog.npy", np.zeros((10, 32, 32, 3), np.uint8))
    read = corrupted_sets.read(folder, CIFAR10)
    assert (read.data, read.deviations) == ("corrupted (CIFAR-10-C)", {})
    assert isinstance(read.load("fog", 2).images, np.memmap)
    np.save(folder / "fog.npy", np.zeros((10, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"fog.npy has images \[16, 16, 3\], not \[32"):
        read.check("fog", 1)


def test_imagenet_c_is_not_resized(tmp_path):
    source = sources.source(f"folder:{_folder(tmp_path)}")
    read = corrupted_sets.read(tmp_path / "c", source)
    assert read.data == "corrupted (c)"
    found, labels = images(read.load("fog", 2), batch_size=2)
    for label, name in enumerate(("ant", "bee")):
        stored = PIL.Image.open(tmp_path / "c" / "fog" / "2" / name / "0.JPEG")
        np.testing.assert_array_equal(found[label], stored)
    np.testing.assert_array_equal(labels, [0, 1])
    with pytest.raises(ValueError, match=r"no folder .*c/fog/3; pass the folder"):
        read.check("fog", 3)


def write_classes(root, names):
    """A folder for each class, with an image of the grey level of its position."""
    for level, name in enumerate(names):
        (root / name).mkdir(parents=True)
        image = np.full((32, 32, 3), level, np.uint8)
        PIL.Image.fromarray(image).save(root / name / "0.png")


def test_class_folders_get_the_labels_of_the_data_set(tmp_path):
    """Those of shapes are not in the order of the alphabet."""
    write_classes(tmp_path / "fog/1", shapes.CLASS_NAMES)
    (tmp_path / "._fog.npy").write_bytes(b"x")
    found, labels = images(corrupted_sets.read(tmp_path, SHAPES).load("fog", 1))
    np.testing.assert_array_equal(found[:, 0, 0, 0], labels)


def test_class_folders_of_other_names_are_refused_before_any_is_read(tmp_path):
    source = sources.source(f"folder:{_folder(tmp_path)}")
    write_classes(tmp_path / "c/snow/1", ["n00000001", "n00000002"])
    read = corrupted_sets.read(tmp_path / "c", source)
    read.check("fog", 2)
    for call in (read.check, read.load):
        with pytest.raises(ValueError, match=r"c/snow/1 lacks 2 classes: ant, bee and"):
            call("snow", 1)


def test_imagenets_classes_are_wordnet_ids(tmp_path):
    ids = read_imagenet.wordnet_ids()
    assert len({*ids}) == 1000
    assert list(ids) == sorted(ids)  # so that torchvision has the same labels
    assert class_names("imagenet", data_dir=tmp_path) == list(ids)
    assert ids[0] == "n01440764"
    imagenet = sources.source("imagenet")
    for name in ids:
        (tmp_path / "fog/1" / name).mkdir(parents=True)
    corrupted_sets.read(tmp_path, imagenet).check("fog", 1)
    (tmp_path / "fog/1" / ids[3]).rename(tmp_path / "fog/1/great_white_shark")
    with pytest.raises(ValueError, match=f"lacks 1 classes: {ids[3]} and also has 1"):
        corrupted_sets.read(tmp_path, imagenet).check("fog", 1)


def test_classes_without_known_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "root", lambda _: epath.Path(tmp_path / "tfds"))
    write_classes(tmp_path / "c/fog/1", map(str, range(10)))
    with pytest.raises(ValueError, match="names of the classes of cifar10, by which"):
        corrupted_sets.read(tmp_path / "c", CIFAR10).load("fog", 1)


def test_folders_may_be_named_in_any_way(tmp_path, monkeypatch):
    write_classes(tmp_path / "c/fog/1", shapes.CLASS_NAMES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("c", "c/", "~/c", str(tmp_path / "c")):
        assert corrupted_sets.read(name, SHAPES).data == "corrupted (c)"
    (tmp_path / "c").rename(tmp_path / "c\udce9")
    with pytest.raises(ValueError, match="is not UTF-8"):
        corrupted_sets.read("c\udce9", SHAPES)


def _folder(root):
    """A folder to train on, and c/fog/2 with one image of each class."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        image = PIL.Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8))
        for path in (root / "data/train" / name, root / "c/fog/2" / name):
            path.mkdir(parents=True)
            image.save(path / "0.JPEG")
    return root / "data"


def prepare(root, config, data):
    """A small cifar10_corrupted/CONFIG as TFDS prepares it."""

    class Corrupted(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "cifar10_corrupted"
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=config, version="1.0.0"),)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for i, (image, label) in enumerate(zip(*data, strict=True)):
                picture = PIL.Image.fromarray(image)
                yield i, {"image": picture, "label": int(label)}

    builder = Corrupted(data_dir=root, config=config)
    builder.download_and_prepare(file_format="array_record")
    found = list(builder.as_data_source("test"))
    return [np.stack([example[key] for example in found]) for key in ("image", "label")]


def test_tfds(tmp_path):
    expected = prepare(tmp_path, "frosted_glass_blur_2", CLEAN)
    read = corrupted_sets.read(tmp_path, CIFAR10)
    assert read.data == "corrupted (TFDS cifar10_corrupted)"
    read.check("glass_blur", 2)
    for found, wanted in zip(images(read.load("glass_blur", 2)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    message = "no cifar10_corrupted/elastic_3 in .*; prepare it: tfds build cifar10_c"
    with pytest.raises(ValueError, match=message):
        read.check("elastic_transform", 3)
    with pytest.raises(ValueError, match="unknown corruption 'elastic'"):
        read.check("elastic", 3)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*nowhere with corrupted images"):
        corrupted_sets.read(tmp_path / "nowhere", CIFAR10)
    message = r"holds no corrupted images of cifar10: neither .*, nor cifar10_corrupted"
    with pytest.raises(ValueError, match=message):
        corrupted_sets.read(tmp_path, CIFAR10)
