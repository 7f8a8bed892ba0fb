"""An ensemble as the mixture of its predictions, summed up one by one.

Contract of this file: a `Mixture` holds sums over predictions, so that mixtures of the
parts of an ensemble add, and memory does not grow with its size. The mean is that of
probabilities, computed on their logarithms. Its fields may carry leading axes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.ensembles import sampling
from spatial_smoothing.ensembles.apply import (
    ApplyFunction,
    Variables,
    as_apply,
    check_stochastic,
    variables_of,
)
from spatial_smoothing.ensembles.sizes import segments


@flax.struct.dataclass
class Mixture:
    """Sums over the predictions of an ensemble for B images.

    Attributes:
      size: f32[], the number of predictions, or the sum of their weights.
      log_total: f32[B, K], logarithm of the sum of the predicted probabilities.
      entropy: f32[B], sum of the entropies of the predictions, in nats.
      votes: f32[B, K], number of predictions whose most probable class is each one.
      energy: f32[B], sum of -log sum exp of the logits of the predictions.
    """

    size: jax.Array
    log_total: jax.Array
    entropy: jax.Array
    votes: jax.Array
    energy: jax.Array

    def __add__(self, other: "Mixture") -> "Mixture":
        """Joins two ensembles for the same images."""
        total = jax.tree.map(jnp.add, self, other)
        return total.replace(log_total=jnp.logaddexp(self.log_total, other.log_total))

    def sum(self) -> "Mixture":
        """Joins the ensembles along the first axis."""
        total = jax.tree.map(lambda leaf: leaf.sum(0), self)
        return total.replace(log_total=jax.nn.logsumexp(self.log_total, axis=0))

    def weighted(self, weights: jax.Array) -> "Mixture":
        """Counts every prediction more or less than once.

        The result is a plain `Mixture`, also of one that has more sums: votes and
        logits of predictions that count in part say nothing of single members.

        Args:
          weights: f32, of the shape of `size`, above 0: how often to count.
        """
        log_weights = _trailing(jnp.log(weights), self.log_total)
        return Mixture(
            self.size * weights,
            self.log_total + log_weights,
            self.entropy * _trailing(weights, self.entropy),
            self.votes * _trailing(weights, self.votes),
            self.energy * _trailing(weights, self.energy),
        )

    def log_probs(self) -> jax.Array:
        """Logarithm of the mean of the probabilities, f32[B, K]."""
        log_probs = self.log_total - jnp.log(_trailing(self.size, self.log_total))
        return jnp.minimum(log_probs, 0)  # rounding may leave them slightly above

    def mutual_information(self) -> jax.Array:
        """Entropy of the mean minus the mean entropy, in nats, f32[B].

        Source: Houlsby et al. 2011, equation 2. Rounding does not make it negative.
        """
        entropy = jax.scipy.special.entr(jnp.exp(self.log_probs())).sum(-1)
        mean = self.entropy / _trailing(self.size, self.entropy)
        return jnp.maximum(entropy - mean, 0)

    def variation_ratio(self) -> jax.Array:
        """Share of the predictions that are not of the most frequent class, f32[B]."""
        return 1 - self.votes.max(-1) / _trailing(self.size, self.entropy)

    def mean_energy(self) -> jax.Array:
        """Mean of -log sum exp of the logits, f32[B]. Source: Liu et al. 2020."""
        return self.energy / _trailing(self.size, self.energy)


@flax.struct.dataclass
class MeanProbabilities:
    """What of a `Mixture` the mean of the probabilities needs, and no more.

    Maps of many pixels and classes take most of the memory of segmentation. This has
    one of them, where a `Mixture` has two.

    Attributes:
      size: f32[], the number of predictions, or the sum of their weights.
      log_total: f32[B, ..., K], logarithm of the sum of the predicted probabilities.
    """

    size: jax.Array
    log_total: jax.Array

    def __add__(self, other: "MeanProbabilities") -> "MeanProbabilities":
        """Joins two ensembles for the same images."""
        return MeanProbabilities(
            self.size + other.size, jnp.logaddexp(self.log_total, other.log_total)
        )

    def log_probs(self) -> jax.Array:
        """Logarithm of the mean of the probabilities, f32[B, ..., K]."""
        log_probs = self.log_total - jnp.log(_trailing(self.size, self.log_total))
        return jnp.minimum(log_probs, 0)  # rounding may leave them slightly above


@flax.struct.dataclass
class LogitMixture(Mixture):
    """A `Mixture` that sums up logits, too.

    Attributes:
      logits: f32[B, K], sum of the logits of the predictions.
    """

    logits: jax.Array

    def mean_logits(self) -> jax.Array:
        """Mean of the logits, f32[B, K]."""
        return self.logits / _trailing(self.size, self.logits)

    def mean_log_probs(self) -> jax.Array:
        """Mean of the log-probabilities of the predictions, f32[B, K]."""
        # The log-probabilities of a prediction are its logits plus its free energy.
        return self.mean_logits() + self.mean_energy()[..., None]


def single(logits: jax.Array) -> Mixture:
    """Returns the mixture of one prediction, given its logits f[B, K]."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_probs = jax.nn.log_softmax(logits)
    return Mixture(
        size=jnp.ones((), logits.dtype),
        log_total=log_probs,
        entropy=jax.scipy.special.entr(jnp.exp(log_probs)).sum(-1),
        votes=jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype),
        energy=-jax.nn.logsumexp(logits, axis=-1),
    )


def single_mean(logits: jax.Array) -> MeanProbabilities:
    """Returns the mean over one prediction, given its logits f[B, ..., K]."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return MeanProbabilities(jnp.ones((), logits.dtype), jax.nn.log_softmax(logits))


def single_with_logits(logits: jax.Array) -> LogitMixture:
    """Returns `single(logits)` with the logits f[B, K] themselves."""
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return LogitMixture(**vars(single(logits)), logits=wide)


def of_pass(
    network: ApplyFunction, *, of_sample: Callable[[jax.Array], Mixture] = single
) -> Callable[[jax.Array], Mixture]:
    """Returns a function of the logits of one pass to the mixture of its predictions.

    Args:
      network: The network that makes the pass.
      of_sample: Function of the logits f[B, K] of one prediction to its mixture:
        `single`, or `single_with_logits`.

    Returns:
      `of_sample` itself for a network that makes one prediction in a pass; else a
      function of f[M, B, K] to the sum of the M mixtures.
    """
    if not network.has_members:
        return of_sample
    return lambda logits: jax.vmap(of_sample)(logits).sum()


def empty(like: Any) -> Any:
    """Returns the mixture, or the mean, of no predictions; it adds nothing.

    Args:
      like: A `Mixture` or `MeanProbabilities` of the same shapes.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return zeros.replace(log_total=jnp.full_like(zeros.log_total, -jnp.inf))


def mc_mixtures(
    key: jax.Array,
    model: Any,
    variables: Variables,
    images: jax.Array,
    *,
    sizes: Sequence[int],
    chunk: int | None = None,
    of_sample: Callable[[jax.Array], Mixture] = single,
) -> Mixture:
    """Mixtures of the first N dropout samples of a network, for all N at once.

    The samples are those of `mc_logits`. Memory does not grow with the largest size:
    each sample is added to a sum and forgotten. Of a network that makes M predictions
    in a pass, N samples are N M predictions.

    Args:
      key: Key of the dropout masks.
      model: A Linen module, an NNX module, or a function `(variables, images, key) ->
        logits`; see `as_apply`.
      variables: Variables of the network; None for those of an NNX module itself.
      images: f[B, H, W, C], as the network takes them.
      sizes: Increasing ensemble sizes N, each at least 1.
      chunk: Number of samples computed at once; see `mc_logits`.
      of_sample: `single`, or `single_with_logits` to sum up logits, too.

    Returns:
      A `Mixture` whose fields have a leading axis of sizes.

    Raises:
      ValueError: for sizes that do not increase, and as `mc_logits`.
    """
    num_samples = segments(sizes, max(sizes, default=0))[-1][1]
    chunk = sampling.checked_chunk(chunk, num_samples)
    network = as_apply(model)
    variables = variables_of(model, variables)
    check_stochastic(network, variables, images, key)
    sample = sampling.sampler(network, variables, images)
    of_logits = of_pass(network, of_sample=of_sample)
    # The sum up to sample i is written to the slot of the smallest size that it is a
    # part of. Later samples overwrite it, so that the sum up to the size itself stays.
    slots = np.searchsorted(np.asarray(sizes), np.arange(num_samples) + 1)

    def add(carry, inputs):
        (total, kept), (logits, slot) = carry, inputs
        total = total + of_logits(logits)
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=slot, axis=0)
        kept = jax.tree.map(put, kept, total)
        return (total, kept), None

    def add_chunk(carry, inputs):
        indices, slots = inputs
        logits = jax.vmap(sample)(sampling.sample_keys(key, indices))
        return jax.lax.scan(add, carry, (logits, slots))

    logits = jax.eval_shape(sample, key)
    predictions = len(logits) if network.has_members else 1  # of a pass
    like = jax.eval_shape(of_logits, logits)
    total = empty(like)
    kept = jax.tree.map(lambda x: jnp.zeros((len(sizes), *x.shape), x.dtype), like)
    samples = (jnp.arange(num_samples), jnp.asarray(slots))
    _, kept = _in_chunks(add_chunk, (total, kept), samples, chunk)
    # Each prediction counts once, so that there is nothing to add up on the device.
    counts = np.asarray(sizes) * predictions
    return kept.replace(size=jnp.asarray(counts, kept.size.dtype))


def mc_readings(
    key: jax.Array,
    model: Any,
    variables: Variables,
    images: jax.Array,
    *,
    sizes: Sequence[int],
    read: Callable[[Any, Any], Any],
    given: Any,
    chunk: int | None = None,
    of_sample: Callable[[jax.Array], Any] = single_mean,
) -> Any:
    """What a function reads off the ensembles of the first N samples, for all N.

    `mc_mixtures` keeps a mixture for each size. Where these are maps of many pixels,
    that is too much: here one mixture is kept, and what is read off it at each size.

    Args:
      key: Key of the dropout masks; the samples are those of `mc_logits`.
      model: A network; see `as_apply`.
      variables: Variables of the network.
      images: f[B, H, W, C], as the network takes them.
      sizes: S increasing ensemble sizes N, each at least 1.
      read: Function of the ensemble of one size, and of what is given for that size, to
        a pytree of the structure, shapes and types of the latter.
      given: Pytree of arrays with a leading axis S, what is given for each size.
      chunk: Number of samples computed at once; see `mc_logits`.
      of_sample: Logits of a sample to what is summed up: `single_mean`, or `single` for
        more than the mean.

    Returns:
      What was read, with a leading axis S, in place of what was given.

    Raises:
      ValueError: for sizes that do not increase, and as `mc_logits`.
    """
    num_samples = segments(sizes, max(sizes, default=0))[-1][1]
    chunk = sampling.checked_chunk(chunk, num_samples)
    network = as_apply(model)
    variables = variables_of(model, variables)
    check_stochastic(network, variables, images, key)
    sample = sampling.sampler(network, variables, images)
    # The slot of the size that is complete with each sample, -1 for none.
    slots = np.full(num_samples, -1)
    slots[np.asarray(sizes) - 1] = np.arange(len(sizes))

    def read_into(values: Any, total: Any, slot: jax.Array) -> Any:
        one = jax.tree.map(lambda leaf: leaf[slot], values)
        return jax.tree.map(
            lambda all_, new: all_.at[slot].set(new), values, read(total, one)
        )

    def add(carry, inputs):
        (total, values), (logits, slot) = carry, inputs
        total = total + of_sample(logits)
        # Reading is dear, and most samples complete no size.
        values = jax.lax.cond(
            slot >= 0, read_into, lambda values, *_: values, values, total, slot
        )
        return (total, values), None

    def add_chunk(carry, inputs):
        indices, slots = inputs
        logits = jax.vmap(sample)(sampling.sample_keys(key, indices))
        return jax.lax.scan(add, carry, (logits, slots))

    total = empty(jax.eval_shape(lambda key: of_sample(sample(key)), key))
    return _in_chunks(
        add_chunk, (total, given), (jnp.arange(num_samples), jnp.asarray(slots)), chunk
    )[1]


def _in_chunks(
    add_chunk: Callable[..., Any], carry: Any, samples: Any, chunk: int
) -> Any:
    """Calls a step of a scan for chunks of samples, in a loop.

    Args:
      add_chunk: Function of the carry and of a chunk of `samples` to the new carry and
        None.
      carry: The carry of the first chunk.
      samples: Pytree of arrays with a leading axis of samples.
      chunk: Number of samples of a chunk.

    Returns:
      The last carry.
    """
    num_samples = len(jax.tree.leaves(samples)[0])
    # Whole chunks run in a loop; what is left over is a smaller one after it.
    whole = num_samples // chunk * chunk
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), samples)
    carry, _ = jax.lax.scan(add_chunk, carry, chunks)
    if whole < num_samples:
        carry, _ = add_chunk(carry, jax.tree.map(lambda x: x[whole:], samples))
    return carry


def _trailing(size: jax.Array, values: jax.Array) -> jax.Array:
    """Gives `size` the rank of `values`, which has the axes of `size` first."""
    return size.reshape(size.shape + (1,) * (values.ndim - size.ndim))
