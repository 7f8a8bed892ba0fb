"""torchvision's networks in PyTorch, written for the tests.

Modules are called as in torchvision, which is all that a state dictionary shows.
"""

import torch
from torch import nn
from torch.nn import functional


def conv(features_in, features, size, stride=1, groups=1, bias=False):
    return nn.Conv2d(
        features_in, features, size, stride, size // 2, groups=groups, bias=bias
    )


class Block(nn.Module):
    """A residual block."""

    def __init__(self, features, widths, stride, groups):
        super().__init__()
        self.depth = len(widths)
        plan = [(3, stride, 1), (3, 1, 1)]
        if self.depth == 3:
            plan = [(1, 1, 1), (3, stride, groups), (1, 1, 1)]
        before = (features, *widths)
        for i, (width, options) in enumerate(zip(widths, plan, strict=True)):
            setattr(self, f"conv{i + 1}", conv(before[i], width, *options))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(width))
        self.downsample = nn.Sequential()
        if stride > 1 or features != widths[-1]:
            shortcut = conv(features, widths[-1], 1, stride)
            self.downsample.extend([shortcut, nn.BatchNorm2d(widths[-1])])

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = functional.relu(y) if i < self.depth else y
        return functional.relu(y + self.downsample(x))


class TorchvisionResNet(nn.Module):
    def __init__(self, width, depths, classes, *, inner=0, groups=1, large=False):
        """Basic blocks, or bottlenecks of an inner width in units of the stage's."""
        super().__init__()
        self.conv1 = conv(3, width, 7, 2) if large else conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        features, self.depth = width, len(depths)
        for stage, depth in enumerate(depths):
            base = width << stage
            widths = (inner * base, inner * base, 4 * base) if inner else (base, base)
            blocks = []
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Block(features, widths, stride, groups))
                features = widths[-1]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        x = self.pool(functional.relu(self.bn1(self.conv1(x))))
        for i in range(1, self.depth + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


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
