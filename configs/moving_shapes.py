"""A small U-Net on the embedded videos: about two minutes on two CPU cores.

python train.py --config=moving_shapes --workdir=runs/moving_shapes
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "moving_shapes"
    config.model = "unet_mcdo_smoothing"
    config.width = 8
    config.stages = (1, 1, 1, 1)
    config.rate = 0.2
    config.epochs = 8
    config.warmup_epochs = 0
    config.milestones = (6,)
    config.batch_size = 16
    config.eval_batch_size = 32
    config.optimizer = "adam"
    config.learning_rate = 3e-3
    config.weight_decay = 0.0
    return config
