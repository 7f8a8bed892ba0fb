"""Textures that look like frost on a window, in place of photographs.

Ice needles in patches of one direction each, over cloudy ground, bluish where thin.
"""

import functools

import numpy as np

COUNT, HEIGHT, WIDTH = 5, 512, 640
_THIN, _THICK = np.array([38, 62, 92]), np.array([236, 244, 252])  # RGB
_DIRECTIONS = 5  # of needles in a texture


@functools.cache
def textures() -> np.ndarray:
    """Returns textures u8[COUNT, HEIGHT, WIDTH, 3], RGB, the same at every call."""
    return np.stack([_texture(np.random.default_rng(seed)) for seed in range(COUNT)])


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Draws a texture, u8[HEIGHT, WIDTH, 3]."""
    down, right = np.meshgrid(
        np.fft.fftfreq(HEIGHT), np.fft.rfftfreq(WIDTH), indexing="ij"
    )
    frequency = np.hypot(down, right) + 1 / WIDTH
    ground = _noise(rng, frequency**-1.6)
    needles = np.full((HEIGHT, WIDTH), -np.inf)
    for angle in np.pi * (np.arange(_DIRECTIONS) + rng.random()) / _DIRECTIONS:
        along = np.cos(angle) * right + np.sin(angle) * down
        across = np.sin(angle) * right - np.cos(angle) * down
        # The spectrum of needles: noise that changes slowly along their direction, and
        # across it every 4 to 40 pixels. A needle is where the noise crosses 0.
        spectrum = np.exp(-((60 * along) ** 2)) / (1 + (8 * across) ** 2)
        lines = _noise(rng, spectrum * (np.abs(across) > 0.012))
        patch = _noise(rng, np.exp(-((90 * frequency) ** 2)))
        needles = np.maximum(needles, 1.2 * patch - 1.5 * np.abs(lines))
    thickness = 1 / (1 + np.exp(-(1.1 * ground + 1.6 * (needles - 0.6))))
    return (_THIN + (_THICK - _THIN) * thickness[..., None]).astype(np.uint8)


def _noise(rng: np.random.Generator, amplitude: np.ndarray) -> np.ndarray:
    """Returns periodic noise f64[HEIGHT, WIDTH] of mean 0 and standard deviation 1.

    Args:
      rng: Generator.
      amplitude: f64[HEIGHT, WIDTH // 2 + 1], spectrum of the noise, as of `rfft2`.
    """
    white = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH)))
    noise = np.fft.irfft2(white * amplitude, s=(HEIGHT, WIDTH))
    return (noise - noise.mean()) / noise.std()
