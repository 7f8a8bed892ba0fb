"""Small data sets, prepared by TFDS itself."""

import dataclasses
import pathlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from spatial_smoothing.data import sources


@dataclasses.dataclass
class Written:
    """A prepared data set: its folder, and per split what TFDS reads from it."""

    folder: pathlib.Path
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def write(
    root,
    *,
    splits=sources.SPLITS,
    size=32,
    num_classes=10,
    label=None,
    seed=0,
    title="cifar10",
    count=300,
    grey=False,
    names=None,
):
    """Prepares random images with TFDS, in each split `count` in two shards."""
    rng = np.random.default_rng(seed)
    shape = (size, size) if grey else (size, size, 3)
    classes = {"names": names} if names else {"num_classes": num_classes}
    num_classes = len(names) if names else num_classes

    class Random(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = title
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(*shape, 1) if grey else shape),
                "label": tfds.features.ClassLabel(**classes),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            for i in range(count):
                image = rng.integers(0, 256, shape, np.uint8)
                value = int(rng.integers(num_classes)) if label is None else label
                yield i, {"image": PIL.Image.fromarray(image), "label": value}

    builder = Random(data_dir=root)
    config = tfds.download.DownloadConfig(num_shards=2)
    builder.download_and_prepare(file_format="array_record", download_config=config)
    examples = {s: list(builder.as_data_source(s)) for s in splits}
    return Written(
        pathlib.Path(builder.data_dir),
        {s: np.stack([e["image"] for e in examples[s]]) for s in splits},
        {s: np.array([e["label"] for e in examples[s]]) for s in splits},
    )
