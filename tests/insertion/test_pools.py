import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import pooling

from spatial_smoothing.insertion import pools

NAMES = [(pooling, "pool"), (nn, "pool"), (pooling, "jnp")]
MAP = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))


def found():
    return [getattr(module, name) for module, name in NAMES]


ORIGINALS = found()


def test_names_are_replaced_only_inside():
    with pools.watched(lambda x: x):
        inside = found()
        with pools.watched(lambda x: x):
            assert found() == inside
        assert found() == inside
    assert found() == ORIGINALS
    assert all(a is not b for a, b in zip(inside, ORIGINALS, strict=True))


def test_names_are_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), pools.watched(lambda x: 1 / 0):
        nn.max_pool(MAP, (2, 2), (2, 2))
    assert found() == ORIGINALS
    nn.max_pool(MAP, (2, 2), (2, 2))


def test_watchers_see_and_replace_what_is_pooled():
    seen = []

    def watcher(x):
        seen.append(x)
        return x + 1

    with pools.watched(watcher), pools.watched(lambda x: 2 * x):
        result = nn.max_pool(MAP, (2, 2), (2, 2))
    assert seen[0] is MAP
    np.testing.assert_array_equal(result, nn.max_pool(2 * (MAP + 1), (2, 2), (2, 2)))


def test_other_pools_are_not_shown():
    def refuse(x):
        raise AssertionError(x.shape)

    with pools.watched(refuse):
        nn.max_pool(MAP, (2, 2))  # without strides
        nn.avg_pool(MAP[:, 0], (2,), (2,))  # one-dimensional


@pytest.mark.parametrize("maps", [MAP, MAP[0]], ids=["batch", "one map"])
def test_an_average_that_counts_sees_ones_of_the_new_size(maps):
    grown = lambda x: 2 * jnp.concatenate([x, x[..., :1, :]], axis=-2)
    options = {"padding": "SAME", "count_include_pad": False}
    pool = lambda x: nn.avg_pool(x, (3, 3), (2, 2), **options)
    with pools.watched(grown):
        result = jax.jit(pool)(maps)
    np.testing.assert_allclose(result, pool(grown(maps)), rtol=1e-6)


def test_ones_of_the_model_are_watched():
    ones = jnp.ones((1, 6, 8, 1))
    with pools.watched(lambda x: 2 * x):
        result = nn.avg_pool(ones, (2, 2), (2, 2), count_include_pad=False)
    np.testing.assert_array_equal(result, np.full((1, 3, 4, 1), 2))


def test_other_threads_see_no_difference():
    expected, results = nn.max_pool(MAP, (2, 2), (2, 2)), []
    with pools.watched(lambda x: -x):
        pooled = lambda: results.append(nn.max_pool(MAP, (2, 2), (2, 2)))
        thread = threading.Thread(target=pooled)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(results, [expected])


def test_contexts_of_two_threads_overlap():
    barrier = threading.Barrier(2, timeout=30)
    results = {}

    def pooled(number):
        barrier.wait()
        with pools.watched(lambda x: number * x):
            barrier.wait()
            results[number] = nn.max_pool(MAP, (2, 2), (2, 2))
        barrier.wait()

    threads = [threading.Thread(target=pooled, args=[number]) for number in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (2, 3):
        expected = nn.max_pool(number * MAP, (2, 2), (2, 2))
        np.testing.assert_array_equal(results[number], expected)
    assert found() == ORIGINALS


def test_what_jax_has_traced_outside_is_traced_again_inside():
    pool = jax.jit(lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    plain = pool(MAP)
    with pools.watched(lambda x: x + 1):
        np.testing.assert_allclose(pool(MAP), plain + 1, rtol=1e-5)
    np.testing.assert_array_equal(pool(MAP), plain)
