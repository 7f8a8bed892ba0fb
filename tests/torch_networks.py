"""The networks in PyTorch, written for the tests of `convert` alone.

The modules are called as torchvision or as the paper's authors call them, which is all
that a state dictionary shows.
"""

import torch
from torch import nn
from torch.nn import functional


def conv(features_in, features, size, stride=1, groups=1, bias=False):
    return nn.Conv2d(
        features_in, features, size, stride, size // 2, groups=groups, bias=bias
    )


class Block(nn.Module):
    """A residual block; its shortcut is called `shortcut` or `downsample`."""

    def __init__(self, sizes, stride, groups, shortcut, preactivation):
        super().__init__()
        self.called, self.preactivation = shortcut, preactivation
        plan = [(3, stride, 1), (3, 1, 1)]
        if len(sizes) == 4:
            plan = [(1, 1, 1), (3, stride, groups), (1, 1, 1)]
        for i, options in enumerate(plan, 1):
            setattr(self, f"conv{i}", conv(sizes[i - 1], sizes[i], *options))
            normalised = sizes[i - 1] if preactivation else sizes[i]
            setattr(self, f"bn{i}", nn.BatchNorm2d(normalised))
        self.depth = len(plan)
        projection = nn.Sequential()
        if stride > 1 or sizes[0] != sizes[-1]:
            projection.append(conv(sizes[0], sizes[-1], 1, stride))
            if not preactivation:
                projection.append(nn.BatchNorm2d(sizes[-1]))
        setattr(self, shortcut, projection)

    def forward(self, x):
        layers = [
            (getattr(self, f"conv{i}"), getattr(self, f"bn{i}"))
            for i in range(1, self.depth + 1)
        ]
        shortcut = getattr(self, self.called)
        if self.preactivation:
            y = functional.relu(layers[0][1](x))
            residual = shortcut(y) if len(shortcut) else x
            y = layers[0][0](y)
            for layer, norm in layers[1:]:
                y = layer(functional.relu(norm(y)))
            return y + residual
        y = x
        for i, (layer, norm) in enumerate(layers, 1):
            y = norm(layer(y))
            y = functional.relu(y) if i < self.depth else y
        return functional.relu(y + shortcut(x))


def stages(width, depths, *, expansion, inner, groups, shortcut, preactivation=False):
    """Returns the stages and their last number of channels."""
    result, features = [], width
    for stage, depth in enumerate(depths):
        base, blocks = width * 2**stage, []
        for block in range(depth):
            out = base * expansion
            middle = [base * inner] * 2 if expansion == 4 else [base]
            stride = 2 if stage and not block else 1
            sizes = [features, *middle, out]
            blocks.append(Block(sizes, stride, groups, shortcut, preactivation))
            features = out
        result.append(nn.Sequential(*blocks))
    return result, features


class TorchvisionResNet(nn.Module):
    def __init__(self, width, depths, classes, *, large=False, **options):
        super().__init__()
        self.conv1 = conv(3, width, 7, 2) if large else conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        found, features = stages(width, depths, shortcut="downsample", **options)
        for i, stage in enumerate(found, 1):
            setattr(self, f"layer{i}", stage)
        self.depth = len(found)
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        x = self.pool(functional.relu(self.bn1(self.conv1(x))))
        for i in range(1, self.depth + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class Blur(nn.Module):
    """A depthwise blur that keeps the size, zeros outside."""

    def __init__(self, channels, taps):
        super().__init__()
        taps = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        kernel = kernel.repeat(channels, 1, 1, 1)
        self.filter = nn.Parameter(kernel, requires_grad=False)

    def forward(self, x):
        padding = self.filter.shape[-1] // 2
        return functional.conv2d(x, self.filter, padding=padding, groups=x.shape[1])


class Smoothing(nn.Module):
    def __init__(self, channels, taps):
        super().__init__()
        self.blur = Blur(channels, taps)

    def forward(self, x):
        return self.blur(functional.relu(10 * torch.tanh(x / 10)))


class Classifier(nn.Module):
    """Global average, after normalisation and ReLU if `norm`."""

    def __init__(self, features, classes, norm):
        super().__init__()
        if norm:
            self.bn = nn.BatchNorm2d(features)
        self.dense = nn.Linear(features, classes)

    def forward(self, x):
        if hasattr(self, "bn"):
            x = functional.relu(self.bn(x))
        return self.dense(x.mean((2, 3)))


class AuthorsResNet(nn.Module):
    def __init__(self, width, depths, classes, *, taps=None, preactivation=False, **o):
        super().__init__()
        self.layer0 = nn.Sequential(conv(3, width, 3))
        if not preactivation:
            self.layer0.extend([nn.BatchNorm2d(width), nn.ReLU()])
        found, features = stages(
            width, depths, shortcut="shortcut", preactivation=preactivation, **o
        )
        for i, stage in enumerate(found, 1):
            smooth = nn.Sequential()
            if taps:
                smooth.append(Smoothing(width * 2 ** (i - 1) * o["expansion"], taps))
            setattr(self, f"layer{i}", stage)
            setattr(self, f"smooth{i}", smooth)
        self.depth = len(found)
        self.classifier = nn.Sequential(Classifier(features, classes, preactivation))

    def forward(self, x):
        x = self.layer0(x)
        for i in range(1, self.depth + 1):
            x = getattr(self, f"smooth{i}")(getattr(self, f"layer{i}")(x))
        return self.classifier(x)


def mlp(features, classes, order):
    """Three dense layers among ReLU ("r") and dropout ("d"), as torchvision has it."""
    dense = iter(
        [nn.Linear(features, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)]
    )
    make = {"r": nn.ReLU, "d": nn.Dropout, "l": lambda: next(dense)}
    return nn.Sequential(*(make[letter]() for letter in order))


class TorchvisionVGG(nn.Module):
    """VGG with batch normalisation; `plan` has "M" for pools."""

    def __init__(self, plan, classes):
        super().__init__()
        layers, features = [], 3
        for entry in plan:
            if entry == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [conv(features, entry, 3, bias=True), nn.BatchNorm2d(entry)]
            layers.append(nn.ReLU())
            features = entry
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = mlp(features * 49, classes, "lrdlrdl")

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class TorchvisionAlexNet(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        a, b, c, d = width, 3 * width, 6 * width, 4 * width
        pool, relu = nn.MaxPool2d(3, 2), nn.ReLU()
        first = nn.Conv2d(3, a, 11, 4, 2)
        self.features = nn.Sequential(
            *(first, relu, pool, conv(a, b, 5, bias=True), relu, pool),
            *(conv(b, c, 3, bias=True), relu, conv(c, d, 3, bias=True), relu),
            *(conv(d, d, 3, bias=True), relu, pool),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = mlp(36 * d, classes, "dlrdlrl")

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def randomize(network, seed=0):
    """Draws every number of a network, statistics included, and ends its training."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if key.endswith(("num_batches_tracked", "filter")):
            continue
        drawn = torch.rand(value.shape, generator=generator)
        if key.endswith("running_var") or (value.ndim == 1 and "weight" in key):
            value.copy_(0.5 + drawn)
        else:
            fan_in = value[0].numel() if value.ndim > 1 else 12
            value.copy_((2 * drawn - 1) * (6 / fan_in) ** 0.5)
    return network.eval()
