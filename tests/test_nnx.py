import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import spatial_smoothing as ss
from spatial_smoothing.nnx import SpatialSmoothing

MAPS = 20 * jax.random.normal(jax.random.key(0), (2, 5, 7, 3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 3.0},
        {"squash": "sigmoid", "taps": [1, 2, 1], "padding": "reflect"},
        {"squash": "none", "taps": None},
    ],
)
def test_is_the_layer_of_linen(options):
    layer = SpatialSmoothing(**options)
    expected = ss.SpatialSmoothing(**options).apply({}, MAPS)
    np.testing.assert_array_equal(layer(MAPS), expected)
    np.testing.assert_allclose(
        nnx.jit(lambda layer, x: layer(x))(layer, MAPS), expected, rtol=1e-6
    )


def test_has_no_state():
    assert not jax.tree.leaves(nnx.state(SpatialSmoothing(10.0, taps=[1, 2, 1])))


def test_norm_comes_first_and_is_part_of_the_module():
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    layer = SpatialSmoothing(norm=norm)
    maps = np.asarray(MAPS)
    normed = (maps - maps.mean((0, 1, 2))) / maps.std((0, 1, 2))
    np.testing.assert_allclose(layer(MAPS), ss.smooth(normed), atol=1e-4)
    assert len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 2


def test_gradients_pass_through_in_a_network():
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.Sequential(
                nnx.Conv(3, 4, (3, 3), rngs=rngs), SpatialSmoothing()
            )

        def __call__(self, x):
            return self.layers(x).mean((1, 2))

    network = Network(nnx.Rngs(0))
    gradients = nnx.grad(lambda network: jnp.square(network(MAPS)).sum())(network)
    leaves = jax.tree.leaves(gradients)
    assert len(leaves) == 2
    assert all(jnp.any(leaf != 0) for leaf in leaves)
