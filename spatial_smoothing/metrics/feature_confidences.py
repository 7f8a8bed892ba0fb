"""Confidences from features, the inputs of a network's last dense layer.

Contract of this file: `features` are f[B, D]; a confidence is f[B] in at least float32,
high for what is like the training images. What is fitted to training images is a
`NamedTuple` of arrays, which functions of `feature_statistics` make. Products are in
full precision on all devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.inputs import widened


class Gaussians(NamedTuple):
    """Normal distributions of features that share one covariance.

    Attributes:
      means: f32[C, R], means of C classes, whitened.
      whitening: f32[D, R], by which features are multiplied; `whitening @ whitening.T`
        is the inverse of the covariance.
    """

    means: jax.Array
    whitening: jax.Array


class Densities(NamedTuple):
    """Normal distributions of features, with a covariance for each class.

    Attributes:
      means: f32[C, D], means of C classes.
      whitening: f32[C, D, D], by which centred features of each class are multiplied;
        `whitening @ whitening.T` is the inverse of its covariance.
      log_weights: f32[C], logarithms of the share of each class and of the constant of
        its density.
    """

    means: jax.Array
    whitening: jax.Array
    log_weights: jax.Array


class Residual(NamedTuple):
    """The space in which training features hardly vary.

    Attributes:
      origin: f32[D], the features for which all logits are 0.
      basis: f32[D, R], orthonormal columns that span the space.
      scale: f32[], mean of the largest logit over the mean norm of the residual, of
        training features.
    """

    origin: jax.Array
    basis: jax.Array
    scale: jax.Array


class LastLayer(NamedTuple):
    """The last dense layer of a network.

    Attributes:
      kernel: f32[D, K].
      bias: f32[K].
    """

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns logits f32[..., K] of features f32[..., D]."""
        product = jnp.dot(features, self.kernel, precision="highest")
        return product + jnp.broadcast_to(self.bias, product.shape)


def normalised(features: jax.Array) -> jax.Array:
    """Features f[..., D] divided by their norms, in at least float32."""
    features = widened(features)
    return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + 1e-10)


def nearest_neighbour(similarities: jax.Array) -> jax.Array:
    """Minus the squared distance to a neighbour on the unit sphere (KNN).

    Args:
      similarities: f32[...], inner product with the neighbour, both of norm 1.

    Returns:
      f32[...], at most 0 but for rounding. Source: Sun et al., ICML 2022, section 3.
    """
    return 2 * similarities - 2


def most_similar(features: jax.Array, bank: jax.Array, *, count: int) -> jax.Array:
    """Inner products with the nearest rows of a bank, the largest first.

    Args:
      features: f32[B, D], of norm 1.
      bank: f32[n, D], of norm 1; a row of NaN is padding, and never near.
      count: k, how many; at most n.

    Returns:
      f32[B, k].
    """
    products = jnp.dot(features, bank.T, precision="highest")
    is_padding = jnp.isnan(bank).any(-1)[None]
    return jax.lax.top_k(jnp.where(is_padding, -jnp.inf, products), count)[0]


def mahalanobis(features: jax.Array, gaussians: Gaussians) -> jax.Array:
    """Minus the squared Mahalanobis distance to the nearest class mean (MDS).

    Args:
      features: f[B, D].
      gaussians: Means and covariance of the classes.

    Returns:
      f32[B], at most 0. Source: Lee et al., NeurIPS 2018, equation 2.
    """
    white = jnp.dot(widened(features), gaussians.whitening, precision="highest")

    def squared_distance(mean: jax.Array) -> jax.Array:
        # As a difference, and not by products, which would cancel near the mean.
        return jnp.square(white - mean[None]).sum(-1)

    return -jax.lax.map(squared_distance, gaussians.means, batch_size=16).min(0)


def relative_mahalanobis(
    features: jax.Array, classes: Gaussians, everything: Gaussians
) -> jax.Array:
    """`mahalanobis` of the classes minus that of all training features (RMDS).

    Args:
      features: f[B, D].
      classes: Means and shared covariance of the classes.
      everything: Mean and covariance of all features, one Gaussian.

    Returns:
      f32[B]. Source: Ren et al. 2021, equation 3.
    """
    return mahalanobis(features, classes) - mahalanobis(features, everything)


def log_density(features: jax.Array, densities: Densities) -> jax.Array:
    """Logarithm of the density of features, a mixture of the classes (DDU).

    Args:
      features: f[B, D].
      densities: Normal distributions of the classes.

    Returns:
      f32[B]. Source: Mukhoti et al., CVPR 2023, section 4.
    """
    features = widened(features)

    def of_class(parameters: Densities) -> jax.Array:
        centred = features - parameters.means[None]
        white = jnp.dot(centred, parameters.whitening, precision="highest")
        return parameters.log_weights - jnp.square(white).sum(-1) / 2

    return jax.nn.logsumexp(jax.lax.map(of_class, densities), axis=0)


def react(
    features: jax.Array, last: LastLayer, *, threshold: float | jax.Array
) -> jax.Array:
    """Log-sum-exp of the logits of features that are cut off above (ReAct).

    Args:
      features: f[B, D].
      last: The last dense layer.
      threshold: f[], the largest value that a feature keeps.

    Returns:
      f32[B]. Source: Sun et al., NeurIPS 2021, section 3.
    """
    return jax.nn.logsumexp(last(jnp.minimum(widened(features), threshold)), axis=-1)


def residual_norm(
    features: jax.Array, origin: jax.Array, basis: jax.Array
) -> jax.Array:
    """Norm of the part of features that lies in a space.

    Args:
      features: f[B, D].
      origin: f32[D], subtracted from the features.
      basis: f32[D, R], orthonormal columns that span the space.

    Returns:
      f32[B], at least 0.
    """
    centred = widened(features) - origin[None]
    return jnp.linalg.norm(jnp.dot(centred, basis, precision="highest"), axis=-1)


def virtual_logit(
    features: jax.Array, last: LastLayer, residual: Residual
) -> jax.Array:
    """Log-sum-exp of the logits minus a logit made of the residual (ViM).

    Args:
      features: f[B, D].
      last: The last dense layer.
      residual: The space in which training features hardly vary.

    Returns:
      f32[B]. Source: Wang et al., CVPR 2022, equation 7.
    """
    features = widened(features)
    logit = residual.scale * residual_norm(features, residual.origin, residual.basis)
    return jax.nn.logsumexp(last(features), axis=-1) - logit
