"""Classifies image files: `python predict.py --workdir=DIR IMAGE...`.

Prints the most probable classes of each image, and how uncertain they are: the entropy
of the prediction, and the part of it on which the samples disagree.
"""

import numpy as np
from absl import flags

from spatial_smoothing import cli, serving
from spatial_smoothing.data import image_files

_WORKDIR = flags.DEFINE_string("workdir", None, "Run to predict with.")
_EXPORTED = flags.DEFINE_string("exported", None, "Or what serving.export has written.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 50, "Monte Carlo dropout samples.")
_TOP = flags.DEFINE_integer("top", 3, "Classes to print.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the dropout masks.", lower_bound=0)


def predict(paths: list[str]) -> None:
    """Prints predictions for the files, all of which are read before the first."""
    if bool(_WORKDIR.value) == bool(_EXPORTED.value):
        raise ValueError("give either --workdir=DIR or --exported=DIR")
    if _WORKDIR.value:
        predictor = serving.load_predictor(
            _WORKDIR.value, num_samples=_NUM_SAMPLES.value
        )
    else:
        predictor = serving.load_exported(_EXPORTED.value)
    about = predictor.description
    size = about.image_size
    files = [image_files.read(path, size=size) for path in paths]
    result = predictor(np.stack([file.pixels for file in files]), seed=_SEED.value)
    plural = "" if about.num_samples == 1 else "s"
    print(f"{about.model} on {about.dataset}, {about.num_samples} sample{plural}")
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
        print(
            f"  entropy {entropy:.3f} nats, of which {information:.3f} between samples"
        )


if __name__ == "__main__":
    cli.run(predict, positional="IMAGE")
