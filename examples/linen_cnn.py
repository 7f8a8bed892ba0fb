"""Linen: smoothing and MC dropout in a CNN that knows of neither."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import spatial_smoothing as ss
from spatial_smoothing.data import shapes
from spatial_smoothing.insertion import add_mc_dropout, add_smoothing


class CNN(nn.Module):
    """An ordinary network."""

    @nn.compact
    def __call__(self, x):
        """Classifies u8[B, 32, 32, 3]."""
        x = x / 255.0 - 0.5
        for features in (8, 16):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        return nn.Dense(shapes.NUM_CLASSES)(x.mean((1, 2)))


def main(num_steps=400):
    """Trains on the embedded data set; prints and returns scores of ensembles."""
    model = add_mc_dropout(add_smoothing(CNN()), 0.2)  # before each max_pool
    images, labels = map(jnp.asarray, shapes.generate("train", size=2000))
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    optimizer = optax.adam(5e-3)
    state = optimizer.init(variables)

    def loss(variables, rows, key):
        logits = model.apply(variables, images[rows], train=True, rngs={"dropout": key})
        losses = optax.softmax_cross_entropy_with_integer_labels
        return losses(logits, labels[rows]).mean()

    @jax.jit
    def step(variables, state, key):
        order, dropout = jax.random.split(key)
        rows = jax.random.choice(order, len(images), (50,))
        gradients = jax.grad(loss)(variables, rows, dropout)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(variables, updates), state

    for key in jax.random.split(jax.random.key(1), num_steps):
        variables, state = step(variables, state, key)
    test, truth = map(jnp.asarray, shapes.generate("test", size=200))
    probs = ss.mc_dropout(jax.random.key(2), model, variables, test, num_samples=10)
    for size, mean in zip((1, 10), ss.prefix_means(probs, sizes=(1, 10)), strict=True):
        scores = ss.metrics.summary(ss.metrics.tally(mean, truth))
        print(f"{size:2} samples: NLL {scores['nll']:.3f} {scores['accuracy']:.1%}")
    return scores


if __name__ == "__main__":
    main()
