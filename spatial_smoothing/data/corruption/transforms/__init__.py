"""The corruptions of CIFAR-C and ImageNet-C, made on the device for any images.

Each is a pure function of (key, image, constants) of one image, mapped over a batch.
Image number i of a data set has the key `fold_in(key, i)`, whatever the batch. Images
are u8[B, H, H, 3]; functions compute in f32, and results are clipped and truncated to 8
bits. Results do not depend on JAX_ENABLE_X64 or JAX_NUMPY_DTYPE_PROMOTION.

Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations" (2019), and the code that made CIFAR-10-C and ImageNet-C.
Their random numbers cannot be drawn again: what is random here has the same
distribution, not the same values.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import (
    blur,
    digital,
    noise,
    spatter,
    weather,
)
from spatial_smoothing.lookup import lookup, unknown

SEVERITIES = (1, 2, 3, 4, 5)
SEED = 0  # seed of the key in evaluations, so that all see the same images


class Corruption(NamedTuple):
    """A corruption and its constants, one tuple per severity.

    Attributes:
      function: Called as `function(key, image, *constants)`.
      cifar: Constants for 32x32 pixels, those of CIFAR-10-C.
      imagenet: Constants for 224x224 pixels, those of ImageNet-C.
      traced: Whether constants may be traced, so that one compilation serves all
        severities; else they decide sizes or are used on the host.
      deviation: A word for how it departs from the published one; empty if it does not.
    """

    function: Callable[..., jax.Array]
    cifar: tuple[tuple, ...]
    imagenet: tuple[tuple, ...]
    traced: bool = False
    deviation: str = ""


def _one(*values: float) -> tuple[tuple[float], ...]:
    return tuple((value,) for value in values)


# In the order of the paper. ImageNet-C's elastic constants are in units of 244 pixels.
CORRUPTIONS = {
    "gaussian_noise": Corruption(
        noise.gaussian_noise,
        _one(0.04, 0.06, 0.08, 0.09, 0.10),
        _one(0.08, 0.12, 0.18, 0.26, 0.38),
        traced=True,
    ),
    "shot_noise": Corruption(
        noise.shot_noise, _one(500, 250, 100, 75, 50), _one(60, 25, 12, 5, 3)
    ),
    "impulse_noise": Corruption(
        noise.impulse_noise,
        _one(0.01, 0.02, 0.03, 0.05, 0.07),
        _one(0.03, 0.06, 0.09, 0.17, 0.27),
        traced=True,
    ),
    "defocus_blur": Corruption(
        blur.defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        blur.glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        blur.motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        deviation="emulated",  # ImageMagick's, by its formula
    ),
    "zoom_blur": Corruption(
        blur.zoom_blur,
        ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
        ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
    ),
    "snow": Corruption(
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        deviation="emulated",  # the motion blur of its flakes
    ),
    "frost": Corruption(
        weather.frost,
        ((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
        ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        deviation="procedural",  # textures in place of photographs
    ),
    "fog": Corruption(
        weather.fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        traced=True,
    ),
    "brightness": Corruption(
        weather.brightness,
        _one(0.05, 0.1, 0.15, 0.2, 0.3),
        _one(0.1, 0.2, 0.3, 0.4, 0.5),
        traced=True,
    ),
    "contrast": Corruption(
        digital.contrast,
        _one(0.75, 0.5, 0.4, 0.3, 0.15),
        _one(0.4, 0.3, 0.2, 0.1, 0.05),
        traced=True,
    ),
    "elastic_transform": Corruption(
        digital.elastic_transform,
        (
            (0, 0, 2.56),
            (1.6, 6.4, 2.24),
            (2.56, 1.92, 1.92),
            (3.2, 1.28, 1.6),
            (3.2, 0.96, 0.96),
        ),
        tuple(
            (244 * alpha, 244 * sigma, 244 * jitter)
            for alpha, sigma, jitter in (
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
    ),
    "pixelate": Corruption(
        digital.pixelate,
        _one(0.95, 0.9, 0.85, 0.75, 0.65),
        _one(0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": Corruption(
        digital.jpeg_compression,
        _one(80, 65, 58, 50, 40),
        _one(25, 18, 15, 10, 7),
        traced=True,
    ),
    "speckle_noise": Corruption(
        noise.speckle_noise,
        _one(0.06, 0.1, 0.12, 0.16, 0.2),
        _one(0.15, 0.2, 0.35, 0.45, 0.6),
        traced=True,
    ),
    "gaussian_blur": Corruption(
        blur.gaussian_blur, _one(0.4, 0.6, 0.7, 0.8, 1), _one(1, 2, 3, 4, 6)
    ),
    "spatter": Corruption(
        spatter.spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
    ),
    "saturate": Corruption(
        digital.saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        traced=True,
    ),
}
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
NAMES = tuple(name for name in CORRUPTIONS if name not in EXTRA)
DEVIATIONS = {name: c.deviation for name, c in CORRUPTIONS.items() if c.deviation}


def constants_of(name: str, severity: int, *, constants: str = "cifar") -> tuple:
    """Returns the constants of a corruption.

    Args:
      name: One of `NAMES` or `EXTRA`.
      severity: Severity, an integer from 1 to 5.
      constants: "cifar" for those of CIFAR-10-C, "imagenet" for those of ImageNet-C.

    Raises:
      ValueError: Unknown name, severity or set of constants.
    """
    corruption = lookup(CORRUPTIONS, name, "corruption")
    if severity not in SEVERITIES:
        raise unknown("severity", str(severity), map(str, SEVERITIES))
    sets = {"cifar": corruption.cifar, "imagenet": corruption.imagenet}
    return lookup(sets, constants, "set of constants")[severity - 1]


def corrupt(
    key: jax.Array,
    images: jax.Array,
    name: str,
    severity: int,
    *,
    constants: str = "cifar",
    numbers: jax.Array | None = None,
) -> jax.Array:
    """Corrupts a batch of images.

    Args:
      key: Key of the data set, the same for all its batches.
      images: u8[B, H, H, 3], RGB.
      name: One of `NAMES` or `EXTRA`.
      severity: Severity, an integer from 1 to 5.
      constants: "cifar" for small images, "imagenet" for images of 224 pixels.
      numbers: i32[B], numbers of the images in their data set; None for 0, 1, ... An
        image is corrupted in the same way alone and in any batch.

    Returns:
      u8[B, H, H, 3].

    Raises:
      ValueError: Unknown name, severity or set of constants, or other images.
    """
    values = constants_of(name, severity, constants=constants)
    shape = images.shape
    if images.dtype != jnp.uint8 or shape[3:] != (3,) or shape[1] != shape[2]:
        raise ValueError(
            f"images must be uint8[B, H, H, 3], not {images.dtype}{list(shape)}"
        )
    numbers = np.arange(len(images)) if numbers is None else numbers
    numbers = jnp.asarray(numbers, jnp.int32)
    if CORRUPTIONS[name].traced:
        values = jnp.asarray(values, jnp.float32)  # ints would compile once more
        return _corrupt(key, images, numbers, values, name=name)
    return _corrupt(key, images, numbers, (), name=name, static=values)


@functools.partial(jax.jit, static_argnames=("name", "static"))
def _corrupt(
    key: jax.Array,
    images: jax.Array,
    numbers: jax.Array,
    values: jax.Array | tuple,
    *,
    name: str,
    static: tuple = (),
) -> jax.Array:
    """Corrupts a batch; see `corrupt`.

    Args:
      key: Key of the data set.
      images: u8[B, H, H, 3].
      numbers: i32[B].
      values: Constants that are traced, f32[n]; empty for corruptions that take none.
      name: Name of the corruption.
      static: Constants that are known when it is compiled.
    """
    function = CORRUPTIONS[name].function

    def one(number: jax.Array, image: jax.Array) -> jax.Array:
        image = image.astype(jnp.float32) / 255
        image = function(jax.random.fold_in(key, number), image, *values, *static)
        # The small number: rounding of f32 must not turn a whole grey level into the
        # next lower one.
        return jnp.floor(255 * jnp.clip(image, 0, 1) + 1e-4).astype(jnp.uint8)

    return jax.vmap(one)(numbers, images)
