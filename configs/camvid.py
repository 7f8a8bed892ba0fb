"""CamVid by the recipe of the paper, with a U-Net.

python train.py --config=camvid --config.data_dir=DIR --workdir=runs/camvid

DIR is the folder of CamVid; see docs/segmentation.md.
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "camvid"
    config.model = "unet_mcdo_smoothing"
    config.epochs = 130
    config.warmup_epochs = 0
    config.milestones = (100,)
    config.factor = 0.2
    config.batch_size = 3
    config.optimizer = "adam"
    config.learning_rate = 1e-3
    config.weight_decay = 0.0
    config.class_weights = ("median_frequency",)
    config.eval_every = 5
    config.eval_batch_size = 4
    return config
