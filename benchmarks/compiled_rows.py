"""The rows of `benchmarks.compiled`: what is compiled, for which chips, in which order.

Contract of this file: a row is data, and its key is its name in the JSON file. Nothing
here compiles anything, and no library of a compiler has to be installed.
"""

import dataclasses
import itertools
from collections.abc import Iterator

TPU, GPU = "tpu", "h200"
PLATFORMS = {TPU: ("tpu", "tpu"), GPU: ("cuda", "gpu")}
"""Platform -> its name in JAX, and the extra to install for its compiler."""

CHIP, SLICE, POD = "v5e:1x1", "v5e:4x4", "v5e:16x16"
"""Topologies: one chip, 16 chips and 256 chips of TPU v5e."""

OURS, PEER = "ours", "peer"
DTYPES = ("bfloat16", "float32")
MAPS = ("32x32x64", "17x17x128", "9x9x256", "5x5x512")
"""Feature maps [H, W, C] that are smoothed: one for each stage of a ResNet-18."""

CIFAR = ("resnet_dnn_18", "resnet_mcdo_18", "resnet_mcdo_smoothing_18")
IMAGENET = ("resnet_dnn_50", "resnet_mcdo_smoothing_50")
GENERATORS = ("shot_noise", "elastic_transform", "glass_blur")
CHUNKS = (1, 10)


@dataclasses.dataclass(frozen=True)
class Row:
    """One program for one topology.

    Attributes:
      topology: Name of a topology: `CHIP`, `SLICE`, `POD` or `GPU`.
      program: Name of the program, a key of `compiled_programs.PROGRAMS`.
      case: What the program works on: a feature map, a network, or a corruption.
      size: Number of images of a device.
      dtype: Compute type.
      rival: `OURS`, or `PEER`, the same work written plainly with Flax.
    """

    topology: str
    program: str
    case: str
    size: int
    dtype: str
    rival: str = OURS

    @property
    def key(self) -> str:
        """The name of the row, which `--rows` is matched with."""
        names = (self.program, self.case, self.size, self.dtype, self.rival)
        return " ".join(map(str, (self.topology, *names)))

    @property
    def platform(self) -> str:
        """`TPU` or `GPU`."""
        return GPU if self.topology == GPU else TPU

    @property
    def peer(self) -> "Row":
        """The row of the peer that this one is compared with."""
        return dataclasses.replace(self, rival=PEER)

    @property
    def group(self) -> str:
        """What rows that are shown together have in common."""
        return f"{self.topology}, {self.program}, {self.dtype}"


def smoothing(
    topology: str, program: str, *, rivals: tuple[str, ...] = (OURS,)
) -> Iterator[Row]:
    """Yields the rows of the smoothing op, or of its gradient.

    Args:
      topology: Name of a topology.
      program: "smooth" or "smooth_gradient".
      rivals: `OURS`, `PEER` or both.
    """
    for shape, dtype, rival in itertools.product(MAPS, DTYPES, rivals):
        yield Row(topology, program, shape, 128, dtype, rival)


def mc_dropout(
    topology: str,
    dtype: str,
    *,
    cases: tuple[str, ...] = CIFAR[1:],
    rivals: tuple[str, ...] = (OURS,),
) -> Iterator[Row]:
    """Yields the rows of the pass of 50 dropout samples.

    Args:
      topology: Name of a topology.
      dtype: Compute type.
      cases: Names of the networks.
      rivals: `OURS`, `PEER` or both.
    """
    for case, chunk, rival in itertools.product(cases, CHUNKS, rivals):
        yield Row(topology, f"mc_dropout_{chunk}", case, 500, dtype, rival)


def every_row() -> Iterator[Row]:
    """Yields all rows, those of a chip before those of many, cheap ones first.

    A whole network takes the compiler of TPUs minutes, and that of GPUs 15 s.
    """
    both = (OURS, PEER)
    for topology in (CHIP, GPU):
        for program in ("smooth", "smooth_gradient"):
            yield from smoothing(topology, program, rivals=both)
    for topology, dtype, rival in itertools.product((GPU, CHIP), DTYPES, both):
        for size, case in itertools.product((128, 512), CIFAR):
            yield Row(topology, "step", case, size, dtype, rival)
        for case in IMAGENET:
            yield Row(topology, "step", case, 64, dtype, rival)
        yield from mc_dropout(topology, dtype, rivals=(rival,))
        for program in ("landscape", "hvp"):
            yield Row(topology, program, CIFAR[-1], 128, dtype, rival)
    for case in GENERATORS:
        yield Row(CHIP, "corruption", case, 1000, "float32")
    for case in CIFAR:
        yield Row(SLICE, "step", case, 128, "bfloat16")
    yield Row(POD, "step", "resnet_dnn_50", 32, "bfloat16")
