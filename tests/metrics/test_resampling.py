import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from random_examples import CLASSES, examples

from spatial_smoothing import metrics

KEY = jax.random.key(0)


def test_resamples_are_multinomial():
    keys = jax.random.split(KEY, 4000)
    counts = np.array(jax.vmap(lambda key: metrics.resample(key, 10))(keys))
    np.testing.assert_array_equal(counts.sum(1), 10)
    # Variance n p (1 - p), covariance -n p^2.
    covariance = np.eye(10) - 0.1
    np.testing.assert_allclose(np.cov(counts.T), covariance, atol=0.1)
    observed = np.bincount(np.int64(counts[:, 3]), minlength=11)[:5]
    expected = 4000 * scipy.stats.binom.pmf(np.arange(5), 10, 0.1)
    np.testing.assert_allclose(observed, expected, atol=5 * np.sqrt(expected).max())


def test_replicates_spread_as_the_standard_error():
    values = np.float32(np.random.default_rng(0).exponential(size=400))
    means = metrics.bootstrap(
        KEY, lambda w: {"mean": w @ values / 400}, 400, num_replicates=4000, chunk=500
    )["mean"]
    error = values.std() / 20
    assert means.shape == (4000,)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * error / np.sqrt(4000))
    assert means.std() == pytest.approx(error, rel=0.05)
    for level, z in ((0.95, 1.96), (0.68, 0.9945)):
        low, high = metrics.interval(means, level=level)
        assert high - low == pytest.approx(2 * z * error, rel=0.08)
        assert np.mean((low < means) & (means < high)) == pytest.approx(level, abs=1e-3)


def test_replicates_depend_on_their_number_alone():
    def first(weights):
        return weights[:3]

    few, many = (
        metrics.bootstrap(KEY, first, 20, num_replicates=number, chunk=chunk)
        for number, chunk in ((5, 50), (13, 4))
    )
    np.testing.assert_array_equal(few, many[:5])
    other = metrics.bootstrap(jax.random.key(1), first, 20, num_replicates=5)
    assert not np.array_equal(few, other)


def test_a_table_is_bootstrapped_and_compared():
    given = examples()
    score = functools.partial(metrics.table, num_classes=CLASSES)
    first = functools.partial(score, given)
    replicates = metrics.bootstrap(KEY, first, 150, num_replicates=6, chunk=3)
    weights = metrics.resample(jax.random.fold_in(KEY, 5), 150)
    for name, value in first(weights).items():
        assert replicates[name][5] == pytest.approx(float(value), abs=1e-6)
    copy = jax.tree.map(lambda field: jnp.array(field, copy=True), given)
    same = metrics.paired(
        KEY, first, functools.partial(score, copy), 150, num_replicates=6, chunk=3
    )
    assert same.keys() == replicates.keys()
    np.testing.assert_array_equal(list(same.values()), 0)


def test_differences_are_of_the_same_examples():
    rng = np.random.default_rng(0)
    common, noise = rng.standard_normal((2, 300)).astype(np.float32)

    def mean(values):
        return lambda weights: weights @ values / 300

    difference = metrics.paired(
        KEY, mean(common + 0.1 * noise), mean(common), 300, num_replicates=2000
    )
    assert difference.std() == pytest.approx(0.1 * noise.std() / np.sqrt(300), rel=0.1)
    swapped = metrics.paired(
        KEY, mean(common), mean(common + 0.1 * noise), 300, num_replicates=2000
    )
    np.testing.assert_allclose(swapped, -difference, atol=1e-7)


def test_intervals_are_quantiles_and_hide_no_nan():
    values = np.arange(101, dtype=np.float32)
    low, high = metrics.interval({"a": values}, level=0.9)["a"]
    assert (low, high) == pytest.approx((5, 95), rel=1e-5)
    values[3] = np.nan
    assert np.isnan(metrics.interval(values)).all()


def test_unusable_numbers_are_refused():
    for name in ("num_examples", "num_replicates", "chunk"):
        options = {"num_examples": 3, name: 0}
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            metrics.bootstrap(KEY, jnp.sum, **options)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 95"):
        metrics.interval(np.ones(3), level=95)
