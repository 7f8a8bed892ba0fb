"""Proper scores and ranks of single examples.

Contract of this file: `probs` are f[B, K], each row sums to one; `labels` are i32[B] in
[0, K).
"""

import jax
import jax.numpy as jnp


def nll(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of each example, in nats; infinite where it was 0.

    Args:
      probs: f[B, K].
      labels: i32[B].

    Returns:
      f[B].
    """
    return -jnp.log(jnp.take_along_axis(probs, labels[:, None], axis=-1)[:, 0])


def brier(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Brier score of each example, in [0, 2]: sum over classes of (p - one-hot)^2.

    Arguments and result as `nll`. Source: Brier 1950.
    """
    one_hot = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    return jnp.square(probs - one_hot).sum(-1)


def in_top(probs: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether the label is among the k most probable classes; bool[B].

    Of equal probabilities the higher class goes first; the reference leaves it open.
    """
    of_label = jnp.take_along_axis(probs, labels[:, None], axis=-1)
    later = jnp.arange(probs.shape[-1])[None] > labels[:, None]
    ahead = (probs > of_label) | ((probs == of_label) & later)
    return ahead.sum(-1) < k
