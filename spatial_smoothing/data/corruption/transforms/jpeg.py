"""JPEG compression and decompression, bit for bit as libjpeg computes them.

Only what loses information: colour conversion, chroma at half the resolution, discrete
cosine transform, quantisation, and their inverses, in the integer arithmetic of the
defaults of libjpeg (accurate integer transform, smooth upsampling). Source: ITU-T T.81;
Loeffler, Ligtenberg, Moschytz (1989) for the transform.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Quantisation tables of T.81, Annex K.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int32,
)
_CHROMINANCE = np.full((8, 8), 99, np.int32)
_CHROMINANCE[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]

# The left half of the transform, times 2^13 sqrt(8). The right half mirrors it, with
# the opposite sign in odd rows. The entries are sums of constants that libjpeg rounds,
# so that they are not quite symmetric.
_HALF = np.array(
    [
        [8192, 8192, 8192, 8192],
        [11363, 9633, 6437, 2260],
        [10703, 4433, -4433, -10703],
        [9633, -2259, -11362, -6436],
        [8192, -8192, -8192, 8192],
        [6437, -11362, 2261, 9633],
        [4433, -10704, 10704, -4433],
        [2260, -6436, 9633, -11363],
    ]
)
_SIGNS = np.array([[1], [-1]] * 4)
_TRANSFORM = np.concatenate([_HALF, _SIGNS * _HALF[:, ::-1]], axis=1)


def compress(pixels: jax.Array, quality: jax.Array | int) -> jax.Array:
    """Returns an image after JPEG compression and decompression.

    Args:
      pixels: i32[H, W, 3] in [0, 255], RGB.
      quality: Quality of the compression, from 1 to 100.

    Returns:
      i32[H, W, 3] in [0, 255].
    """
    height, width, _ = pixels.shape
    # Blocks are of 8x8 pixels, of chroma at half the resolution: 16x16 of the image.
    below, right = -height % 16, -width % 16
    pixels = jnp.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
    luma, blue, red = _to_ycc(pixels)
    luma = _code(luma, _table(_LUMINANCE, quality))
    halves = ((height + 1) // 2, (width + 1) // 2)
    blue, red = (
        _upsample(
            _code(_downsample(chroma), _table(_CHROMINANCE, quality))[
                : halves[0], : halves[1]
            ]
        )[:height, :width]
        for chroma in (blue, red)
    )
    return _to_rgb(luma[:height, :width], blue, red)


def _table(base: np.ndarray, quality: jax.Array | int) -> jax.Array:
    """Returns the quantisation table i32[8, 8] of a quality."""
    quality = jnp.asarray(quality).astype(jnp.int32)
    scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return jnp.clip((base * scale + 50) // 100, 1, 255).astype(jnp.int32)


def _to_ycc(pixels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Converts RGB to luma and two chroma planes, in units of 2^-16 before rounding."""
    r, g, b = jnp.moveaxis(pixels, -1, 0)
    half, centre = 1 << 15, (128 << 16) + (1 << 15) - 1
    return (
        (19595 * r + 38470 * g + 7471 * b + half) >> 16,
        (-11059 * r - 21709 * g + 32768 * b + centre) >> 16,
        (32768 * r - 27439 * g - 5329 * b + centre) >> 16,
    )


def _to_rgb(luma: jax.Array, blue: jax.Array, red: jax.Array) -> jax.Array:
    """Converts luma and two chroma planes to RGB, in units of 2^-16 before rounding."""
    blue, red, half = blue - 128, red - 128, 1 << 15
    r = luma + ((91881 * red + half) >> 16)
    g = luma + ((-22554 * blue - 46802 * red + half) >> 16)
    b = luma + ((116130 * blue + half) >> 16)
    return jnp.stack([r, g, b], axis=-1).clip(0, 255)


def _downsample(plane: jax.Array) -> jax.Array:
    """Averages 2x2 pixels; halves are rounded down and up in turn along a row."""
    total = plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]
    bias = 1 + jnp.arange(total.shape[1], dtype=jnp.int32)[None] % 2
    return (total + bias) >> 2


def _upsample(plane: jax.Array) -> jax.Array:
    """Doubles both sides; a pixel is three quarters the nearest, per direction."""
    padded = jnp.pad(plane, 1, mode="edge")
    near = 3 * padded[1:-1]
    above, below = near + padded[:-2], near + padded[2:]
    rows = jnp.stack([above, below], axis=1).reshape(-1, padded.shape[1])
    near = 3 * rows[:, 1:-1]
    left, right = (near + rows[:, :-2] + 8) >> 4, (near + rows[:, 2:] + 7) >> 4
    return jnp.stack([left, right], axis=2).reshape(len(rows), -1)


def _code(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Transforms, quantises and restores blocks of 8x8 pixels.

    Args:
      plane: i32[H, W] in [0, 255], H and W multiples of 8.
      table: i32[8, 8], quantisation table.

    Returns:
      i32[H, W] in [0, 255].
    """
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8).transpose(1, 3, 0, 2) - 128
    # The two passes leave a factor of 8 in the coefficients.
    blocks = _pass(_TRANSFORM, blocks, 11, axis=1)
    blocks = _pass(_TRANSFORM, blocks, 15, axis=0)
    table = table[:, :, None, None]
    rounded = (jnp.abs(blocks) + 4 * table) // (8 * table)
    blocks = jnp.sign(blocks) * rounded * table
    blocks = _pass(_TRANSFORM.T, blocks, 11, axis=0)
    blocks = _pass(_TRANSFORM.T, blocks, 18, axis=1)
    plane = blocks.transpose(2, 0, 3, 1).reshape(height, width)
    return jnp.clip(plane + 128, 0, 255)


def _pass(matrix: np.ndarray, blocks: jax.Array, shift: int, *, axis: int) -> jax.Array:
    """Multiplies i32[..., 8, ...] along an axis, divides by 2^shift and rounds."""
    product = jnp.tensordot(jnp.asarray(matrix, jnp.int32), blocks, axes=(1, axis))
    half = 1 << (shift - 1)
    return jnp.moveaxis((product + half) >> shift, 0, axis)
