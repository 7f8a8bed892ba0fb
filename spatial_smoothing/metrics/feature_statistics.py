"""What confidences of features are fitted with: sums, and what follows from them.

Contract of this file: `sums` runs on the device, over a part of the training features,
and adds up; the rest runs once, on the host, in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.feature_confidences import Gaussians

# Eigenvalues of a covariance below this part of the largest are rounding of float32.
_SMALLEST = 1e-6


class Moments(NamedTuple):
    """Sums over training features, in float64 on the host.

    Attributes:
      count: f[C], number of features of each class.
      first: f[C, D], sum of the features of each class, after a shift.
      second: f[D, D], sum of the outer products, after the same shift.
      shift: f[D], what was subtracted from all features, near their mean.
    """

    count: np.ndarray
    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean of all features, f64[D]."""
        return self.shift + self.first.sum(0) / self.count.sum()

    @property
    def class_means(self) -> np.ndarray:
        """Mean of each class that has features, f64[C', D]."""
        found = self.count > 0
        return self.shift + self.first[found] / self.count[found, None]

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of all features, f64[D, D], divided by their number."""
        total = self.count.sum()
        offset = self.first.sum(0) / total
        return self.second / total - np.outer(offset, offset)

    @property
    def covariance_within(self) -> np.ndarray:
        """Covariance of the features around the means of their classes, f64[D, D]."""
        found = self.count > 0
        means = self.first[found] / self.count[found, None]
        between = (self.count[found, None] * means).T @ means
        return (self.second - between) / self.count.sum()


def sums(
    features: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    shift: jax.Array,
    *,
    num_classes: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The sums of `Moments` over some features.

    Args:
      features: f32[B, D].
      labels: i32[B].
      mask: bool[B], which features count.
      shift: f32[D], subtracted from all features: near their mean, so that differences
        of sums lose no digits.
      num_classes: C.

    Returns:
      `count` f32[C], `first` f32[C, D] and `second` f32[D, D].
    """
    centred = jnp.where(mask[:, None], features - shift[None], 0)
    classes = jax.nn.one_hot(labels, num_classes) * mask[:, None]
    first = jnp.dot(classes.T, centred, precision="highest")
    return classes.sum(0), first, jnp.dot(centred.T, centred, precision="highest")


def gaussians(means: np.ndarray, covariance: np.ndarray) -> Gaussians:
    """Normal distributions of one covariance.

    Directions in which training features do not vary are left out: the inverse of the
    covariance is the pseudo-inverse, as in OpenOOD.

    Args:
      means: f64[C, D].
      covariance: f64[D, D].
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = values > _SMALLEST * values[-1]
    whitening = vectors[:, kept] / np.sqrt(values[kept])
    return Gaussians(np.float32(means @ whitening), np.float32(whitening))


def zero_logits(kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The features for which all logits are 0, or as near as can be, f64[D].

    Args:
      kernel: f[D, K] of the last dense layer.
      bias: f[K] of the last dense layer.
    """
    return -np.linalg.pinv(np.float64(kernel).T) @ np.float64(bias)


def residual_basis(
    moments: Moments, origin: np.ndarray, *, principal: int | None = None
) -> np.ndarray:
    """An orthonormal basis of the space in which features vary least.

    Args:
      moments: Sums over training features.
      origin: f64[D], the point from which features are seen.
      principal: Number of directions of largest variation that are left out; None for
        the rule of the paper: 1000 of at least 2048, 512 of at least 768, else half.

    Returns:
      f64[D, D - principal]. Source: Wang et al., CVPR 2022, section 4.
    """
    dimension = len(origin)
    if principal is None:
        principal = next(
            (
                count
                for least, count in ((2048, 1000), (768, 512))
                if dimension >= least
            ),
            dimension // 2,
        )
    offset = moments.mean - origin
    _, vectors = np.linalg.eigh(moments.covariance + np.outer(offset, offset))
    return vectors[:, : dimension - principal]  # eigenvalues increase
