"""Every field of a config, with the paper's recipe for CIFAR as default.

Any field can be set on the command line, as in `--config.seed=1`. The comment above a
field is its text in `train.py --help`.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the config that the other configs start from."""
    config = ConfigDict()

    # The network. A field that is None leaves the network's own value.

    # Name of the network; `models.names()` lists all of them.
    config.model = "resnet_mcdo_smoothing_18"
    # First layers: "cifar" is a 3x3 convolution, "imagenet" a 7x7 convolution of stride
    # 2 and a max pool of stride 2.
    config.stem = "cifar"
    # Number of channels of the first stage; other stages have multiples of it. None is
    # 64, and 16 times the widening factor of a WRN.
    config.width = config_dict.placeholder(int)
    # Type in which the network computes; parameters are always float32.
    config.dtype = "float32"
    # Number of blocks of each stage, as in 2,2,2,2.
    config.stages = config_dict.placeholder(tuple)
    # Probability with which dropout drops a value.
    config.rate = config_dict.placeholder(float)
    # Rates of dropout of each stage in place of one rate, as in 0,0,0.1,0.3; one more,
    # of the head, where mc_stages names it.
    config.stage_rates = config_dict.placeholder(tuple)
    # What one draw of dropout decides: one value of a feature map, or a whole channel.
    config.mask = config_dict.placeholder(str)
    # Where a stage has dropout: "residual" is the paper's, in front of the last
    # convolution of a block; "all" is also behind the stem, in front of and behind all
    # convolutions of a block; "last" is in front of the last dense layer alone.
    config.dropout_placement = config_dict.placeholder(str)
    # Stages that have dropout, as in 3,4 or 4,head; None is all stages.
    config.mc_stages = config_dict.placeholder(tuple)
    # Number of smoothing layers after each stage, as in 1,1,1,0.
    config.smoothing = config_dict.placeholder(tuple)
    # Temperature t of smoothing, as in t * tanh(x / t).
    config.temperature = config_dict.placeholder(float)
    # Function that smoothing applies before it blurs.
    config.squash = config_dict.placeholder(str)
    # Blur kernel along one axis, as in 1,2,1; it is normalised to the sum 1.
    config.taps = config_dict.placeholder(tuple)
    # Padding of the blur: "full" grows the map by one, the others keep its size.
    config.padding = config_dict.placeholder(str)
    # Whether smoothing begins with a batch normalisation.
    config.smoothing_norm = config_dict.placeholder(bool)
    # Classification head, from the last feature map to the logits.
    config.head = config_dict.placeholder(str)
    # Temperature of the head gap_clip.
    config.head_temperature = config_dict.placeholder(float)
    # How one pass makes several predictions; None is one prediction.
    config.ensemble = config_dict.placeholder(str)
    # Number of predictions of a pass, if there is an ensemble; None is 4.
    config.ensemble_size = config_dict.placeholder(int)
    # Of the ensemble packed: channels of all members together, in units of those of a
    # single network; None is 2.
    config.alpha = config_dict.placeholder(float)
    # Of the ensemble packed: groups of the channels of each member; None is 1.
    config.gamma = config_dict.placeholder(int)
    # Of the ensemble masksembles: how little masks overlap; 1 makes all equal, None is
    # 2.
    config.scale = config_dict.placeholder(float)
    # Of the ensemble mimo: probability that all members see the same image in training;
    # None is 0.
    config.repetition = config_dict.placeholder(float)
    # Of the ensemble mimo: how often a training batch has each image; None is 1.
    config.batch_repetitions = config_dict.placeholder(int)
    # Bound of the largest singular value of the kernels of convolutions, as in 3.0,
    # with which DDU trains; None is no bound.
    config.spectral_bound = config_dict.placeholder(float)

    # The data.

    # Data set: cifar10, cifar100, shapes, imagenet, folder:PATH (a folder of images),
    # tfds:NAME (a set that TFDS prepared), npz:FILE or hf:NAME (of Hugging Face). For
    # segmentation: moving_shapes, camvid, cityscapes, masks:PATH (images and masks).
    config.dataset = "cifar100"
    # Directory of TFDS, or of camvid its folder; None is TFDS's default,
    # ~/tensorflow_datasets.
    config.data_dir = config_dict.placeholder(str)
    # Whether to download and prepare CIFAR where the directory does not have it.
    config.download = False
    # Whether to flip and crop training images: CIFAR's are padded by 4 pixels, the crop
    # of ImageNet's and those of folders has 8 to 100 % of the area. For segmentation,
    # images and labels are scaled by 0.75 to 1.5, cropped and flipped together.
    config.augment = True
    # Height and width in pixels to which images of ImageNet and folders are resized; of
    # segmentation the height, and the width keeps the shape of the images.
    config.image_size = config_dict.placeholder(int)
    # Part of the training split that is trained on, as in train[:10%]; None is all.
    config.train_split = config_dict.placeholder(str)
    # Mean of each channel, in [0, 1], to normalise by; None is that of the data set, or
    # of the run or data set that init_from was trained on.
    config.mean = config_dict.placeholder(tuple)
    # Standard deviation of each channel, in [0, 1]; None as for the mean.
    config.std = config_dict.placeholder(tuple)
    # Fraction of the training split that is held out for validation.
    config.val_fraction = 0.0

    # Fine-tuning.

    # Workdir of a run, or file with PyTorch weights, to start from; None starts from
    # random values. Where the number of classes differs, the head is drawn anew.
    config.init_from = config_dict.placeholder(str)
    # Parts of the network that keep their weights, as in stem,stage1.
    config.freeze = config_dict.placeholder(tuple)
    # Factor of the learning rate of all parts of the network but the head.
    config.backbone_factor = 1.0

    # The optimisation.

    # Seed of initial values, order of examples, augmentation and dropout.
    config.seed = 0
    # Number of networks that are trained at once, as a deep ensemble; the seed of
    # member m is seed + m.
    config.members = 1
    # Number of epochs after the warm-up.
    config.epochs = 200
    # Number of epochs before these, in which the learning rate rises from 0.
    config.warmup_epochs = 1
    # Number of examples in a training step, over all devices.
    config.batch_size = 128
    # Learning rate after the warm-up.
    config.learning_rate = 0.1
    # Batch size that the learning rate is for: it is multiplied by the number of
    # different examples in a step over this one. None multiplies by nothing.
    config.learning_rate_batch = config_dict.placeholder(int)
    # How the learning rate falls after the warm-up: "multistep" at the milestones,
    # "cosine" with every step, to 0 at the end.
    config.schedule = "multistep"
    # Epochs after the warm-up at which the learning rate is multiplied by the factor.
    config.milestones = (60, 120, 160)
    # Factor of the learning rate at each milestone.
    config.factor = 0.2
    # The optimiser: sgd, adam or adamw.
    config.optimizer = "sgd"
    # Momentum of SGD; of Adam and AdamW, the decay of the mean of the
    # gradients (beta1).
    config.momentum = 0.9
    # Whether the momentum is Nesterov's.
    config.nesterov = False
    # Weight decay on all parameters: coupled L2 of SGD and Adam, decoupled of AdamW.
    config.weight_decay = 5e-4
    # Weights of the classes in the loss of segmentation: a number for each class, or
    # median_frequency, the median of the frequencies of all classes by that of each.
    # None is the same weight for all.
    config.class_weights = config_dict.placeholder(tuple)
    # Probability that the targets move from the label to all classes alike.
    config.label_smoothing = 0.0
    # Alpha of mixup: images are mixed with weights of Beta(alpha, alpha); 0 is none.
    config.mixup = 0.0
    # Decay of the exponential moving average of the parameters, as in 0.999, which is
    # evaluated in their place; 0 is none.
    config.ema = 0.0
    # Number of times that each example is in a step, with dropout masks of its own each
    # time. The batch size counts all of them: a step costs the same, an epoch has so
    # many times the steps.
    config.train_samples = 1
    # Loss of these samples: "mean" is the mean of their losses, "of_mean" is the loss
    # of their mean prediction.
    config.train_samples_loss = "mean"

    # Speed and monitoring. None of these fields changes what is trained.

    # Number of processes that decode images; 0 decodes them in threads.
    config.num_workers = 0
    # Number of epochs between two evaluations; the last epoch is always evaluated.
    config.eval_every = 1
    # Number of examples in a batch of these evaluations. The random bits of dropout
    # depend on it, and so the logged scores of a network with dropout do.
    config.eval_batch_size = 128
    # Number of epochs between two checkpoints; the last epoch always has one.
    config.checkpoint_every = 1
    # Minutes after which a checkpoint is saved within an epoch; 0 saves none there.
    config.checkpoint_minutes = 10.0
    # Number of checkpoints that are kept.
    config.max_to_keep = 3
    # Whether parameters and optimizer state are split over the devices.
    config.shard_state = False
    return config
