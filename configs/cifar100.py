"""CIFAR-100 by the paper's recipe: 1 + 200 epochs.

python train.py --config=configs/cifar100.py --workdir=runs/cifar100
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "cifar100"
    config.checkpoint_every = 5
    return config
