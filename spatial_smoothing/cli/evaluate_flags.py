"""The flags of `evaluate.py`, and what they mean where they are not given.

Contract of this file: the flags get their values when the command parses them. Only the
files of this command read them, and everything else gets plain values.
"""

import jax
from absl import flags

from spatial_smoothing.cli import compile_for, config_fields, options, start
from spatial_smoothing.evaluation import suites

_IMAGES_AT_ONCE, _VIDEOS_AT_ONCE = 128, 4

FLAGS = start.new_flags()
WORKDIR = flags.DEFINE_multi_string(
    "workdir",
    [],
    "Folder of the run to evaluate. Several, separated by commas or by repeating the "
    "flag, are the members of a deep ensemble.",
    flag_values=FLAGS,
)
COMPARE = flags.DEFINE_multi_string(
    "compare",
    [],
    "Evaluated workdirs, or folders of reports, to put side by side; separated by "
    "commas or by repeating the flag.",
    flag_values=FLAGS,
)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder of the report. Without it, that is evaluation/ in the workdir, and of N "
    f"workdirs evaluation-of-N/ in the first one. {compile_for.OUTPUT_HELP}",
    flag_values=FLAGS,
)
SUITE = flags.DEFINE_list(
    "suite",
    None,
    f"What to evaluate: some of {', '.join(suites.SUITES)}; or all, which leaves out "
    "those that refuse the runs. Without it, that is ensemble, and of networks for "
    "segmentation segmentation.",
    flag_values=FLAGS,
)
SPLIT = flags.DEFINE_string(
    "split",
    "test",
    "Split of the data set that is scored, such as test, train or test[:500].",
    flag_values=FLAGS,
)
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Another data set with classes of the run's own, to be scored in place of it: "
    "tfds:NAME, folder:PATH, npz:FILE, hf:NAME or list:FILE. Logits of classes that it "
    "does not have are left out.",
    flag_values=FLAGS,
)
REAL_LABELS = flags.DEFINE_string(
    "real_labels",
    None,
    "File real.json with reassessed labels (ReaL) of the validation images of "
    "ImageNet; a prediction is right if it is one of an image's labels.",
    flag_values=FLAGS,
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Directory of TFDS. Without it, that is the directory of the training.",
    flag_values=FLAGS,
)
DOWNLOAD = flags.DEFINE_bool(
    "download",
    False,
    "Whether to download and prepare CIFAR where the directory does not have it.",
    flag_values=FLAGS,
)
NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples",
    50,
    "Number of Monte Carlo dropout samples of each image. A network without dropout "
    "makes one prediction.",
    lower_bound=1,
    flag_values=FLAGS,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Number of images in a batch, and for segmentation of videos at once. Without it, "
    f"that is {_IMAGES_AT_ONCE}, and for segmentation {_VIDEOS_AT_ONCE} or the number "
    "of devices.",
    lower_bound=1,
    flag_values=FLAGS,
)
CHUNK = flags.DEFINE_integer(
    "chunk",
    None,
    "Number of samples that are computed at once. Without it, the device decides.",
    lower_bound=1,
    flag_values=FLAGS,
)
OOD = flags.DEFINE_string(
    "ood",
    None,
    "Another data set, whose images are to be detected as out-of-distribution. For "
    "--suite=ood several, each near:NAME or far:NAME, separated by commas.",
    flag_values=FLAGS,
)
OOD_VALIDATION = flags.DEFINE_string(
    "ood_validation",
    None,
    "For ood: data set on which constants of confidences are chosen, none of those in "
    "--ood. Without it, constants are the published ones.",
    flag_values=FLAGS,
)
NUM_REPLICATES = flags.DEFINE_integer(
    "num_replicates",
    1000,
    "Number of bootstrap replicates for confidence intervals; 0 makes no intervals.",
    lower_bound=0,
    flag_values=FLAGS,
)
SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the dropout masks, of the bootstrap, and in the analyses of the images "
    "that are drawn, of noise and of directions.",
    lower_bound=0,
    upper_bound=config_fields.MAX_SEED,
    flag_values=FLAGS,
)
PUBLISHED = flags.DEFINE_bool(
    "published",
    False,
    "Whether the figures also show the values that Park & Kim have published.",
    flag_values=FLAGS,
)
FORMAT = flags.DEFINE_list(
    "format",
    ["png"],
    "File formats of the figures, of png, pdf and svg.",
    flag_values=FLAGS,
)
FIGURE_WIDTH = flags.DEFINE_float(
    "figure_width",
    None,
    "Width of the figures in inches, such as 3.25 for a column of a paper; below 5 "
    "inches panels stand below each other. Without it, figures are as on the page.",
    flag_values=FLAGS,
)
compile_for.define(FLAGS, what="the evaluation of a batch by --suite=ensemble")
OPTIONS = options.define(suites.SUITES, FLAGS)
# Flags that matter to what `--compile_for` compiles.
OF_COMPILING = {"num_samples", "batch_size", "chunk"}
# Flags that a comparison has no use for.
OF_EVALUATION = (
    *("suite", "split", "dataset", "real_labels", "data_dir", "download"),
    *("num_samples", "batch_size", "chunk", "ood", "ood_validation", *OPTIONS),
)


def numbers(*, task: str) -> dict[str, int | None]:
    """Returns the numbers that all suites share, as the flags give them.

    Args:
      task: Task of the networks, "classification" or "segmentation".
    """
    batch_size = BATCH_SIZE.value
    if batch_size is None and task == "segmentation":
        count = jax.device_count()
        batch_size = -(-_VIDEOS_AT_ONCE // count) * count
    return {
        "num_samples": NUM_SAMPLES.value,
        "batch_size": batch_size or _IMAGES_AT_ONCE,
        "chunk": CHUNK.value,
        "num_replicates": NUM_REPLICATES.value,
        "seed": SEED.value,
    }
