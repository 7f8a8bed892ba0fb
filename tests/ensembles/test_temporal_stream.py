import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import ensembles
from spatial_smoothing.ensembles import temporal

GOLDEN = golden.arrays("temporal")
KEY = jax.random.key(0)


class Linear(nn.Module):
    """Softmax regression whose inputs are dropped where there is a key."""

    rate: float = 0.4

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(x.shape[0], -1)
        live = self.rate > 0 and self.has_rng("dropout")
        return nn.Dense(4)(nn.Dropout(self.rate, deterministic=not live)(x))


RNG = np.random.default_rng(1)
FRAMES_U8 = RNG.integers(0, 256, (7, 2, 2, 3, 3)).astype(np.uint8)
VARIABLES = {
    "params": {
        "Dense_0": {
            "kernel": jnp.float32(RNG.standard_normal((18, 4))),
            "bias": jnp.float32(RNG.standard_normal(4)),
        }
    }
}


def prepare(images):
    return images.astype(jnp.float32) / 255


def folded(stream, frames=FRAMES_U8, *, mode=jax.jit):
    """Smoothed and single predictions of a loop, and the last state."""
    state, smoothed, single = mode(stream.init)(frames[0]), [], []
    step = mode(stream.step)
    for frame in frames:
        state, probs = step(state, KEY, frame)
        smoothed.append(probs)
        single.append(state.latest)
    return np.stack(smoothed), np.stack(single), state


@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_stream_smooths_samples_that_differ_from_frame_to_frame(num_samples):
    model = Linear()
    stream = temporal.stream(
        model, VARIABLES, prepare=prepare, num_samples=num_samples, decay=0.5
    )
    smoothed, single, state = folded(stream)
    sample = jax.jit(
        lambda number, frame: ensembles.mc_dropout(
            jax.random.fold_in(KEY, number),
            model,
            VARIABLES,
            prepare(frame),
            num_samples=num_samples,
        )
    )
    expected = np.stack([sample(*args).mean(0) for args in enumerate(FRAMES_U8)])
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    for now in range(len(expected)):
        weights = np.exp(-0.5 * np.arange(now, -1, -1))
        windowed = np.tensordot(weights / weights.sum(), expected[: now + 1], axes=1)
        np.testing.assert_allclose(smoothed[now], windowed, rtol=1e-5)
    assert state.frame == len(FRAMES_U8)


def test_masks_are_fresh_for_every_frame():
    still = np.repeat(FRAMES_U8[:1], 7, axis=0)
    _, dropped, _ = folded(temporal.stream(Linear(), VARIABLES, prepare=prepare), still)
    assert len(np.unique(dropped[:, 0, 0])) > 3
    plain = temporal.stream(Linear(rate=0.0), VARIABLES, prepare=prepare)
    smoothed, single, _ = folded(plain, still)
    np.testing.assert_array_equal(single, single[:1].repeat(7, axis=0))
    np.testing.assert_allclose(smoothed, single, rtol=1e-6)


def test_a_stream_is_the_same_in_a_loop_in_jit_and_in_a_scan():
    stream = temporal.stream(Linear(), VARIABLES, prepare=prepare)
    smoothed, _, state = folded(stream)
    eager, _, _ = folded(stream, FRAMES_U8[:2], mode=lambda function: function)
    np.testing.assert_allclose(eager, smoothed[:2], rtol=1e-6)
    scanned_state, scanned = jax.lax.scan(
        lambda state, frame: stream.step(state, KEY, frame),
        stream.init(FRAMES_U8[0]),
        FRAMES_U8,
    )
    np.testing.assert_allclose(scanned, smoothed, rtol=1e-6)
    assert scanned_state.frame == state.frame


def test_the_network_runs_once_a_frame():
    runs = []

    class Counted(Linear):
        @nn.compact
        def __call__(self, x, *, train=False):
            jax.debug.callback(lambda: runs.append(1))
            return super().__call__(x, train=train)

    stream = temporal.stream(Counted(), VARIABLES, prepare=prepare, chunk=1)
    folded(stream)
    jax.effects_barrier()
    assert len(runs) == len(FRAMES_U8)


def test_unusable_streams_are_refused():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        temporal.stream(Linear(), VARIABLES, prepare=prepare, num_samples=0)
    with pytest.raises(ValueError, match="decay must be at least 0 and finite, got -1"):
        temporal.stream(Linear(), VARIABLES, prepare=prepare, decay=-1)


def test_streams_on_the_scale_of_logarithms_equal_golden_values():
    probs = GOLDEN["stream/probs"]  # T, B, K
    state = temporal.init_log_state(jnp.float32(probs[0]))
    for time, frame in enumerate(probs):
        starts = jnp.full(len(frame), time == 0)
        log_probs = jnp.log(jnp.float32(frame))
        state, smooth = temporal.log_update(state, log_probs, starts)
        expected = GOLDEN["stream/mean"][time]
        np.testing.assert_allclose(jnp.exp(smooth), expected, rtol=2e-5)
    # Every stream may begin anew at another time.
    starts = jnp.arange(len(frame)) == 1
    _, smooth = temporal.log_update(state, log_probs, starts)
    np.testing.assert_allclose(jnp.exp(smooth[1]), frame[1], rtol=1e-5)
    assert not np.allclose(jnp.exp(smooth[0]), frame[0], rtol=1e-2)


def test_streams_on_the_scale_of_logarithms_do_not_underflow():
    state = temporal.init_log_state(jnp.zeros((1, 2)))
    never, always = jnp.zeros(1, bool), jnp.ones(1, bool)
    certain = jnp.float32([[-300, 0]])
    state, _ = temporal.log_update(state, certain, always)
    _, smooth = temporal.log_update(state, certain, never)
    np.testing.assert_allclose(smooth[0, 0], -300, rtol=1e-6)
