"""Classifies image files: `python predict.py --workdir=DIR IMAGE...`.

Prints the most probable classes of each image, and how uncertain they are: the entropy
of the prediction, and the part of it on which the samples disagree.

With `--frames=FOLDER` in place of images, classifies the frames of a video, each
smoothed over those before it; FOLDER may be a .npy, or an image across which to move.
"""

import numpy as np
from absl import flags

from spatial_smoothing import serving
from spatial_smoothing.cli import start
from spatial_smoothing.data import streams
from spatial_smoothing.data.images import image_files
from spatial_smoothing.metrics import consistency
from spatial_smoothing.serving import streaming

FLAGS = start.new_flags()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run to predict with.", flag_values=FLAGS
)
_EXPORTED = flags.DEFINE_string(
    "exported", None, "Or what serving.export has written.", flag_values=FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples",
    None,
    "Monte Carlo dropout samples; default: 50, of a frame 1.",
    flag_values=FLAGS,
)
_TOP = flags.DEFINE_integer(
    "top", 3, "Classes to print.", lower_bound=1, flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of the dropout masks.", lower_bound=0, flag_values=FLAGS
)
_FRAMES = flags.DEFINE_string(
    "frames", None, "Folder, stack in a .npy, or image.", flag_values=FLAGS
)
_DECAY = flags.DEFINE_float(
    "decay", 0.8, "A frame t frames ago weighs exp(-decay t).", flag_values=FLAGS
)


def predict_images(paths: list[str]) -> None:
    """Prints predictions for the files, all of which are read before the first."""
    if _WORKDIR.value:
        samples = 50 if _NUM_SAMPLES.value is None else _NUM_SAMPLES.value
        predictor = serving.load_predictor(_WORKDIR.value, num_samples=samples)
    else:
        predictor = serving.load_exported(_EXPORTED.value)
    about = predictor.description
    size = about.image_size
    files = [image_files.read(path, size=size, resize=about.resize) for path in paths]
    result = predictor(np.stack([file.pixels for file in files]), seed=_SEED.value)
    print(f"{about.model} on {about.dataset}, {_samples(about)}")
    for path, file, probs, entropy, information in zip(
        paths, files, *result, strict=True
    ):
        changes = [f"{file.mode} converted to RGB"] if file.mode != "RGB" else []
        if file.size != (size, size):
            width, height = file.size
            changes.append(f"{width}x{height} cropped and resized to {size}x{size}")
        print(f"\n{path}" + (f" ({', '.join(changes)})" if changes else ""))
        for label in np.argsort(-probs, kind="stable")[: _TOP.value]:
            print(f"  {100 * probs[label]:5.1f} %  {about.class_names[label]}")
        between = f", of which {information:.3f} between samples"
        print(f"  entropy {entropy:.3f} nats{between * (about.num_samples > 1)}")


def predict_frames() -> None:
    """Prints a line for each frame, and how steady the classes are."""
    samples = 1 if _NUM_SAMPLES.value is None else _NUM_SAMPLES.value
    predictor = streaming.load_stream(
        _WORKDIR.value, num_samples=samples, decay=_DECAY.value
    )
    about = predictor.description
    frames = streams.read_frames(
        _FRAMES.value, size=about.image_size, resize=about.resize
    )
    print(f"{about.model} on {about.dataset}, {_samples(about)} a frame")
    smoothed, single = [], []
    for number, result in enumerate(predictor(frames, seed=_SEED.value), 1):
        label = result.probs.argmax()
        print(
            f"{number:5}  {100 * result.probs[label]:5.1f} %  "
            f"{about.class_names[label]}, entropy {result.entropy:.3f} nats"
        )
        smoothed.append(result.probs)
        single.append(result.frame_probs)
    if len(frames) > 1:
        for name, frames in (("single frames", single), ("smoothed", smoothed)):
            log_probs = np.log(np.stack(frames)[:, None])
            (same,) = consistency.consistency(log_probs)
            (cross_entropy,) = consistency.cec(log_probs)
            print(f"{name}: consistency {100 * same:.1f} %, CEC {cross_entropy:.4f}")


def _samples(about: serving.Description) -> str:
    return f"{about.num_samples} sample" + "s" * (about.num_samples != 1)


def check_flags(paths: list[str]) -> None:
    """Raises ValueError for flags that do not go together."""
    if bool(_WORKDIR.value) == bool(_EXPORTED.value):
        raise ValueError("give either --workdir=DIR or --exported=DIR")
    if bool(paths) == bool(_FRAMES.value):
        raise ValueError("give either at least one IMAGE or --frames=FOLDER_OR_NPY")
    if _EXPORTED.value and _FRAMES.value:
        raise ValueError("--frames needs --workdir=DIR; exported runs take images only")
    if _EXPORTED.value and _NUM_SAMPLES.present:
        raise ValueError("--num_samples is for --workdir; an exported run has its own")
    if paths and _DECAY.present:
        raise ValueError("--decay is for --frames; images have no past")
    if _FRAMES.value and _TOP.present:
        raise ValueError("--top is for images; of a frame there is one class")


def predict(paths: list[str]) -> None:
    """Predicts images or frames."""
    check_flags(paths)
    predict_images(paths) if paths else predict_frames()


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(predict, FLAGS, about=__doc__, positional=True)
