"""Every field of a config, with the paper's CIFAR recipe as default.

Override any of them on the command line, as in `--config.seed=1`.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the config that the others start from."""
    config = ConfigDict()

    # Network. `None` fields keep the model's own value; see `models.build`.
    config.model = "resnet_mcdo_smoothing_18"  # one of models.names()
    config.stem = "cifar"  # "cifar" (3x3) or "imagenet" (7x7, stride 2, pool)
    config.width = 64  # channels of the first stage
    config.dtype = "float32"  # compute type: "float32" or "bfloat16"
    config.stages = config_dict.placeholder(tuple)  # blocks of each stage
    config.rate = config_dict.placeholder(float)  # dropout probability, [0, 1)
    config.mc_stages = config_dict.placeholder(tuple)  # where dropout is; all stages
    config.smoothing = config_dict.placeholder(tuple)  # smoothing layers a stage
    config.temperature = config_dict.placeholder(float)  # of smoothing, > 0
    config.squash = config_dict.placeholder(str)  # tanh sigmoid softmax clip scale none
    config.taps = config_dict.placeholder(tuple)  # 1-D blur kernel
    config.padding = config_dict.placeholder(str)  # full zero reflect edge wrap
    config.smoothing_norm = config_dict.placeholder(bool)  # batch norm before smoothing
    config.head = config_dict.placeholder(str)  # gap bn_gap max median gap_clip mlp ...
    config.head_temperature = config_dict.placeholder(float)  # of gap_clip, > 0

    # Data.
    config.dataset = "cifar100"  # cifar10, cifar100, shapes, imagenet or folder:PATH
    config.data_dir = config_dict.placeholder(str)  # of TFDS; its own default if None
    config.download = False  # prepare the data set if it is not there
    config.augment = True  # flip and crop: pad 4; 8 to 100 % of ImageNet's and folders'
    config.image_size = config_dict.placeholder(int)  # pixels, of ImageNet and folders
    config.val_fraction = 0.0  # of the training split, held out; [0, 1)

    # Optimisation.
    config.seed = 0
    config.members = 1  # of a deep ensemble, trained at once; member m has seed + m
    config.epochs = 200  # after warm-up
    config.warmup_epochs = 1  # on top, learning rate rising from 0
    config.batch_size = 128  # examples a step, over all devices
    config.learning_rate = 0.1  # after warm-up
    config.milestones = (60, 120, 160)  # epochs after warm-up
    config.factor = 0.2  # of the learning rate at each milestone
    config.momentum = 0.9
    config.weight_decay = 5e-4  # coupled L2 on all parameters

    # Speed and monitoring. None of these changes what is trained.
    config.num_workers = 0  # processes that decode images; 0 for threads
    config.eval_every = 1  # epochs
    config.eval_batch_size = 128  # examples; draws of dropout in test_* depend on it
    config.checkpoint_every = 1  # epochs
    config.checkpoint_minutes = 10.0  # within an epoch, since the last; 0 for not
    config.max_to_keep = 3  # checkpoints
    config.shard_state = False  # split parameters and optimiser state over devices
    return config
