"""Plain JAX: a function and arrays of your own, evaluated as a deep ensemble too."""

import jax
import jax.numpy as jnp

import spatial_smoothing as ss
from spatial_smoothing.data import shapes


def init(key):
    """Draws the weights of two layers."""
    keys = jax.random.split(key)
    sizes = [(192, 32), (32, shapes.NUM_CLASSES)]
    return list(map(jax.nn.initializers.he_normal(), keys, sizes))


def logits(weights, x, key):
    """Classifies f32[B, 32, 32, 3]; with a key, drops half of the hidden units."""
    first, second = weights
    x = x.reshape(len(x), 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(x), -1)
    x = jax.nn.relu(x @ first)
    if key is not None:
        x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)
    return x @ second


def main(output="report_function"):
    """Writes a report; returns its rows."""
    images, labels = shapes.generate("test", size=200)  # NumPy arrays of your own
    rows = ss.evaluate(
        logits,
        ss.ensembles.stack([init(jax.random.key(seed)) for seed in range(3)]),
        (images, labels),
        key=jax.random.key(1),
        num_members=3,
        num_samples=10,
        prepare=lambda images: images / 255.0 - 0.5,
        batch_size=40,
        num_replicates=100,
        label="two layers",
    )
    print(ss.report.write(output, rows, title="Two layers"))
    return rows


if __name__ == "__main__":
    main()
