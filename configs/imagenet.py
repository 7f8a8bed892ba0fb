"""The recipe of the paper's code for ImageNet: 1 epoch of warm-up and 90 epochs.

python train.py --config=imagenet --workdir=runs/imagenet

TFDS prepares the data set once, on a machine with TensorFlow:
tfds build imagenet2012 --file_format=array_record

The config also trains on a folder of images, PATH/train/CLASS/*.jpg and
PATH/test/CLASS/*.jpg (or val/ in place of test/): --config.dataset=folder:PATH
"""

from ml_collections import ConfigDict

from spatial_smoothing.configs import common


def get_config() -> ConfigDict:
    """Returns the config."""
    config = common.get_config()
    config.dataset = "imagenet"
    config.model = "resnet_mcdo_smoothing_50"
    config.stem = "imagenet"
    config.rate = 0.05
    config.epochs = 90
    config.batch_size = 256
    config.eval_batch_size = 256
    config.milestones = (30, 60, 80)
    config.factor = 0.1
    config.weight_decay = 1e-4
    return config
