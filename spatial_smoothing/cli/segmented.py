"""What `predict.py` writes and prints of networks for segmentation.

Contract of this file: a picture of each image is written to a folder, the frame with
the colours of the classes over it, and `legend.png` beside them. A line for each image
says which classes fill it.
"""

import os
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from spatial_smoothing.data.images import overlays
from spatial_smoothing.data.streams import Frames
from spatial_smoothing.runtime import paths, progress
from spatial_smoothing.serving import Description, Predictor
from spatial_smoothing.serving.streaming import StreamPredictor

_LEGEND = "legend.png"
_MOST = 3  # classes that a line names
_AT_ONCE = 4  # images whose predictions are in memory


def check_output(about: Description, output: str | None) -> None:
    """Raises ValueError if `--output` is missing or useless.

    Args:
      about: What is predicted.
      output: Value of `--output`; None if it is not given.
    """
    is_segmentation = about.task == "segmentation"
    if is_segmentation and output is None:
        raise ValueError(f"{about.model} segments: give --output=DIR for its pictures")
    if output is not None and not is_segmentation:
        raise ValueError(
            f"--output is for pictures of segmentation, and {about.model} classifies"
        )


def check_pictures(output: str, names: Sequence[str], inputs: Sequence[str]) -> None:
    """Raises ValueError if a picture would replace another one, or what it is made of.

    Args:
      output: Folder of the pictures.
      names: Name of each image or frame, after which its picture is called.
      inputs: Paths of the files that are read.
    """
    folder = paths.absolute(output)
    read = {_place(path): path for path in inputs}
    for file in (*_files(names), _LEGEND):
        if path := read.get(_place(folder / file)):
            raise ValueError(
                f"the picture {folder / file} would replace {path}, which is to be "
                "predicted; give another folder as --output"
            )


def _place(path: epath.PathLike) -> str:
    """The path that a path leads to, through links or not."""
    path = paths.absolute(path)
    return str(path) if paths.is_remote(path) else os.path.realpath(path)


def write_images(
    predictor: Predictor,
    names: Sequence[str],
    images: np.ndarray,
    *,
    seed: int,
    output: str,
) -> None:
    """Segments images, writes a picture of each, and prints a line for each.

    Args:
      predictor: The network.
      names: Paths of the images.
      images: u8[B, H, W, 3].
      seed: Seed of the dropout masks.
      output: Folder of the pictures.

    Raises:
      ValueError: if two pictures would have one name.
    """
    about = predictor.description
    folder, files = _folder(output, about), _files(names)
    # A few at once, as those of all pixels of many images take much memory.
    for start in range(0, len(names), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        result = predictor(images[part], seed=seed)
        for name, file, image, probs, entropy in zip(
            names[part],
            files[part],
            images[part],
            result.probs,
            result.entropy,
            strict=True,
        ):
            _write(about, folder / file, image, probs)
            print(f"{name}  {_line(about, probs, entropy)}")
    print(f"pictures: {folder}")


def write_frames(
    predictor: StreamPredictor, frames: Frames, *, seed: int, output: str
) -> None:
    """Segments a video, and writes and prints each frame as soon as it is predicted.

    Args:
      predictor: The network.
      frames: The video.
      seed: Seed of the dropout masks.
      output: Folder of the pictures.

    Raises:
      ValueError: if two pictures would have one name, or a frame cannot be read.
    """
    about = predictor.description
    folder, files = _folder(output, about), _files(frames.names)
    kept = {"single frames": _Kept(), "smoothed": _Kept()}
    seen: list[np.ndarray] = []

    def noted() -> Iterator[np.ndarray]:
        """The frames, of which the latest is kept for its picture."""
        for frame in frames:
            seen[:] = [frame]
            yield frame

    begin = None
    results = predictor(noted(), seed=seed)
    for name, file, found in progress.track(
        zip(frames.names, files, results, strict=True),
        total=len(files),
        name="Frames",
    ):
        _write(about, folder / file, seen[0], found.probs)
        print(f"{name}  {_line(about, found.probs, found.entropy)}")
        kept["single frames"].add(found.frame_probs)
        kept["smoothed"].add(found.probs)
        # The first frame compiles.
        begin = time.perf_counter() if begin is None else begin
    if len(files) > 1:
        rate = (len(files) - 1) / (time.perf_counter() - begin)
        for name, each in kept.items():
            print(f"{name}: consistency {100 * each.share():.1f} %")
        print(f"{rate:.1f} frames a second, with reading and writing")
    print(f"pictures: {folder}")


class _Kept:
    """Counts the pixels that keep their class from one frame to the next."""

    def __init__(self):
        self._before: np.ndarray | None = None
        self._same = self._all = 0

    def add(self, probs: np.ndarray) -> None:
        """Takes in the probabilities f32[H, W, K] of the next frame."""
        classes = probs.argmax(-1)
        if self._before is not None:
            self._same += int((classes == self._before).sum())
            self._all += classes.size
        self._before = classes

    def share(self) -> float:
        """Share of the pixels that kept their class, in [0, 1]."""
        return self._same / self._all


def _folder(output: str, about: Description) -> epath.Path:
    """Makes the folder of pictures, with the legend."""
    folder = paths.absolute(output)
    folder.mkdir(parents=True, exist_ok=True)
    legend = overlays.legend(about.palette, about.class_names)
    overlays.write_png(folder / _LEGEND, legend)
    return folder


def _files(names: Sequence[str]) -> list[str]:
    """Names of the pictures; ValueError if two are the same."""
    files = [f"{pathlib.PurePath(name).stem}.png" for name in names]
    taken: dict[str, str] = {_LEGEND: "the legend"}
    for name, file in zip(names, files, strict=True):
        if file in taken:
            raise ValueError(
                f"the pictures of {taken[file]} and {name} would both be {file}; "
                "predict them one by one, or rename one"
            )
        taken[file] = name
    return files


def _write(
    about: Description, path: epath.Path, image: np.ndarray, probs: np.ndarray
) -> None:
    picture = overlays.overlay(image, probs.argmax(-1), about.palette)
    overlays.write_png(path, picture)


def _line(about: Description, probs: np.ndarray, entropy: np.ndarray) -> str:
    """The classes that fill most of an image, and the mean entropy of its pixels."""
    classes = probs.argmax(-1)
    shares = np.bincount(classes.ravel(), minlength=probs.shape[-1]) / classes.size
    largest = np.argsort(-shares, kind="stable")[:_MOST]
    words = [
        f"{about.class_names[label]} {100 * shares[label]:.1f} %"
        for label in largest
        if shares[label]
    ]
    return f"{', '.join(words)}; entropy {entropy.mean():.3f} nats"
