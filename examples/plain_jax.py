"""Plain JAX: smoothing as a function, in a network that is a function of a list."""

import jax
import jax.numpy as jnp
import optax

import spatial_smoothing as ss
from spatial_smoothing.data import shapes

SIZES = [(3, 3, 3, 8), (3, 3, 8, 16), (3, 3, 16, 32), (32, shapes.NUM_CLASSES)]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def init(key):
    """Draws the kernels of the convolutions and of the head."""
    keys = jax.random.split(key, len(SIZES))
    return list(map(jax.nn.initializers.he_normal(), keys, SIZES))


def log_probs(params, x):
    """Classifies u8[B, 32, 32, 3]."""
    *kernels, head = params
    x = x / 255.0 - 0.5
    for kernel in kernels:
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT
        )
        x = ss.smooth(jax.nn.relu(x))[:, ::2, ::2]  # smooth, then subsample
    return jax.nn.log_softmax(x.mean((1, 2)) @ head)


def main(num_steps=400):
    """Trains on the embedded data set; prints and returns scores."""
    images, labels = map(jnp.asarray, shapes.generate("train", size=2000))
    params, optimizer = init(jax.random.key(0)), optax.adam(5e-3)
    state = optimizer.init(params)

    def loss(params, rows):
        likelihoods = log_probs(params, images[rows])
        return -jnp.take_along_axis(likelihoods, labels[rows][:, None], 1).mean()

    @jax.jit
    def step(params, state, key):
        rows = jax.random.choice(key, len(images), (50,))
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return optax.apply_updates(params, updates), state

    for key in jax.random.split(jax.random.key(1), num_steps):
        params, state = step(params, state, key)
    test, truth = map(jnp.asarray, shapes.generate("test", size=500))
    tally = ss.metrics.tally(jnp.exp(log_probs(params, test)), truth)
    scores = ss.metrics.summary(tally)
    print(f"NLL {scores['nll']:.3f} {scores['accuracy']:.1%}")
    return scores


if __name__ == "__main__":
    main()
