"""Random predictions of known skill, and what is kept of them."""

import jax
import numpy as np
import scipy.special

from spatial_smoothing import metrics

CLASSES = 7
per_example = jax.jit(metrics.per_example)


def predictions(size=150, *, seed=0, digits=None, skill=3.0):
    """Log-probabilities and labels; rounded, many confidences are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES - 1, size)  # the last class has no examples
    logits = 2 * rng.standard_normal((size, CLASSES))
    logits[np.arange(size), labels] += skill
    if digits is not None:
        logits = np.sort(np.round(logits, digits), axis=1)
        labels = np.where(rng.random(size) < 0.6, CLASSES - 1, labels)
    log_probs = scipy.special.log_softmax(logits, axis=1)
    return np.float32(log_probs), np.int32(labels)


def examples(*arguments, **options):
    log_probs, labels = predictions(*arguments, **options)
    rng = np.random.default_rng(7)
    given = rng.random((3, len(labels))).astype(np.float32)
    names = ("mutual_information", "variation_ratio", "energy")
    given = dict(zip(names, given, strict=True))
    return jax.device_get(per_example(log_probs, labels, **given))
