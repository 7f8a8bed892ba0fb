"""Accelerator chips: what each one has, from the documents of its vendor.

Contract of this file: numbers are of one chip. GB is 10^9 bytes, GiB is 2^30. Peaks are
of dense matrix products, without the factor two of NVIDIA's structured sparsity.
"""

from typing import NamedTuple

from spatial_smoothing.lookup import lookup

_GIB = 2**30
_TPU_DOCS = "Cloud TPU documentation, system architecture"


class Chip(NamedTuple):
    """An accelerator chip.

    Attributes:
      name: Short name, such as "v5e".
      memory: Bytes of its memory that a program may use.
      bandwidth: Bytes/s between this memory and the chip.
      peak_bf16: FLOP/s of products of bfloat16 numbers; None where it is not known.
      peak_f32: FLOP/s of products of float32 numbers at JAX's default precision; None
        where it is not known. At this precision, TPUs round the factors to bfloat16,
        and GPUs round them to TF32.
      source: Where the numbers are from.
    """

    name: str
    memory: float
    bandwidth: float
    peak_bf16: float | None
    peak_f32: float | None
    source: str


# Of the memory of a TPU, libtpu keeps 0.25 to 0.75 GiB for itself. What is left is what
# its compiler names when a program does not fit.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 31.75 * _GIB, 1200e9, 275e12, 275e12, f"{_TPU_DOCS}, v4"),
        Chip("v5e", 15.75 * _GIB, 819e9, 197e12, 197e12, f"{_TPU_DOCS}, v5e"),
        Chip("v5p", 95.74 * _GIB, 2765e9, 459e12, 459e12, f"{_TPU_DOCS}, v5p"),
        Chip("v6e", 31.25 * _GIB, 1640e9, 918e12, 918e12, f"{_TPU_DOCS}, v6e"),
        Chip(
            "a100",
            85_100_068_864,
            2039e9,
            312e12,
            156e12,
            "NVIDIA A100 data sheet, SXM 80 GB",
        ),
        Chip(
            "h100",
            84_942_979_072,
            3350e9,
            989.4e12,
            494.7e12,
            "NVIDIA H100 data sheet, SXM 80 GB",
        ),
        Chip(
            "h200",
            151_397_597_184,
            4800e9,
            989.4e12,
            494.7e12,
            "NVIDIA H200 data sheet, SXM 141 GB",
        ),
        Chip(
            "b200",
            191_514_411_008,
            8000e9,
            2250e12,
            1100e12,
            "NVIDIA Blackwell architecture brief, HGX B200",
        ),
    )
}


def chip(name: str) -> Chip:
    """Returns the chip of a name.

    Args:
      name: Key of `CHIPS`, such as "v5e" or "h200".

    Raises:
      ValueError: There is no such chip; the message names the nearest and all others.
    """
    return lookup(CHIPS, name, "chip")
