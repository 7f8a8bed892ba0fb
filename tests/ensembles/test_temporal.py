import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import metrics
from spatial_smoothing.ensembles import mixtures, temporal

GOLDEN = golden.arrays("temporal")
KEY = jax.random.key(0)
DECAY = np.exp(-0.8)


def softmax(logits):
    return scipy.special.softmax(np.float64(logits), axis=-1)


FRAMES = softmax(GOLDEN["frames/logits"])
MODES = pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])


def random_probs(*shape, seed=0, spread=2.0):
    return softmax(spread * np.random.default_rng(seed).standard_normal(shape))


def looped(probs, past, future, decay):
    """Every window by itself."""
    weights = np.array([np.exp(-decay * abs(t)) for t in range(-past, future + 1)])
    weights /= weights.sum()
    return np.stack(
        [
            np.tensordot(weights, probs[now - past : now + future + 1], axes=1)
            for now in range(past, len(probs) - future)
        ]
    )


@pytest.mark.parametrize(("past", "future"), [(5, 0), (2, 1)])
def test_importance_is_that_of_the_paper(past, future):
    weights = temporal.importance(past=past, future=future)
    golden_weights = GOLDEN[f"weights/{past}_{future}"]
    np.testing.assert_allclose(weights, golden_weights, rtol=1e-6)
    assert weights.dtype == np.float32


def test_mixtures_of_frames_are_those_of_their_probabilities():
    logits = 2 * np.random.default_rng(0).standard_normal((7, 3, 4, 5))  # T, S, B, K
    samples = jax.vmap(jax.vmap(mixtures.single))(np.float32(logits))
    frames = jax.vmap(lambda mixture: mixture.sum())(samples)
    found = temporal.smooth_mixtures(frames, past=2, decay=0.5)
    expected = temporal.temporal_log_smooth(frames.log_probs(), past=2, decay=0.5)
    np.testing.assert_allclose(found.log_probs(), expected, atol=2e-6)
    weights = scipy.special.softmax(0.5 * np.arange(3))
    votes = np.eye(5)[logits.argmax(-1)].mean(1)
    energy = -scipy.special.logsumexp(logits, axis=-1).mean(1)
    for start in range(5):
        window = slice(start, start + 3)
        shares = np.tensordot(weights, votes[window], 1)
        ratio = found.variation_ratio()[start]
        np.testing.assert_allclose(ratio, 1 - shares.max(-1), atol=1e-6)
        mean = np.tensordot(weights, energy[window], 1)
        np.testing.assert_allclose(found.mean_energy()[start], mean, rtol=1e-5)


def test_importance_has_closed_forms():
    weights = temporal.importance(past=3, decay=np.log(2))
    np.testing.assert_allclose(weights, np.array([1, 2, 4, 8]) / 15, rtol=1e-6)
    np.testing.assert_allclose(
        temporal.importance(past=1, future=3, decay=0), np.full(5, 1 / 5), rtol=1e-6
    )
    np.testing.assert_array_equal(temporal.importance(past=2, decay=1e4), [0, 0, 1])
    np.testing.assert_array_equal(temporal.importance(past=0), [1])


@MODES
@pytest.mark.parametrize(("past", "future"), [(5, 0), (2, 1)])
def test_smoothing_equals_golden_values(mode, past, future):
    options = {"past": past, "future": future}
    expected = GOLDEN[f"smooth/{past}_{future}"]
    smoothed = mode(functools.partial(temporal.temporal_smooth, **options))(
        jnp.float32(FRAMES)
    )
    assert smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed[-1], expected, rtol=2e-6)
    logs = mode(functools.partial(temporal.temporal_log_smooth, **options))(
        jax.nn.log_softmax(GOLDEN["frames/logits"])
    )
    np.testing.assert_allclose(logs[-1], np.log(expected), atol=2e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("single", {"past": 0}),
        ("smooth", {}),
        ("mean", {"decay": 0}),
    ],
)
def test_scores_of_smoothed_pixels_equal_golden_values(name, options):
    labels = GOLDEN["frames/labels"].ravel()
    probs = temporal.temporal_smooth(jnp.float32(FRAMES), **options)[-1]
    tally = metrics.tally(probs.reshape(-1, 11), labels, labels >= 0)
    scores = metrics.summary(tally, definition="reference")
    scores["nll"] = metrics.summary(tally)["nll"]
    names = "nll accuracy accuracy_90 unconfidence_90 iou iou_90 frequency_90 ece"
    np.testing.assert_allclose(
        [scores[name] for name in names.split()], GOLDEN[f"scores/{name}"], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("past", "future", "decay"), [(5, 0, 0.8), (0, 0, 0.8), (1, 3, 0.3), (4, 2, 0.0)]
)
@pytest.mark.parametrize("shape", [(9, 5), (9, 2, 3, 5)])
def test_smoothing_equals_a_loop_over_windows(past, future, decay, shape):
    probs = random_probs(*shape)
    options = {"past": past, "future": future, "decay": decay}
    expected = looped(probs, past, future, decay)
    smoothed = temporal.temporal_smooth(jnp.float32(probs), **options)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-5)
    logs = temporal.temporal_log_smooth(jnp.float32(np.log(probs)), **options)
    np.testing.assert_allclose(logs, np.log(expected), atol=1e-5)


def test_smoothing_reduced_precision_averages_in_float32():
    probs = random_probs(6, 3, 5)
    half = jnp.asarray(probs, jnp.bfloat16)
    smoothed = temporal.temporal_smooth(half)
    assert smoothed.dtype == np.float32
    expected = looped(np.float64(half), 5, 0, 0.8)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-6)


def test_log_smoothing_does_not_underflow():
    log_probs = np.float32([[-300, 0], [-np.inf, 0], [-900, 0]])
    (actual,) = temporal.temporal_log_smooth(log_probs, past=2)
    expected = -300 - 1.6 - np.log(1 + DECAY + DECAY**2)
    np.testing.assert_allclose(actual[0], expected, rtol=1e-6)
    assert temporal.temporal_smooth(np.exp(log_probs), past=2)[0, 0] == 0


def test_gradient_of_a_frame_is_its_importance():
    probs = jnp.float32(random_probs(8, 2, 3))
    first = jax.jit(lambda probs: temporal.temporal_smooth(probs)[1].sum())
    gradient = jax.grad(first)(probs)
    weights = GOLDEN["weights/5_0"][:, None, None]
    expected = np.concatenate([0 * weights[:1], weights, 0 * weights[:1]])
    np.testing.assert_allclose(
        gradient, np.broadcast_to(expected, probs.shape), rtol=1e-6
    )
    of_logs = jax.jit(lambda logs: temporal.temporal_log_smooth(logs).sum())
    gradient = jax.grad(of_logs)(jnp.log(probs))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(), 3 * 2 * 3, rtol=1e-5)


@pytest.mark.parametrize("smooth", [temporal.temporal_smooth, temporal.importance])
def test_numbers_out_of_range_are_refused(smooth):
    args = [jnp.ones((9, 2)) / 2] if smooth is temporal.temporal_smooth else []
    for name in ("past", "future"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            smooth(*args, **{name: -1})
    for decay in (-0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"decay must be at least 0 and finite"):
            smooth(*args, decay=decay)


@pytest.mark.parametrize(
    "smooth", [temporal.temporal_smooth, temporal.temporal_log_smooth]
)
def test_sequences_that_are_too_short_are_refused(smooth):
    message = "2 past and 1 future frames needs a sequence of at least 4 frames, got 3"
    with pytest.raises(ValueError, match=message):
        smooth(jnp.ones((3, 2)) / 2, past=2, future=1)


def run_updates(probs, decay=0.8, state=None):
    """Means after each frame, by `lax.scan`."""
    start = temporal.init_state(probs.shape[1:]) if state is None else state
    return jax.lax.scan(
        functools.partial(temporal.update, decay=decay), start, jnp.float32(probs)
    )


def test_streaming_equals_golden_values():
    _, means = run_updates(GOLDEN["stream/probs"])
    np.testing.assert_allclose(means, GOLDEN["stream/mean"], rtol=1e-6)


def test_streaming_from_a_steady_state_is_the_moving_average():
    probs = GOLDEN["stream/probs"]
    state = temporal.steady_state(jnp.float32(probs[0]))
    _, means = run_updates(probs, state=state)
    np.testing.assert_allclose(means, GOLDEN["stream/moving_average"], rtol=1e-6)
    with pytest.raises(ValueError, match="decay of 0 has no steady state"):
        temporal.steady_state(jnp.float32(probs[0]), decay=0)


def test_streaming_is_the_same_in_a_loop_and_in_a_scan():
    probs = jnp.float32(random_probs(7, 2, 5))
    state, means = temporal.init_state((2, 5)), []
    for frame in probs:
        state, mean = temporal.update(state, frame, decay=0.3)
        means.append(mean)
    scanned_state, scanned = run_updates(probs, decay=0.3)
    np.testing.assert_allclose(np.stack(means), scanned, rtol=1e-6)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), state, scanned_state
    )


def test_streaming_is_a_window_over_all_frames():
    """Exactly while the window holds all; nearly, when older ones weigh nothing."""
    probs = jnp.float32(random_probs(60, 3, 4))
    _, means = run_updates(probs)
    for now in (0, 3, 11):
        windowed = temporal.temporal_smooth(probs[: now + 1], past=now)
        np.testing.assert_allclose(means[now], windowed[0], rtol=1e-6)
    windowed = temporal.temporal_smooth(probs, past=30)
    np.testing.assert_allclose(means[30:], windowed, rtol=1e-6)


def test_streaming_of_nothing_forgotten_is_the_mean():
    probs = random_probs(9, 2, 4)
    _, means = run_updates(probs, decay=0)
    np.testing.assert_allclose(means[-1], probs.mean(0), rtol=1e-6)


def test_streaming_does_not_drift():
    """Over a hundred thousand frames, against float64."""
    probs = np.float32(random_probs(100_000, 1, 3))
    state, means = run_updates(probs)
    total, weight, expected = np.zeros((1, 3)), 0.0, []
    for frame in np.float64(probs):
        total, weight = frame + DECAY * total, 1 + DECAY * weight
        expected.append(total / weight)
    np.testing.assert_allclose(means, np.stack(expected), rtol=1e-6)
    np.testing.assert_allclose(means.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(state.weight, 1 / (1 - DECAY), rtol=1e-6)
