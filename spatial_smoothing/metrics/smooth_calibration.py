"""SmoothECE: calibration error by a kernel whose width the data choose.

Contract of this file: the kernel is a Gaussian that is reflected at 0 and 1. That is
the kernel of heat in a rod with insulated ends, whose modes are cosines: smoothing by
the width s multiplies the mode cos(pi k x) by exp(-(pi k s)^2 / 2).
"""

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.inputs import Values, check_lengths, clipped
from spatial_smoothing.metrics.ranking import nan_if_nan, ratio, weights_of

_MODES = 512  # the last is damped to 1e-10 at a width of 0.004
_POINTS = 1024  # at which the smoothed gap is integrated
_STEPS = 24  # of bisection: the width to 1e-7


def smooth_ece(
    confidence: Values, correct: Values, weights: Values | None = None
) -> jax.Array:
    """Calibration error of confidences that are smoothed by a kernel.

    The error at the width s is the integral over t in [0, 1] of the absolute mean over
    examples of K_s(t, confidence) (correct - confidence). It decreases with s; the
    result is the error at the width that equals it.

    Args:
      confidence: f[n], in [0, 1].
      correct: bool[n], whether the prediction is right.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], in [0, 1]. It changes continuously with the confidences, as ECE by bins does
      not. Source: Blasiok & Nakkiran, ICLR 2024, section 3.

    Raises:
      ValueError: for shapes that do not fit.
    """
    check_lengths(confidence=confidence, correct=correct, weights=weights)
    confidence = clipped(confidence)
    weights = weights_of(confidence, weights)
    gaps = weights * (jnp.asarray(correct).astype(weights.dtype) - confidence)
    modes = jnp.arange(_MODES).astype(weights.dtype)

    def coefficient(mode: jax.Array) -> jax.Array:
        # A cosine has period 2: the remainder keeps digits that a large angle loses.
        return jnp.dot(gaps, jnp.cos(jnp.pi * jnp.mod(mode * confidence, 2.0)))

    coefficients = jax.lax.map(coefficient, modes, batch_size=32)
    coefficients = ratio(coefficients, weights.sum(), empty=jnp.nan)
    # Mode 0 is the mean; every other cosine has the square norm 1/2.
    coefficients = coefficients * jnp.where(modes == 0, 1, 2)
    points = (np.arange(_POINTS) + 0.5) / _POINTS
    waves = np.cos(np.pi * np.outer(np.arange(_MODES), points))
    waves = jnp.asarray(waves, weights.dtype)

    def error(width: jax.Array) -> jax.Array:
        damping = jnp.exp(-jnp.square(jnp.pi * modes * width) / 2)
        smoothed = jnp.dot(coefficients * damping, waves, precision="highest")
        return jnp.abs(smoothed).mean()

    def halve(_, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        is_above = error(middle) > middle
        return jnp.where(is_above, middle, low), jnp.where(is_above, high, middle)

    ends = (jnp.zeros((), weights.dtype), jnp.ones((), weights.dtype))
    low, high = jax.lax.fori_loop(0, _STEPS, halve, ends)
    return nan_if_nan((low + high) / 2, confidence, gaps)
