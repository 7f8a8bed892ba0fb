"""A small network on the embedded data set: minutes on two CPU cores.

python train.py --config=configs/shapes.py --workdir=runs/shapes
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "shapes"
    config.width = 16
    config.stages = (1, 1, 1, 1)
    config.epochs = 7
    config.milestones = (4, 6)
    return config
