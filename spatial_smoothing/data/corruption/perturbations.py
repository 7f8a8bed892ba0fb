"""Sequences of images that change little by little, as in CIFAR-10-P.

Each is a pure function of (key, image) to all frames of one image, mapped over a batch.
Image number i of a data set has the key `fold_in(key, i)`. Lengths are in pixels of a
32x32 image. Results do not depend on JAX_ENABLE_X64 or JAX_NUMPY_DTYPE_PROMOTION.

Source: Hendrycks and Dietterich (2019) and the code that made CIFAR-10-P.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.data.corruption.transforms import (
    blur,
    linear,
    noise,
    spatter,
    weather,
)
from spatial_smoothing.lookup import lookup


class Perturbation(NamedTuple):
    """A perturbation.

    Attributes:
      function: (key, image f32[H, H, 3] in [0, 1]) -> f32[frames, H, H, 3].
      frames: Number of frames of the sequence.
      is_noise: Whether the first frame is clean and the others have noise that is
        independent from frame to frame.
    """

    function: Callable[[jax.Array, jax.Array], jax.Array]
    frames: int
    is_noise: bool = False


def _steps(count: int) -> jax.Array:
    """Returns 0, 1, ..., count - 1 as f32[count]."""
    return jnp.arange(count, dtype=jnp.float32)


def _gaussian_noise(key: jax.Array, image: jax.Array) -> jax.Array:
    return _noisy(key, image, functools.partial(noise.gaussian_noise, sigma=0.02))


def _shot_noise(key: jax.Array, image: jax.Array) -> jax.Array:
    return _noisy(key, image, functools.partial(noise.shot_noise, photons=700))


def _noisy(key: jax.Array, image: jax.Array, function: Callable) -> jax.Array:
    """Returns the clean image and thirty noisy ones."""
    frames = jnp.broadcast_to(image, (30, *image.shape))
    noisy = function(key, frames)
    return jnp.concatenate([image[None], noisy])


def _motion_blur(key: jax.Array, image: jax.Array) -> jax.Array:
    """Turns the direction by 9 degrees a frame; no frame is clean."""
    del key
    angles = 9.0 * (_steps(21) - 20)
    return jax.vmap(lambda angle: blur.streak(image, angle, 6, 1.8))(angles)


def _zoom_blur(key: jax.Array, image: jax.Array) -> jax.Array:
    """Averages the image and ever more magnifications of it."""
    del key
    factors = 1 + 0.004 * (_steps(30) + 1)
    zoomed = jax.vmap(lambda factor: _affine(image, 0.0, factor))(factors)
    frames = jnp.concatenate([image[None], zoomed])
    # What `jnp.cumsum` is on CPUs. On TPUs that is another operation, for which XLA
    # pads the three channels to 128.
    total = jax.lax.associative_scan(jnp.add, frames)
    return total / (_steps(31) + 1).reshape(-1, 1, 1, 1)


def _spatter(key: jax.Array, image: jax.Array) -> jax.Array:
    """Lets drops of water run down."""
    size = image.shape[0]
    layer = spatter.liquid_layer(key, size, 0.6, 0.265, 1.75, 0.7)

    def step(layer: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        above = jnp.pad(layer[:-1], ((1, 0), (0, 0)))
        return 0.2 * layer + 0.8 * above, spatter.water(image, layer, 0.6)

    return jax.lax.scan(step, layer, length=31)[1]


def _brightness(key: jax.Array, image: jax.Array) -> jax.Array:
    """Brightens from -0.225 to 0.225 of the value of HSV."""
    amounts = 0.015 * (_steps(31) - 15)
    return jax.vmap(lambda amount: weather.brightness(key, image, amount))(amounts)


def _translate(key: jax.Array, image: jax.Array) -> jax.Array:
    """Shifts from 7 pixels to the left to 8 to the right, black coming in."""
    del key
    width = image.shape[1]
    padded = jnp.pad(image, ((0, 0), (8, 8), (0, 0)))
    return jnp.stack([padded[:, 15 - i : 15 - i + width] for i in range(16)])


def _rotate(key: jax.Array, image: jax.Array) -> jax.Array:
    """Turns from -15 to 15 degrees."""
    del key
    return jax.vmap(lambda angle: _affine(image, angle, 1.0))(_steps(31) - 15)


def _scale(key: jax.Array, image: jax.Array) -> jax.Array:
    """Magnifies from 0.7 to 1.3."""
    del key
    factors = 0.7 + 0.02 * _steps(31)
    return jax.vmap(lambda factor: _affine(image, 0.0, factor))(factors)


def _affine(image: jax.Array, angle: jax.Array, factor: jax.Array) -> jax.Array:
    """Rotates and magnifies an image as Pillow does.

    Interpolation is bilinear. Pixels whose source is outside the image are black.

    Args:
      image: f32[H, H, 3] in [0, 1].
      angle: f32[], clockwise, in degrees.
      factor: f32[], magnification.

    Returns:
      f32[H, H, 3], truncated to multiples of 1/255.
    """
    size = image.shape[0]
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))
    cos, sin = jnp.cos(radians) / factor, jnp.sin(radians) / factor
    x = _steps(size)[None] + (0.5 - size / 2)
    y = x.T
    rows, columns = (
        offset + (size / 2 - 0.5) for offset in (cos * y - sin * x, cos * x + sin * y)
    )
    inside = (rows >= -0.5) & (rows < size - 0.5)
    inside &= (columns >= -0.5) & (columns < size - 0.5)
    warped = linear.bilinear(image, rows, columns, border="nearest")
    return jnp.floor(255 * jnp.where(inside[..., None], warped, 0) + 1e-3) / 255


def _tilt(key: jax.Array, image: jax.Array) -> jax.Array:
    """Turns the image about both axes in space, from -11.25 to 11.25 degrees.

    The definition puts the image one pixel behind the axes, so that no frame is clean.
    Interpolation is bilinear, with positions rounded to 1/32 pixel as OpenCV does.
    Pixels whose source is outside the image are black. Results are rounded to 8 bits.
    """
    del key
    size = image.shape[0]
    maps = np.stack(
        [np.linalg.inv(homography(0.75 * (i - 15), size)) for i in range(31)]
    )
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    y, x = np.indices((size, size))
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ maps[:, None].swapaxes(2, 3)
    places = np.round(32 * points[..., :2] / points[..., 2:]) / 32
    places = jnp.asarray(np.clip(places + 1, 0, size + 1), jnp.float32)
    warp = lambda place: linear.bilinear(
        padded, place[..., 1], place[..., 0], border="nearest"
    )
    return jnp.round(255 * jax.vmap(warp)(places)) / 255


def homography(angle: float, size: int) -> np.ndarray:
    """Returns the homography of a view of an image turned about both of its axes.

    Args:
      angle: Angle about either axis, in degrees.
      size: Height and width of the image, in pixels.

    Returns:
      f64[3, 3].
    """
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    focal, centre = math.sqrt(2) * size, size / 2
    to_space = np.array([[1, 0, -centre], [0, 1, -centre], [0, 0, 1], [0, 0, 1]])
    about_x = np.array(
        [[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]]
    )
    about_y = np.array(
        [[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, 0], [0, 0, 0, 1]]
    )
    away = np.eye(4)
    away[2, 3] = focal
    project = np.array([[focal, 0, centre, 0], [0, focal, centre, 0], [0, 0, 1, 0]])
    return project @ away @ about_x @ about_y @ to_space


# In the order of the definition.
PERTURBATIONS = {
    "gaussian_noise": Perturbation(_gaussian_noise, 31, is_noise=True),
    "shot_noise": Perturbation(_shot_noise, 31, is_noise=True),
    "motion_blur": Perturbation(_motion_blur, 21),
    "zoom_blur": Perturbation(_zoom_blur, 31),
    "spatter": Perturbation(_spatter, 31),
    "brightness": Perturbation(_brightness, 31),
    "translate": Perturbation(_translate, 16),
    "rotate": Perturbation(_rotate, 31),
    "tilt": Perturbation(_tilt, 31),
    "scale": Perturbation(_scale, 31),
}
NAMES = tuple(PERTURBATIONS)


def sequence(
    key: jax.Array, images: jax.Array, name: str, *, numbers: jax.Array | None = None
) -> jax.Array:
    """Perturbs a batch of images.

    Args:
      key: Key of the data set, the same for all its batches.
      images: u8[B, H, H, 3], RGB.
      name: One of `NAMES`.
      numbers: i32[B], numbers of the images in their data set; None for 0, 1, ...

    Returns:
      u8[T, B, H, H, 3]; T is the number of frames of the perturbation.

    Raises:
      ValueError: The name is unknown, or images have another type or shape.
    """
    lookup(PERTURBATIONS, name, "perturbation")
    shape = images.shape
    if images.dtype != jnp.uint8 or shape[3:] != (3,) or shape[1] != shape[2]:
        raise ValueError(
            f"images must be uint8[B, H, H, 3], not {images.dtype}{list(shape)}"
        )
    numbers = np.arange(len(images)) if numbers is None else numbers
    numbers = jnp.asarray(numbers, jnp.int32)
    return _sequence(key, images, numbers, name=name)


@functools.partial(jax.jit, static_argnames="name")
def _sequence(
    key: jax.Array, images: jax.Array, numbers: jax.Array, *, name: str
) -> jax.Array:
    def one(number: jax.Array, image: jax.Array) -> jax.Array:
        image = image.astype(jnp.float32) / 255
        frames = PERTURBATIONS[name].function(jax.random.fold_in(key, number), image)
        return jnp.floor(255 * jnp.clip(frames, 0, 1) + 1e-4).astype(jnp.uint8)

    return jax.vmap(one, out_axes=1)(numbers, images)
