"""NNX: a CNN with smoothing before each pool."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import spatial_smoothing as ss
from spatial_smoothing.data import shapes
from spatial_smoothing.nnx import SpatialSmoothing


class CNN(nnx.Module):
    """Convolutions, each but the last followed by smoothing and a pool."""

    def __init__(self, *, rngs):
        pool = lambda x: nnx.max_pool(x, (2, 2), (2, 2))
        conv = partial(nnx.Conv, kernel_size=(3, 3), rngs=rngs)
        self.features = nnx.Sequential(
            *(conv(3, 8), nnx.relu, SpatialSmoothing(), pool),
            *(conv(8, 16), nnx.relu, SpatialSmoothing(), pool),
            *(conv(16, 32), nnx.relu),
        )
        self.head = nnx.Linear(32, shapes.NUM_CLASSES, rngs=rngs)

    def __call__(self, x):
        """Classifies u8[B, 32, 32, 3]."""
        return self.head(self.features(x / 255.0 - 0.5).mean((1, 2)))


@nnx.jit
def step(model, optimizer, images, labels):
    """Takes one step of the optimiser."""
    losses = optax.softmax_cross_entropy_with_integer_labels
    loss = lambda model: losses(model(images), labels).mean()
    optimizer.update(model, nnx.grad(loss)(model))


def main(num_steps=400):
    """Trains on the embedded data set; prints and returns scores."""
    images, labels = map(jnp.asarray, shapes.generate("train", size=2000))
    model = CNN(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(5e-3), wrt=nnx.Param)
    for key in jax.random.split(jax.random.key(1), num_steps):
        rows = jax.random.choice(key, len(images), (50,))
        step(model, optimizer, images[rows], labels[rows])
    images, labels = map(jnp.asarray, shapes.generate("test", size=500))
    tally = ss.metrics.tally(jax.nn.softmax(model(images)), labels)
    scores = ss.metrics.summary(tally)
    print(f"NLL {scores['nll']:.3f} {scores['accuracy']:.1%}")
    return scores


if __name__ == "__main__":
    main()
