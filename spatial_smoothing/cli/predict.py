"""Classifies image files: `python predict.py --workdir=DIR IMAGE...`.

Prints the most probable classes of each image and their uncertainty: the entropy of the
prediction, and the mutual information, which is the part that samples disagree about.

With `--frames=FOLDER` in place of images, classifies the frames of a video, and smooths
each prediction over the frames before it. FOLDER may also be a .npy file with a stack
of frames, or one image, across which the view moves.

Of a network for segmentation, `--output=DIR` gets a picture of each image or frame, the
colours of the classes over it.
"""

import math
import sys

import numpy as np
from absl import flags

from spatial_smoothing import serving
from spatial_smoothing.cli import config_fields, devices, segmented, start
from spatial_smoothing.data import streams
from spatial_smoothing.data.images import image_files
from spatial_smoothing.metrics import consistency
from spatial_smoothing.runtime import paths as runtime_paths
from spatial_smoothing.serving import streaming

FLAGS = start.new_flags()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run to predict with.", flag_values=FLAGS
)
_EXPORTED = flags.DEFINE_string(
    "exported",
    None,
    "Folder that serving.export has written, to predict with in place of a run.",
    flag_values=FLAGS,
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples",
    None,
    "Number of Monte Carlo dropout samples. Without it, an image has 50 and a frame 1.",
    lower_bound=1,
    flag_values=FLAGS,
)
_TOP = flags.DEFINE_integer(
    "top",
    3,
    "Number of classes to print for each image.",
    lower_bound=1,
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the dropout masks.",
    lower_bound=0,
    upper_bound=config_fields.MAX_SEED,
    flag_values=FLAGS,
)
_FRAMES = flags.DEFINE_string(
    "frames",
    None,
    "Folder of frames, a .npy file with a stack of them, or an image across which the "
    "view moves.",
    flag_values=FLAGS,
)
_DECAY = flags.DEFINE_float(
    "decay",
    0.8,
    "Decay of temporal smoothing: the frame of t frames ago has the weight "
    "exp(-decay * t).",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the pictures of a network for segmentation. It is made if need be; "
    "pictures of the same names are replaced.",
    flag_values=FLAGS,
)


def predict_images(paths: list[str]) -> None:
    """Prints predictions for image files; all files are read before the first line."""
    if _WORKDIR.value:
        samples = 50 if _NUM_SAMPLES.value is None else _NUM_SAMPLES.value
        predictor = serving.load_predictor(_WORKDIR.value, num_samples=samples)
    else:
        predictor = serving.load_exported(_EXPORTED.value)
    about = predictor.description
    height, width, _ = about.image_shape
    segmented.check_output(about, _OUTPUT.value)
    if _OUTPUT.value is not None:
        segmented.check_pictures(_OUTPUT.value, paths, paths)
    files = [
        image_files.read(
            path, size=(height, width), resize=about.resize, method=_resizing(about)
        )
        for path in paths
    ]
    images = np.stack([file.pixels for file in files])
    heading = f"{about.model} on {about.dataset}, {_samples(about)}"
    if about.task == "segmentation":
        devices.announce(file=sys.stderr)  # stdout has the predictions alone
        print(heading)
        segmented.write_images(
            predictor, paths, images, seed=_SEED.value, output=_OUTPUT.value
        )
        return
    result = predictor(images, seed=_SEED.value)
    devices.announce(file=sys.stderr)
    print(heading)
    for path, file, probs, entropy, information in zip(
        paths, files, *result, strict=True
    ):
        changes = [f"{file.mode} converted to RGB"] if file.mode != "RGB" else []
        if file.size != (width, height):
            before = "x".join(map(str, file.size))
            changes.append(f"{before} cropped and resized to {width}x{height}")
        print(f"\n{path}" + (f" ({', '.join(changes)})" if changes else ""))
        for label in np.argsort(-probs, kind="stable")[: _TOP.value]:
            print(f"  {100 * probs[label]:5.1f} %  {about.class_names[label]}")
        between = ""
        if about.num_samples * about.num_predictions > 1:
            kind = "samples" if about.num_predictions == 1 else "predictions"
            between = f", of which {information:.3f} between {kind}"
        print(f"  entropy {entropy:.3f} nats{between}")


def predict_frames() -> None:
    """Prints a line for each frame, and how consistent the predictions are."""
    samples = 1 if _NUM_SAMPLES.value is None else _NUM_SAMPLES.value
    predictor = streaming.load_stream(
        _WORKDIR.value, num_samples=samples, decay=_DECAY.value
    )
    about = predictor.description
    segmented.check_output(about, _OUTPUT.value)
    size, resize = about.image_shape[:2], about.resize
    is_segmentation = about.task == "segmentation"
    if is_segmentation:
        # Pictures are written one by one.
        frames = streams.open_frames(
            _FRAMES.value, size=size, resize=resize, method=_resizing(about)
        )
        place = runtime_paths.absolute(_FRAMES.value)
        inputs = [place / name for name in frames.names] if place.is_dir() else [place]
        segmented.check_pictures(_OUTPUT.value, frames.names, inputs)
    else:
        # All frames are read before the first line.
        frames = streams.read_frames(_FRAMES.value, size=size, resize=resize)
    devices.announce(file=sys.stderr)
    print(f"{about.model} on {about.dataset}, {_samples(about)} a frame")
    if is_segmentation:
        segmented.write_frames(
            predictor, frames, seed=_SEED.value, output=_OUTPUT.value
        )
        return
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
            with np.errstate(divide="ignore"):  # a probability may be 0
                log_probs = np.log(np.stack(frames)[:, None])
            (same,) = consistency.consistency(log_probs)
            (cross_entropy,) = consistency.cec(log_probs)
            cec = abs(cross_entropy)  # 0 and not -0
            print(f"{name}: consistency {100 * same:.1f} %, CEC {cec:.4f}")


def _resizing(about: serving.Description) -> str:
    """How images are resized: as those that the network was trained on."""
    return "bilinear" if about.task == "segmentation" else "bicubic"


def _samples(about: serving.Description) -> str:
    plural = "" if about.num_samples == 1 else "s"
    text = f"{about.num_samples} sample{plural}"
    if about.num_predictions > 1:
        text += f" of {about.num_predictions} predictions"
    return text


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
    if not math.isfinite(_DECAY.value):
        raise ValueError(f"--decay must be a finite number, got {_DECAY.value}")
    if paths and _DECAY.present:
        raise ValueError("--decay is for --frames; an image has no frames before it")
    for path in (*paths, _FRAMES.value or ""):
        if path.startswith(("http://", "https://", "ftp://")):
            raise ValueError(f"{path} is no file; download it, and give its path")
    if _OUTPUT.value == "":
        raise ValueError("--output must name a folder; for the present one take .")
    if _FRAMES.value and _TOP.present:
        raise ValueError("--top is for images; a frame has a line with one class")


def predict(paths: list[str]) -> None:
    """Predicts images or frames."""
    check_flags(paths)
    if paths:
        predict_images(paths)
    else:
        predict_frames()


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(start.Command(predict, FLAGS, about=__doc__, positional=True))
