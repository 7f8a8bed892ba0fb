"""Measures the input pipeline: images a second and core that are made to train on.

python -m benchmarks.pipeline [--images=512] [--rounds=7] [--num_workers=16]
    [--output=FILE.json]

It needs Linux and psutil, `pip install '.[benchmarks]'`.

Images are read, decoded, cropped and resized. They have the spectrum and the sizes of
photographs, about 110 kB each as in ImageNet, and are stored in array_record as TFDS
writes it. The peer is a loop that does the same work with Pillow on files in memory.
All variants take turns. Each one is new in every round, and its first batches, for
which it starts threads or processes, do not count. Seconds are measured on the clock,
which depends on other work on the machine, and on the processors, which does not.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import grain
import numpy as np
import PIL.Image
import psutil
import tensorflow_datasets as tfds

from benchmarks.timing import spread
from spatial_smoothing.data.images import decoding
from spatial_smoothing.data.images.pipeline import EncodedDataset
from spatial_smoothing.data.tfds import prepared
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runtime import progress

SIZES = 3 * ((500, 375), (375, 500), (500, 333), (334, 500)) + ((1024, 768),)
SIZE, BATCH, NUM_FILES = 224, 32, 60


def photograph(rng: np.random.Generator, width: int, height: int) -> bytes:
    """Returns a JPEG of random colours, with amplitudes of one over the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    weight = 1 / (frequency + 1 / max(width, height)) ** 1.25

    def plane() -> np.ndarray:
        noise = np.fft.fft2(rng.normal(size=(height, width)))
        values = np.fft.ifft2(noise * weight).real
        return values / values.std()

    grey = plane()
    colours = np.stack([grey + 0.3 * plane() for _ in range(3)], axis=-1)
    pixels = np.clip(128 + 50 * colours, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def write(folder: pathlib.Path, files: list[bytes]) -> pathlib.Path:
    """Prepares the files as a data set of TFDS; returns the folder of its version."""

    class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, content in enumerate(files):
                yield number, {"image": content, "label": number % 2}

    builder, quiet = Photographs(data_dir=folder), io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        builder.download_and_prepare(file_format="array_record")
    return builder.data_path


def pillow_loop(files: list[bytes]) -> Iterator[int]:
    """Decodes with Pillow, as the peer; yields the size of each batch."""
    rng = np.random.default_rng(0)
    while True:
        images = []
        for number in rng.integers(len(files), size=BATCH):
            image = PIL.Image.open(io.BytesIO(files[number])).convert("RGB")
            box = decoding.random_box(rng, *image.size)
            image = image.crop(box).resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)
            if rng.random() < 0.5:
                image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
            images.append(np.asarray(image))
        yield len(np.stack(images))


def pipeline(dataset: EncodedDataset) -> Iterator[int]:
    """Decodes with this library; yields the size of each batch."""
    for batch in dataset.training_batches(BATCH, seed=0, stop=10**6):
        yield len(batch["image"])


def reading(dataset: EncodedDataset) -> Iterator[int]:
    """Reads the bytes of the files with this library, without decoding them."""
    numbers = grain.MapDataset.range(dataset.num_examples).shuffle(seed=0).repeat()
    one_thread = grain.ReadOptions(num_threads=1, prefetch_buffer_size=BATCH)
    iterator = iter(numbers.map(dataset.records.read).to_iter_dataset(one_thread))
    try:
        while True:
            yield len(list(itertools.islice(iterator, BATCH)))
    finally:
        iterator.close()


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is timed: its batches, the cores that make them, and how much longer."""

    name: str
    batches: Callable[[], Iterator[int]]
    cores: int
    times: int = 1


def processor_seconds() -> float:
    """Returns the processor seconds of this process, its threads and its workers."""
    here = psutil.Process()
    spent = [p.cpu_times() for p in (here, *here.children(recursive=True))]
    return sum(times.user + times.system for times in spent)


def speeds(variant: Variant, count: int) -> dict[str, float]:
    """Returns images a second and core by both clocks, over `count` images."""
    every = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, every[: variant.cores])
    try:
        batches = variant.batches()
        for _ in range(4 * variant.cores):  # more than what waits in buffers
            next(batches)
        seen, spent, begin = 0, processor_seconds(), time.perf_counter()
        while seen < count * variant.times:
            seen += next(batches)
        seconds = time.perf_counter() - begin
        spent = processor_seconds() - spent
        batches.close()
    finally:
        os.sched_setaffinity(0, every)
    return {"clock": seen / seconds / variant.cores, "processor": seen / spent}


def measure(
    files: list[bytes],
    folder: pathlib.Path,
    *,
    count: int,
    rounds: int,
    num_workers: int,
) -> dict:
    """Times all variants in turns; returns name -> speeds and ratios to the peer."""
    records = prepared.encoded_records(folder, "train", num_classes=2)
    dataset = EncodedDataset(records, SIZE)
    cores = len(os.sched_getaffinity(0))
    workers = dataclasses.replace(dataset, num_workers=num_workers)
    variants = [
        Variant("Pillow loop", lambda: pillow_loop(files), 1),
        Variant("pipeline, 1 core", lambda: pipeline(dataset), 1),
        Variant(f"pipeline, {cores} cores, threads", lambda: pipeline(dataset), cores),
        Variant("reading only, 1 core", lambda: reading(dataset), 1, times=16),
    ]
    if num_workers:
        name = f"pipeline, {cores} cores, {num_workers} workers"
        variants.append(Variant(name, lambda: pipeline(workers), cores))
    found = {variant.name: [] for variant in variants}
    turns = [variant for _ in range(rounds) for variant in variants]
    for variant in progress.track(turns, total=len(turns), name="Pipelines"):
        found[variant.name].append(speeds(variant, count))
    peer = found[variants[0].name]
    return {
        name: {
            f"{what}_{clock}": spread(values)
            for clock in ("clock", "processor")
            for what, values in (
                ("speed", [one[clock] for one in rounds]),
                (
                    "ratio",
                    [a[clock] / b[clock] for a, b in zip(rounds, peer, strict=True)],
                ),
            )
        }
        for name, rounds in found.items()
    }


def main() -> None:
    """Measures, prints a table, and writes JSON if `--output` is given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--images", type=int, default=512, help="number of images in a turn"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count(),
        help="number of processes of the row with workers; 0 leaves it out",
    )
    parser.add_argument("--output", type=pathlib.Path, help="path of the JSON file")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    sizes = itertools.islice(itertools.cycle(SIZES), NUM_FILES)
    files = [photograph(rng, *size) for size in sizes]
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(pathlib.Path(scratch), files)
        rows = measure(
            files,
            folder,
            count=arguments.images,
            rounds=arguments.rounds,
            num_workers=arguments.num_workers,
        )
    size = sum(map(len, files)) / len(files) / 1000
    print(f"{arguments.rounds} rounds of {arguments.images} images, {size:.0f} kB each")
    for clock, unit in (("clock", "second"), ("processor", "processor second")):
        print(f"\n{f'images a {unit} and core':40}{'':>18}{'ratio':>22}")
        for name, row in rows.items():
            cells = [
                f"{v['median']:.{d}f} ({v['least']:.{d}f} to {v['largest']:.{d}f})"
                for v, d in ((row[f"speed_{clock}"], 0), (row[f"ratio_{clock}"], 2))
            ]
            print(f"{name:36}{cells[0]:>22}{cells[1]:>22}")
    if arguments.output:
        about = {"provenance": provenance(), **vars(arguments), "kilobytes": size}
        about = {**about, "cores": os.cpu_count(), "rows": rows}
        arguments.output.write_text(json.dumps(about, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
