import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from spatial_smoothing.metrics import consistency

GOLDEN = {
    name.removeprefix("sequences/"): value
    for name, value in golden.arrays("temporal").items()
    if name.startswith("sequences/")
}
PROBS = GOLDEN["probs"].swapaxes(0, 1)  # [T, B, K]
LOG_PROBS = jnp.float32(np.log(PROBS))


def one_hot(classes, num_classes=3):
    """Certain predictions, f[T, 1, K], of classes [T]."""
    return np.eye(num_classes)[classes][:, None]


def logs(probs):
    with np.errstate(divide="ignore"):
        return jnp.float32(np.log(probs))


@pytest.mark.parametrize("mode", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("consistency", consistency.consistency),
        (
            "flip_rate_first",
            functools.partial(consistency.flip_rate, against="first"),
        ),
        ("cec", consistency.cec),
        ("cec_sum", consistency.cec_sum),
        ("cec_sum_earlier", functools.partial(consistency.cec_sum, target="earlier")),
    ],
)
def test_sequences_equal_golden_values(mode, name, function):
    of_sequences = mode(function)(LOG_PROBS)
    assert of_sequences.shape == PROBS.shape[1:2]
    np.testing.assert_allclose(of_sequences.mean(), GOLDEN[name], rtol=1e-6)


def test_consistency_of_pixels_equals_the_golden_value():
    arrays = golden.arrays("temporal")
    logits = arrays["frames/logits"].reshape(6, -1, 11)
    value = consistency.consistency(logits).mean()
    np.testing.assert_allclose(value, arrays["frames/consistency"], rtol=1e-6)


def test_relative_confidence_equals_golden_values():
    of_frames = consistency.relative_confidence(LOG_PROBS, GOLDEN["labels"].T)
    np.testing.assert_allclose(of_frames.T, GOLDEN["relative_confidence"], rtol=1e-5)
    assert (of_frames <= 1).all()


def test_sequences_equal_a_loop():
    rng = np.random.default_rng(0)
    log_probs = np.float32(
        scipy.special.log_softmax(rng.standard_normal((6, 3, 4)), -1)
    )
    probs = np.exp(np.float64(log_probs))
    classes = probs.argmax(-1)
    for b in range(3):
        flips = [classes[t, b] != classes[t - 1, b] for t in range(1, 6)]
        moved = [classes[t, b] != classes[0, b] for t in range(1, 6)]
        entropies = [
            -sum(probs[t, b, k] * np.log(probs[t - 1, b, k]) for k in range(4))
            for t in range(1, 6)
        ]
        for function, expected in [
            (consistency.flip_rate, np.mean(flips)),
            (functools.partial(consistency.flip_rate, against="first"), np.mean(moved)),
            (consistency.consistency, 1 - np.mean(flips)),
            (consistency.cec_sum, np.mean(entropies)),
            (consistency.cec, np.mean(entropies) / 4),
        ]:
            np.testing.assert_allclose(function(log_probs)[b], expected, rtol=1e-5)


def test_flips_of_a_known_sequence():
    probs = one_hot([0, 1, 1, 0, 0, 2])
    np.testing.assert_allclose(consistency.flip_rate(probs), [3 / 5], rtol=1e-6)
    first = consistency.flip_rate(probs, against="first")
    np.testing.assert_allclose(first, [3 / 5], rtol=1e-6)
    probs = one_hot([0, 1, 1, 1])
    np.testing.assert_allclose(consistency.flip_rate(probs), [1 / 3], rtol=1e-6)
    first = consistency.flip_rate(probs, against="first")
    np.testing.assert_allclose(first, [1], rtol=1e-6)
    np.testing.assert_allclose(consistency.consistency(probs), [2 / 3], rtol=1e-6)


def test_cross_entropy_of_equal_frames_is_the_entropy():
    probs = np.repeat(np.float64([[[1 / 4, 1 / 2, 1 / 4]]]), 3, axis=0)
    np.testing.assert_allclose(
        consistency.cec_sum(logs(probs)), [1.5 * np.log(2)], rtol=1e-6
    )


def test_certain_predictions_have_no_nan():
    """0 log 0 = 0; a class that one frame excludes is infinitely surprising."""
    np.testing.assert_array_equal(consistency.cec_sum(logs(one_hot([1, 1]))), [0])
    torn = np.array([[[0.5, 0.5, 0]], [[1, 0, 0]]])
    later = consistency.cec_sum(logs(torn))
    np.testing.assert_allclose(later, [np.log(2)], rtol=1e-6)
    assert consistency.cec_sum(logs(torn), target="earlier") == np.inf
    assert np.isnan(consistency.cec(jnp.full((2, 1, 3), jnp.nan))).all()


def test_log_probabilities_stay_finite_where_probabilities_are_zero():
    log_probs = jax.nn.log_softmax(jnp.float32([[[0, 200, 0]], [[300, 0, 0]]]))
    np.testing.assert_allclose(consistency.cec_sum(log_probs), [200], rtol=1e-6)
    labels = jnp.array([[0], [1]])
    np.testing.assert_array_equal(
        consistency.relative_confidence(log_probs, labels), [[0], [0]]
    )
    gradient = jax.grad(lambda z: consistency.cec(jax.nn.log_softmax(z)).sum())
    assert np.isfinite(gradient(log_probs)).all()


@pytest.mark.parametrize(
    "function", [consistency.consistency, consistency.flip_rate, consistency.cec]
)
@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 3)])
def test_what_is_no_sequence_is_refused(function, shape):
    with pytest.raises(ValueError, match=r"at least two frames, got shape \["):
        function(jnp.zeros(shape))


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="unknown reference frame 'frist'; did you"):
        consistency.flip_rate(LOG_PROBS, against="frist")
    with pytest.raises(ValueError, match=r"target frame 'now'; .*later, earlier"):
        consistency.cec(LOG_PROBS, target="now")
