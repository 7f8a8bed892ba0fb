"""Improved Monte Carlo dropout of uncertainty-baselines: WRN-28-10 on CIFAR-100.

python train.py --config=cifar100_improved --workdir=runs/cifar100_improved

Dropout is everywhere and drops channels, and each example is in a step four times. The
smoothed network is --config.model=wrn_mcdo_smoothing_28_10.
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "cifar100"
    config.model = "wrn_mcdo_28_10"
    config.rate = 0.1
    config.mask = "channel"
    config.dropout_placement = "all"
    # Their text does not say how many times; their training took 4.7 times as long.
    config.train_samples = 4
    config.batch_size = 512
    config.learning_rate = 0.05
    config.learning_rate_batch = 128
    config.nesterov = True
    # They add 3e-4 times the squares of the parameters, the gradient of which has a 2.
    config.weight_decay = 6e-4
    config.checkpoint_every = 5
    return config
