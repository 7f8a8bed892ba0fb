"""The paper's recipe for CIFAR-100: 1 epoch of warm-up and 200 epochs.

python train.py --config=cifar100 --workdir=runs/cifar100
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "cifar100"
    config.checkpoint_every = 5
    return config
