"""How large the work of benchmarks is."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import timing
from spatial_smoothing import models
from spatial_smoothing.evaluation.suites.ensemble import SIZES
from spatial_smoothing.models.network import Network

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of the work in all suites.

    Attributes:
      width: Number of channels of the first stage.
      stages: Number of blocks of each stage of a ResNet-18; None for its own.
      batch_sizes: Batch sizes of training.
      eval_batch: Number of images in a batch of evaluation.
      models: Names of the networks that are trained.
      steps: Number of training steps in a timed call.
      sizes: Ensemble sizes.
      rounds: Number of timed turns.
      turn: Least number of seconds in a turn; short functions are called repeatedly.
      clock: Clock, a key of `timing.CLOCKS`.
      copied: Number of bytes that are copied to measure the memory bandwidth.
      side: Side of the matrices that are multiplied to measure the arithmetic.
      torch_compile: Whether there is a peer of compiled PyTorch.
      peers: Whether there are peers of PyTorch.
      limits: What the machine is able to do; see `timing.limits`.
    """

    width: int = 16
    stages: tuple[int, ...] | None = None
    batch_sizes: tuple[int, ...] = (128,)
    eval_batch: int = 64
    models: tuple[str, ...] = ("resnet_dnn_18", "resnet_mcdo_smoothing_18")
    steps: int = 1
    sizes: tuple[int, ...] = SIZES
    rounds: int = 7
    turn: float = 0.1
    clock: str = "wall"
    copied: int = 2**28
    side: int = 2048
    torch_compile: bool = False
    peers: bool = importlib.util.find_spec("torch") is not None
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def model(self, name: str, **fields) -> Network:
        """Builds a network at this scale."""
        if self.stages and name.endswith("_18"):
            fields["stages"] = self.stages
        return models.build(name, num_classes=100, width=self.width, **fields)

    def compare(self, *args, turns: float = 1.0, **options) -> list[Row]:
        """Calls `timing.compare` with this scale, and `turns` times its rounds."""
        rounds = max(2, round(turns * self.rounds))
        return timing.compare(*args, rounds=rounds, clock=self.clock, **options)

    def data(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns random images u8[size, 32, 32, 3], and labels i32[size]."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8)
        return images, rng.integers(0, 100, size).astype(np.int32)


SCALES = {
    "tiny": Scale(
        width=4,
        stages=(1, 1, 1, 1),
        batch_sizes=(8,),
        eval_batch=8,
        models=("resnet_mcdo_smoothing_18",),
        sizes=(1, 2),
        rounds=2,
        turn=0.0,
        copied=2**20,
        side=64,
    ),
    "cpu": Scale(),
    # What both devices of `benchmarks.agreement` compute.
    "agreement": Scale(width=64, batch_sizes=(32,)),
    "gpu": Scale(
        width=64,
        batch_sizes=(128, 512),
        eval_batch=512,
        models=(
            "resnet_dnn_18",
            "resnet_mcdo_smoothing_18",
            "resnet_mcdo_smoothing_50",
        ),
        steps=20,
        rounds=11,
        copied=2**32,
        side=8192,
        torch_compile=True,
    ),
    # For a device that one has for minutes, without what compiles for minutes.
    "gpu_minutes": Scale(
        width=64,
        batch_sizes=(512,),
        eval_batch=500,
        steps=20,
        rounds=5,
        copied=2**32,
        side=8192,
    ),
}
