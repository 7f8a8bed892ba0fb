"""How many frames of a stream a network segments in a second, measured.

Contract of this file: one stream of single frames, on one device, as they come: each
frame is predicted when the one before is done. Samples of a frame are computed one
after the other.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing.ensembles import temporal
from spatial_smoothing.ensembles.apply import ApplyFunction, Variables
from spatial_smoothing.ensembles.mixtures import empty, single_mean
from spatial_smoothing.ensembles.sampling import sampler

_SECONDS = 1.0  # of a measurement, at least
_MOST = 30  # frames of a measurement


def compile_times(
    network: ApplyFunction, *, prepare: Callable[[jax.Array], jax.Array]
) -> Callable[..., float]:
    """Compiles `frames_per_second(variables, frame, num_samples, smooths)`.

    Args:
      network: The network, with logits f[B, H, W, K].
      prepare: Raw images to those that the network takes.

    Returns:
      A function of variables, a frame u8[1, H, W, 3], the number of dropout samples
      that are averaged (0 for one pass without dropout) and whether predictions are
      smoothed over time, to the number of frames in a second. Numbers of samples do not
      have it compiled anew.
    """

    def mean(variables: Variables, key: jax.Array, frame: jax.Array, count) -> Any:
        sample = sampler(network, variables, prepare(frame))
        add = lambda i, total: total + single_mean(sample(jax.random.fold_in(key, i)))
        like = jax.eval_shape(lambda key: single_mean(sample(key)), key)
        return jax.lax.fori_loop(0, count, add, empty(like))

    def alone(variables: Variables, key: jax.Array, frame: jax.Array, count) -> Any:
        return single_mean(network.apply(variables, prepare(frame), None))

    def step_of(predict: Callable[..., Any]) -> Callable[..., Any]:
        def step(variables, key, frame, state, count, smooths):
            log_probs = predict(variables, key, frame, count).log_probs()
            never = jnp.zeros(1, bool)
            return jax.lax.cond(
                smooths,
                lambda state: temporal.log_update(state, log_probs, never),
                lambda state: (state, log_probs),
                state,
            )

        return jax.jit(step)

    steps = {False: step_of(alone), True: step_of(mean)}

    def frames_per_second(variables, frame, num_samples: int, smooths: bool) -> float:
        frame = jnp.asarray(frame)
        key, step = jax.random.key(0), steps[num_samples > 0]
        shape = jax.eval_shape(network.apply, variables, prepare(frame), None).shape
        state = temporal.init_log_state(jax.ShapeDtypeStruct(shape, jnp.float32))

        def run(count: int) -> float:
            state_now, begin = state, time.perf_counter()
            for index in range(count):
                state_now, probs = step(
                    variables,
                    jax.random.fold_in(key, index),
                    frame,
                    state_now,
                    num_samples,
                    smooths,
                )
                # A stream waits for its prediction before the next frame comes.
                jax.block_until_ready(probs)
            return (time.perf_counter() - begin) / count

        # The state that a step returns is on a device, and that of the first step is
        # not: JAX compiles for either.
        run(2)
        count = math.ceil(_SECONDS / max(run(2), 1e-6))
        return 1 / run(min(max(count, 2), _MOST))

    return frames_per_second
