"""A small network on the embedded data set: about a minute on two CPU cores.

python train.py --config=shapes --workdir=runs/shapes
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "shapes"
    config.width = 16
    config.stages = (1, 1, 1, 1)
    # With the warm-up, training has four epochs only: small batches make more steps.
    config.epochs = 3
    config.milestones = (2,)
    config.batch_size = 32
    config.learning_rate = 0.05
    return config
