"""What confidences of features are fitted with: sums, and what follows from them.

Contract of this file: `sums` runs on the device, over a part of the training features,
and adds up; the rest runs once, on the host, in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.metrics.feature_confidences import Densities, Gaussians

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


def densities(features: np.ndarray, labels: np.ndarray) -> Densities:
    """Fits a normal distribution to the features of each class, as DDU does.

    A covariance that is not positive definite, as far as float32 can tell, gets the
    first of the jitters 0, 1e-20, 1e-19, ..., times its mean variance on its diagonal
    with which it is.

    Args:
      features: f32[n, D].
      labels: i32[n]; classes without features are left out.

    Returns:
      The distributions, weighted by the shares of the classes.

    Raises:
      ValueError: if a class has a single feature, which has no covariance, or features
        that are all equal.
    """
    means, whitenings, log_weights = [], [], []
    for label in np.unique(labels):
        of_class = np.float64(features[labels == label])
        if len(of_class) < 2:
            raise ValueError(
                f"class {label} has a single training image, and DDU needs a "
                "covariance of each class; give more by --ood_images"
            )
        if (of_class == of_class[0]).all():
            raise ValueError(
                f"all training images of class {label} have the same features, and DDU "
                "needs a covariance of each class; leave ddu out of --confidences"
            )
        lower = _cholesky(np.atleast_2d(np.cov(of_class, rowvar=False)))
        dimension = len(lower)
        means.append(of_class.mean(0))
        whitenings.append(np.linalg.inv(lower).T)
        log_weights.append(
            np.log(len(of_class) / len(labels))
            - np.log(np.diag(lower)).sum()
            - dimension / 2 * np.log(2 * np.pi)
        )
    found = (np.float32(each) for each in (means, whitenings, log_weights))
    return Densities(*found)


def _cholesky(covariance: np.ndarray) -> np.ndarray:
    """Returns the lower factor of a covariance with as little jitter as it needs."""
    # Features of which some never vary, as ReLUs that are dead, need a jitter.
    scale = max(np.trace(covariance) / len(covariance), np.finfo(float).tiny)
    for jitter in (0.0, *10.0 ** np.arange(-20, 1)):
        try:
            lower = np.linalg.cholesky(
                covariance + jitter * scale * np.eye(len(covariance))
            )
        except np.linalg.LinAlgError:
            continue
        # In float32, a factor must not be that of rounding errors.
        if np.diag(lower).min() ** 2 > _SMALLEST * scale:
            return lower
    raise AssertionError("a covariance with its mean variance on the diagonal")


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
