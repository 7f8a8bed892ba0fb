"""Cut-offs and calibration bins: which confidences are above or inside of them.

Contract of this file: `confidence` is f[...] in [0, 1], in at least float32, and edges
are compared in its type. `clipped` of `inputs` makes sure of both.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

CUTOFFS = (0.9,)
BINS = tuple(float(edge) for edge in np.linspace(0, 1, 11))


def above(confidence: jax.Array, edges: Sequence[float]) -> jax.Array:
    """Whether each confidence is greater than each edge.

    Args:
      confidence: f[...].
      edges: E numbers.

    Returns:
      bool[E, ...].
    """
    return confidence[None] > _column(confidence, edges)


def inside(confidence: jax.Array, bins: Sequence[float]) -> jax.Array:
    """Whether each confidence is in each bin (low, high].

    Args:
      confidence: f[n].
      bins: Edges, increasing from 0 to 1.

    Returns:
      bool[bins, n]; of each confidence above 0, exactly one is true.
    """
    is_above = above(confidence, bins)
    return is_above[:-1] & ~is_above[1:]


def inside_reference(confidence: jax.Array, bins: Sequence[float]) -> jax.Array:
    """Whether each confidence is in each bin [low, high), as the reference sums them.

    Args:
      confidence: f[n].
      bins: Edges, increasing from 0 to 1.

    Returns:
      bool[bins, n]; a confidence of 1 is in no bin.
    """
    # "Not below low" is "at least low"; the order of edges makes one bin of each pair.
    is_below = confidence[None] < _column(confidence, bins)
    return ~is_below[:-1] & is_below[1:]


def checked_bins(bins: Sequence[float]) -> tuple[float, ...]:
    """Returns bins as a tuple, or raises ValueError where they leave a gap."""
    bins = tuple(float(edge) for edge in bins)
    if (
        len(bins) < 2
        or (bins[0], bins[-1]) != (0, 1)
        or list(bins) != sorted(set(bins))
    ):
        raise ValueError(f"bins must be edges that increase from 0 to 1, got {bins}")
    return bins


def checked_cutoffs(cutoffs: Sequence[float]) -> tuple[float, ...]:
    """Returns cut-offs as a tuple, or raises ValueError for one outside of (0, 1)."""
    cutoffs = tuple(float(cutoff) for cutoff in cutoffs)
    if not all(0 < cutoff < 1 for cutoff in cutoffs):
        raise ValueError(f"cutoffs must lie in (0, 1), got {cutoffs}")
    return cutoffs


def _column(values: jax.Array, edges: Sequence[float]) -> jax.Array:
    """Edges in the type of `values`, as a leading axis beside theirs."""
    column = jnp.asarray(np.asarray(edges, np.float64), values.dtype)
    return column.reshape(-1, *[1] * values.ndim)
