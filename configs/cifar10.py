"""CIFAR-10 by the paper's recipe: 1 + 200 epochs.

python train.py --config=configs/cifar10.py --workdir=runs/cifar10
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "cifar10"
    config.checkpoint_every = 5
    return config
