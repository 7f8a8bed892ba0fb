"""The Laplace approximation of the last layer: its posterior, and what it predicts.

Contract of this file: the last layer is `logits = features @ kernel + bias`. Its
weights W, the bias as a last row, f[D + 1, K], have the prior N(0, 1 / precision) and a
normal posterior around the trained ones. Its inverse covariance is `A (x) B +
precision`, where A, f[D + 1, D + 1], is the sum of the outer products of the features
with a 1 behind them, and B, f[K, K], is the mean of `diag(p) - p p^T` over the training
images: the Kronecker factors of the generalised Gauss-Newton matrix of their loss.
Fitting runs once, on the host, in float64. Source: Daxberger et al., NeurIPS 2021,
sections 2 and 3; Ritter et al., ICLR 2018.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.ensembles import ApplyFunction
from spatial_smoothing.evaluation.features import features_of, last_layer
from spatial_smoothing.metrics.feature_confidences import LastLayer

# Prior precisions of which the one with the largest marginal likelihood is chosen.
PRECISIONS = tuple(float(p) for p in np.logspace(-4, 4, 81))
_PART = 2**14  # features that are summed up at once


@flax.struct.dataclass
class Posterior:
    """The posterior of the last layer; all arrays are float32.

    Attributes:
      feature_vectors: f32[D + 1, D + 1], eigenvectors of A, in columns.
      feature_values: f32[D + 1], its eigenvalues.
      class_vectors: f32[K, K], eigenvectors of B, in columns.
      class_values: f32[K], its eigenvalues.
      precision: f32[], inverse variance of the prior.
    """

    feature_vectors: jax.Array
    feature_values: jax.Array
    class_vectors: jax.Array
    class_values: jax.Array
    precision: jax.Array

    def variances(self, features: jax.Array) -> jax.Array:
        """Returns the variance of each logit.

        Args:
          features: f32[B, D].

        Returns:
          f32[B, K].
        """
        extended = jnp.pad(features, ((0, 0), (0, 1)), constant_values=1)
        along = jnp.dot(extended, self.feature_vectors, precision="highest")
        # Variance along each pair of eigenvectors, f32[D + 1, K].
        products = self.feature_values[:, None] * self.class_values[None]
        inverse = 1 / (products + self.precision)
        of_vectors = jnp.dot(jnp.square(along), inverse, precision="highest")
        squares = jnp.square(self.class_vectors).T
        return jnp.dot(of_vectors, squares, precision="highest")


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    last: LastLayer,
    *,
    precisions: Sequence[float] = PRECISIONS,
) -> Posterior:
    """Fits the posterior of the last layer to the images that it was trained on.

    The prior precision is the one with the largest marginal likelihood, which needs no
    images that are held out.

    Args:
      features: f32[n, D], features of training images.
      labels: i32[n], their labels.
      last: The last layer as it was trained.
      precisions: Prior precisions to choose from, above 0.
    """
    weights = np.concatenate([last.kernel, np.asarray(last.bias)[None]]).astype(float)
    log_likelihood, of_features, of_classes = 0.0, 0.0, 0.0
    # Part by part: in float64 with a 1 behind them, all features are thrice as large.
    for start in range(0, len(labels), _PART):
        part = np.float64(features[start : start + _PART])
        extended = np.pad(part, ((0, 0), (0, 1)), constant_values=1)
        logits = extended @ weights
        logits -= logits.max(-1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        probs = np.exp(log_probs)
        of_labels = log_probs[np.arange(len(part)), labels[start : start + _PART]]
        log_likelihood = log_likelihood + of_labels.sum()
        of_features = of_features + extended.T @ extended
        of_classes = of_classes + np.diag(probs.sum(0)) - probs.T @ probs
    of_classes = of_classes / len(labels)
    a, feature_vectors = np.linalg.eigh(of_features)
    b, class_vectors = np.linalg.eigh(of_classes)
    a, b = np.maximum(a, 0), np.maximum(b, 0)  # rounding may leave them below
    evidence = [
        log_marginal_likelihood(
            log_likelihood, weights, np.outer(a, b), precision=precision
        )
        for precision in precisions
    ]
    return Posterior(
        *map(np.float32, (feature_vectors, a, class_vectors, b)),
        precision=np.float32(precisions[int(np.argmax(evidence))]),
    )


def log_marginal_likelihood(
    log_likelihood: float,
    weights: np.ndarray,
    eigenvalues: np.ndarray,
    *,
    precision: float,
) -> float:
    """Returns the logarithm of the marginal likelihood, by Laplace's approximation.

    Args:
      log_likelihood: Log-likelihood of the training labels, in nats.
      weights: f64[D + 1, K], the trained weights.
      eigenvalues: f64[D + 1, K], eigenvalues of the Gauss-Newton matrix.
      precision: Inverse variance of the prior, above 0.

    Returns:
      The logarithm in nats. Source: Daxberger et al. 2021, equation 4.
    """
    log_prior = -precision * np.square(weights).sum() / 2
    log_occam = np.log(precision) - np.log(eigenvalues + precision)
    return float(log_likelihood + log_prior + log_occam.sum() / 2)


def network(model: nn.Module) -> ApplyFunction:
    """Returns the network whose last layer has a posterior, as a pure function.

    Its variables are `{"network": variables, "posterior": Posterior}`. Logits are those
    of the probit approximation, `f / sqrt(1 + pi / 8 var)`, so that their softmax
    approximates the mean prediction over the posterior. Source: MacKay, 1992; Daxberger
    et al. 2021, appendix B.

    Args:
      model: A network whose last layer is dense.
    """

    def apply(
        variables: dict[str, Any], images: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        features = features_of(model, variables["network"], images)
        logits = last_layer(model, variables["network"], images)(features)
        variances = variables["posterior"].variances(features)
        return logits / jnp.sqrt(1 + jnp.pi / 8 * variances)

    return ApplyFunction(
        apply, f"{type(model).__name__} with last-layer Laplace", stochastic=False
    )
