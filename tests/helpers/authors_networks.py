"""The paper's networks in PyTorch, written for the tests from a description of them.

Modules are called as the paper's authors call them, which is all that a state
dictionary shows. Block dropout, random by nature, keeps some channels and drops others.
"""

import re

import torch
from torch import nn
from torch.nn import functional

# Depth -> convolutions of each stage.
PLAIN = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
# Depth -> blocks of each stage.
RESIDUAL = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Dropout(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        channel = torch.arange(x.shape[1])[:, None, None]
        kept = (7 * channel + 3) % 10 >= round(10 * self.rate)
        return x * kept / (1 - self.rate)


def conv(features_in, features, size, stride=1, groups=1, padding=None):
    padding = size // 2 if padding is None else padding
    return nn.Conv2d(
        features_in, features, size, stride, padding, groups=groups, bias=False
    )


class Residual(nn.Module):
    """Basic with two convolutions, of these widths, or bottleneck with three."""

    def __init__(self, features, widths, stride, groups, *, pre, drifted, rate):
        super().__init__()
        self.depth, self.pre, self.dropout = len(widths), pre, Dropout(rate)
        sizes = (3, 3) if self.depth == 2 else (1, 3, 1)
        strided = sizes.index(3)  # the first 3x3
        before = (features, *widths)
        for i, (size, width) in enumerate(zip(sizes, widths, strict=True)):
            inside = self.depth == 3 and size == 3
            options = (stride if i == strided else 1, groups if inside else 1)
            setattr(self, f"conv{i + 1}", conv(before[i], width, size, *options))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(before[i] if pre else width))
        self.shortcut = nn.Sequential()
        if stride > 1 or features != widths[-1]:
            self.shortcut.append(conv(features, widths[-1], 1, stride))
            if not pre or (drifted and self.depth == 3):
                self.shortcut.append(nn.BatchNorm2d(widths[-1]))

    def forward(self, x):
        y = shortcut = x
        for i in range(1, self.depth + 1):
            layer, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            if self.pre:
                y = functional.relu(norm(y))
                if i == 1 and len(self.shortcut):
                    shortcut = y
            if i == self.depth:
                y = self.dropout(y)
            y = layer(y)
            if not self.pre:
                y = norm(y)
                y = functional.relu(y) if i < self.depth else y
        y = y + self.shortcut(shortcut)
        return y if self.pre else functional.relu(y)


class Plain(nn.Module):
    """A convolution of VGG, or without normalisation of AlexNet."""

    def __init__(
        self, features, width, size, rate, *, norm=False, pre=False, **options
    ):
        super().__init__()
        self.conv = conv(features, width, size, **options)
        if norm:
            self.bn = nn.BatchNorm2d(features if pre else width)
        self.norm, self.pre, self.dropout = norm, pre, Dropout(rate)

    def forward(self, x):
        if self.pre:
            return self.dropout(self.conv(functional.relu(self.bn(x))))
        x = self.conv(x)
        return self.dropout(functional.relu(self.bn(x) if self.norm else x))


class Blur(nn.Module):
    """A depthwise blur that keeps the size."""

    def __init__(self, channels, taps, mode):
        super().__init__()
        taps = torch.tensor(taps, dtype=torch.float64)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        kernel = kernel.to(torch.get_default_dtype()).repeat(channels, 1, 1, 1)
        self.filter = nn.Parameter(kernel, requires_grad=False)
        self.mode = mode

    def forward(self, x):
        extra = self.filter.shape[-1] - 1
        x = functional.pad(x, (extra // 2, extra - extra // 2) * 2, self.mode)
        return functional.conv2d(x, self.filter, groups=x.shape[1])


SQUASHES = {
    "tanh": lambda x, t: functional.relu(t * torch.tanh(x / t)),
    "sigmoid": lambda x, t: functional.relu(4 * t * (torch.sigmoid(x / t) - 1 / 2)),
    "softmax": lambda x, t: functional.relu(t * torch.softmax(x / t, 1)),
    "clip": lambda x, t: x.clip(0, t),
    "scale": lambda x, t: x / t,
    "none": lambda x, t: x,
}


class Smoothing(nn.Module):
    """Blur is "box", None, or taps and the mode of their padding."""

    def __init__(self, channels, *, squash="tanh", t=10.0, blur="box", norm=False):
        super().__init__()
        if norm:
            self.bn = nn.BatchNorm2d(channels)
        self.norm, self.squash, self.t = norm, SQUASHES[squash], t
        self.blur = nn.AvgPool2d(2, 1, 1) if blur == "box" else nn.Identity()
        if isinstance(blur, tuple):
            self.blur = Blur(channels, *blur)

    def forward(self, x):
        return self.blur(self.squash(self.bn(x) if self.norm else x, self.t))


def median(x):
    x = x.flatten(2)
    return x.topk(max(x.shape[-1] // 2, 1), -1).values[..., -1]


class Classifier(nn.Module):
    """Pools a map of features and classifies it."""

    def __init__(self, features, classes, kind, t):
        super().__init__()
        self.kind, self.t = kind, t
        if kind == "bn_gap":
            self.bn = nn.BatchNorm2d(features)
        if kind.endswith("mlp"):
            self.dense1 = nn.Linear(features, 4096)
            self.dense2 = nn.Linear(4096, 4096)
            self.dense3 = nn.Linear(4096, classes)
        else:
            self.dense = nn.Linear(features, classes)

    def forward(self, x):
        if self.kind == "mlp":
            x = x.flatten(1)
        elif self.kind == "max":
            x = x.amax((2, 3))
        elif self.kind == "median":
            x = median(x)
        else:
            x = functional.relu(self.bn(x)) if self.kind == "bn_gap" else x
            x = x.mean((2, 3))
        if self.kind == "gap_clip":
            x = self.t * (torch.sigmoid(x / self.t) - 1 / 2)
        if self.kind.endswith("mlp"):
            x = functional.relu(self.dense2(functional.relu(self.dense1(x))))
            return self.dense3(x)
        return self.dense(x)


class Authors(nn.Module):
    """A network of the paper by its name.

    Args:
      name: As the authors have it.
      classes: K.
      width: Channels of the first stage.
      stages: Blocks of each stage; None for those of the name.
      large: Whether images are about 224x224.
      head: Its kind; None for that of the name.
      t: Of the head "gap_clip".
      smoothing: Options of `Smoothing`.
      rate: Of dropout; None for that of the name.
    """

    def __init__(
        self,
        name,
        classes,
        *,
        width=64,
        stages=None,
        large=False,
        head=None,
        t=2.0,
        smoothing=(),
        rate=None,
    ):
        super().__init__()
        family, method, *rest = name.split("_")
        self.smooth = dict(smoothing) if "smoothing" in rest else None
        pre = family.startswith("pre")
        depth = int(re.sub(r"\D", "", name) or 0)
        if rate is None:
            rate = (0.1 if family == "alexnet" else 0.3) * (method == "mcdo")
        pools, grid = [nn.MaxPool2d(2, 2)], 7
        if family == "alexnet":
            features = self.alexnet(width, rate, large)
            pools, grid = [nn.MaxPool2d(3 if large else 2, 2)], 6 if large else 2
        elif "vgg" in family:
            features = self.vgg(width, stages or PLAIN[depth], rate, pre)
        else:
            inner, groups = (1 if depth >= 50 else 0), 1
            if family == "wideresnet":
                inner = 2
            elif family == "resnext":
                inner, groups = (2 if depth == 50 else 4), 32
            features = self.residual(
                *(width, stages or RESIDUAL[depth], inner, groups, large),
                **{"pre": pre, "drifted": method == "mcdo", "rate": rate},
            )
            pools = []
        kind = head or ("mlp" if pools else "bn_gap" if pre else "gap")
        if kind == "mlp":
            pools.append(nn.AdaptiveAvgPool2d(grid))
            features *= grid**2
        self.classifier = nn.Sequential(*pools, Classifier(features, classes, kind, t))

    def add(self, stage, layers, features):
        """Adds a stage, with smoothing after it unless `features` is None."""
        setattr(self, f"layer{stage}", nn.Sequential(*layers))
        smooth = nn.Sequential()
        if self.smooth is not None and features:
            smooth.append(Smoothing(features, **self.smooth))
        setattr(self, f"smooth{stage}", smooth)

    def alexnet(self, width, rate, large):
        a, b, c, d = width, 3 * width, 6 * width, 4 * width
        size, stride, padding = (11, 4, 2) if large else (3, 2, 1)
        pool = nn.MaxPool2d(3 if large else 2, 2)
        self.add(0, [Plain(3, a, size, rate, stride=stride, padding=padding)], a)
        self.add(1, [pool, Plain(a, b, 5, rate)], b)
        last = [Plain(*pair, 3, rate) for pair in ((b, c), (c, d), (d, d))]
        self.add(2, [pool, *last], d)
        return d

    def vgg(self, width, stages, rate, pre):
        features = 3
        for stage, depth in enumerate(stages):
            layers = [nn.MaxPool2d(2, 2)] if stage else []
            for _ in range(depth):
                out = width * min(2**stage, 8)
                layers.append(Plain(features, out, 3, rate, norm=True, pre=pre))
                features = out
            self.add(stage, layers, features)
        return features

    def residual(self, width, stages, inner, groups, large, *, pre, **options):
        stem = [conv(3, width, 7, 2) if large else conv(3, width, 3)]
        stem += [] if pre else [nn.BatchNorm2d(width), nn.ReLU()]
        stem += [nn.MaxPool2d(3, 2, 1)] if large else []
        self.add(0, stem, None)
        features = width
        for stage, depth in enumerate(stages, 1):
            base, blocks = width << stage - 1, []
            widths = (inner * base, inner * base, 4 * base) if inner else (base, base)
            for block in range(depth):
                stride = 2 if stage > 1 and not block else 1
                sizes = (features, widths, stride, groups)
                blocks.append(Residual(*sizes, pre=pre, **options))
                features = widths[-1]
            last = pre and stage == len(stages)
            self.add(stage, blocks, None if last else features)
        return features

    def forward(self, x):
        for stage in range(5):
            if hasattr(self, f"layer{stage}"):
                x = getattr(self, f"layer{stage}")(x)
                x = getattr(self, f"smooth{stage}")(x)
        return self.classifier(x)
