"""Images of real sizes for tests, and data sets of them."""

import io
import pathlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

SIZES = ((500, 375), (375, 500), (333, 500), (640, 480), (300, 225), (224, 224))


def image(seed, size=None):
    """A smooth picture of random colours."""
    rng = np.random.default_rng(seed)
    width, height = size or SIZES[seed % len(SIZES)]
    small = rng.integers(0, 256, (height // 25, width // 25, 3)).astype(np.uint8)
    resampling = PIL.Image.Resampling.BICUBIC
    return PIL.Image.fromarray(small).resize((width, height), resampling)


def encode(picture, kind="JPEG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def write_folder(root, *, classes=("ant", "bee"), splits=("train", "test"), count=5):
    """A folder of JPEGs: in each split `count` for every class."""
    for index, split in enumerate(splits):
        for label, name in enumerate(classes):
            folder = pathlib.Path(root) / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                content = encode(image(100 * index + 10 * label + number))
                (folder / f"{number}.jpg").write_bytes(content)
    return pathlib.Path(root)


def prepare_imagenet(root, *, count=13, labels=(0, 7, 999)):
    """A small imagenet2012 as TFDS prepares it; returns split -> contents, labels."""

    class Imagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "imagenet2012"
        VERSION = tfds.core.Version("5.1.0")

        def _info(self):
            features = {
                "file_name": tfds.features.Text(),
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(seed)
                for seed, split in enumerate(("train", "validation"))
            }

        def _generate_examples(self, seed):
            for number in range(count):
                content = encode(image(100 * seed + number))
                yield (
                    number,
                    {
                        "file_name": f"{number}.JPEG",
                        "image": content,
                        "label": labels[number % len(labels)],
                    },
                )

    builder = Imagenet(data_dir=root)
    builder.download_and_prepare(file_format="array_record")
    raw = {"image": tfds.decode.SkipDecoding()}
    return {
        split: [
            (example["image"], int(example["label"]))
            for example in builder.as_data_source(split, decoders=raw)
        ]
        for split in ("train", "validation")
    }
