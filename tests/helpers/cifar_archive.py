"""Small archives in the binary layout of CIFAR, with random images.

The layout is that of https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import dataclasses
import io
import tarfile

import numpy as np

# Feature -> number of classes and file of names, in the order of the label bytes.
LABELS = {
    "cifar10": {"label": (10, "batches.meta.txt")},
    "cifar100": {
        "coarse_label": (20, "coarse_label_names.txt"),
        "label": (100, "fine_label_names.txt"),
    },
}
# Split -> files of records.
FILES = {
    "cifar10": {
        "train": [f"data_batch_{i}.bin" for i in (1, 2, 3, 4, 5)],
        "test": ["test_batch.bin"],
    },
    "cifar100": {"train": ["train.bin"], "test": ["test.bin"]},
}
FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
SIZES = {"train": 35, "test": 9}


@dataclasses.dataclass
class Content:
    """What a small archive holds: its files, and what is in them."""

    files: dict[str, bytes]
    class_names: dict[str, list[str]]  # of each feature
    images: dict[str, np.ndarray]  # of each split, uint8[N, 32, 32, 3]
    labels: dict[str, dict[str, np.ndarray]]  # of each split and feature


def random_content(name):
    """Returns random images, always the same."""
    rng = np.random.default_rng(0)
    content = Content({}, {}, {}, {})
    for feature, (count, file) in LABELS[name].items():
        names = [f"{feature}_{i}" for i in range(count)]
        content.class_names[feature] = names
        content.files[f"{FOLDERS[name]}/{file}"] = "\n".join([*names, "", ""]).encode()
    for split, size in SIZES.items():
        images = rng.integers(0, 256, (size, 32, 32, 3), np.uint8)
        labels = {f: rng.integers(0, n, size) for f, (n, _) in LABELS[name].items()}
        records = [
            bytes(int(column[i]) for column in labels.values())
            + images[i].transpose(2, 0, 1).tobytes()
            for i in range(size)
        ]
        files = FILES[name][split]
        share = size // len(files)
        for i, file in enumerate(files):
            part = b"".join(records[i * share : (i + 1) * share])
            content.files[f"{FOLDERS[name]}/{file}"] = part
        content.images[split], content.labels[split] = images, labels
    return content


def tar_gz(files, *members):
    """Returns an archive of path -> content, and of further members without any."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member)
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
