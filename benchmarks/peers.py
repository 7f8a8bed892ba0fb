"""The same work in PyTorch, as a user of PyTorch writes it.

Contract of this file: imported where PyTorch is installed only. Functions return rivals
of `timing`. Networks are those that the tests convert weights from; convolutions are in
the channels_last format. On a GPU the compiled peer has automatic mixed precision.
"""

import functools
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from tests.helpers import authors_networks

torch.set_num_threads(len(os.sched_getaffinity(0)))  # its default may be more
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network(
    name: str, *, width: int, stages: Sequence[int], num_classes: int = 100
) -> torch.nn.Module:
    """Returns a network of the paper, by its name, with random dropout."""
    built = authors_networks.Authors(name, num_classes, width=width, stages=stages)
    for module in list(built.modules()):
        for child, dropout in module.named_children():
            if isinstance(dropout, authors_networks.Dropout):
                setattr(module, child, _Dropout(dropout.rate))
    return built.to(DEVICE, memory_format=torch.channels_last)


class _Dropout(torch.nn.Dropout):
    """Dropout that is active in evaluation mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.p, training=True) if self.p else x


def batch(images: np.ndarray) -> torch.Tensor:
    """Returns images f32[B, H, W, 3] as a tensor f32[B, 3, H, W] on the device."""
    tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(DEVICE)
    return tensor.contiguous(memory_format=torch.channels_last)


def training_step(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int = 1,
    compiled: bool = False,
) -> Callable[[], None]:
    """Makes steps of SGD on one batch, without the augmentation that our step has."""
    x, y = batch(images), torch.from_numpy(labels).long().to(DEVICE)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
    )
    forward = torch.compile(model) if compiled else model
    mixed = torch.autocast(
        DEVICE, torch.bfloat16, enabled=compiled and DEVICE == "cuda"
    )
    model.train()

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with mixed:
                loss = functional.cross_entropy(forward(x), y)
            loss.backward()
            optimizer.step()
        _wait()

    return run


def first_step(name: str, *, width: int, stages: Sequence[int], size: int) -> None:
    """Makes one training step; see `start`."""
    images = np.zeros((size, 32, 32, 3), np.float32)
    model = network(name, width=width, stages=stages)
    training_step(model, images, np.zeros(size, np.int32))()


@torch.no_grad()
def _mean_probs(model: torch.nn.Module, x: torch.Tensor, count: int) -> torch.Tensor:
    return sum(functional.softmax(model(x), -1) for _ in range(count)) / count


def mc_dropout_table(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    sizes: Sequence[int],
    shared: bool,
) -> Callable[[], list[dict[str, float]]]:
    """Returns a function that computes NLL, accuracy, Brier score and ECE of each size.

    Args:
      model: Network with dropout.
      images: Images, f32[B, H, W, 3].
      labels: Labels, i32[B].
      sizes: Ensemble sizes, increasing.
      shared: Whether the passes of a size are part of those of the next; the paper's
        code makes new ones.
    """
    x, y = batch(images), torch.from_numpy(labels).long().to(DEVICE)
    model.eval()

    def run() -> list[dict[str, float]]:
        rows, total, made = [], 0.0, 0
        for size in sizes:
            if shared:
                new = size - made
                total = total + _mean_probs(model, x, new) * new
                made, probs = size, total / size
            else:
                probs = _mean_probs(model, x, size)
            rows.append(_scores(probs, y))
        return rows

    return run


def _scores(probs: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    confidence, predicted = probs.max(-1)
    correct = (predicted == y).float()
    of = probs.gather(1, y[:, None])[:, 0]
    ece = 0.0
    for low in torch.linspace(0, 0.9, 10):
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            gap = (confidence[inside].mean() - correct[inside].mean()).abs()
            ece += (gap * inside.float().mean()).item()
    return {
        "nll": -of.log().mean().item(),
        "accuracy": correct.mean().item(),
        "brier": (probs.square().sum(-1) - 2 * of + 1).mean().item(),
        "ece": ece,
    }


def landscape_point(
    model: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> Callable[[], float]:
    """Moves the weights along two directions, predicts, and moves them back."""
    x, y = batch(images), torch.from_numpy(labels).long().to(DEVICE)
    center = [p.detach().clone() for p in model.parameters()]
    directions = [[torch.randn_like(p) * 0.01 for p in center] for _ in range(2)]
    model.eval()

    @torch.no_grad()
    def run() -> float:
        for p, c, a, b in zip(model.parameters(), center, *directions, strict=True):
            p.copy_(c + 0.1 * a + 0.1 * b)
        return functional.cross_entropy(model(x), y).item()

    return run


def smoothing(
    x: np.ndarray, *, bfloat16: bool, backward: bool
) -> Callable[[], torch.Tensor]:
    """Computes tanh, ReLU and an average pool, forward or forward and backward."""
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    layer = authors_networks.Smoothing(x.shape[-1])
    x = batch(x).to(dtype).requires_grad_(backward)
    gradient = torch.ones_like(layer(x))

    def run() -> torch.Tensor:
        with torch.set_grad_enabled(backward):
            y = layer(x)
        result = torch.autograd.grad(y, x, gradient)[0] if backward else y
        _wait()
        return result

    return run


_wait = torch.cuda.synchronize if DEVICE == "cuda" else functools.partial(int, 0)
