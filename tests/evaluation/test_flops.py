"""The operations of a prediction, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import ensembles, models
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.evaluation.flops import PassFlops, gflops, pass_flops
from spatial_smoothing.runtime import random_bits

IMAGE = (32, 32, 3)


def shapes(model):
    images = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    return jax.eval_shape(model.init, random_bits.key(0), images)


def convolution(size, channels, features, *, taps=3, stride=1):
    """Twice the products of a convolution whose padding is not counted."""
    reach = taps // 2
    places = range(0, size, stride)
    along = sum(
        0 <= place + offset < size
        for place in places
        for offset in range(-reach, reach + 1)
    )
    return 2 * along**2 * channels * features


def products(width):
    """Of a ResNet with a stage of one basic block: stem, block, head."""
    stem = convolution(32, 3, width)
    return stem, 2 * convolution(32, width, width) + 2 * width * 10


def test_operations_of_a_network_are_those_of_its_convolutions():
    """The rest, such as normalisation, is a few operations for each value."""
    width = 16
    model = models.build("resnet_mcdo_18", num_classes=10, width=width, stages=(1,))
    found = pass_flops(ensembles.as_apply(model), shapes(model), image_shape=IMAGE)
    values = 32 * 32 * width
    for part, exact, layers in zip(found, products(width), (1, 2), strict=True):
        assert exact < part < exact + 12 * layers * values
    # Random bits are no floating-point operations: dropout changes nothing.
    plain = models.build("resnet_dnn_18", num_classes=10, width=width, stages=(1,))
    whole = pass_flops(ensembles.as_apply(plain), shapes(plain), image_shape=IMAGE)
    assert sum(whole) == pytest.approx(sum(found), rel=1e-3)


def test_dropout_behind_the_stem_leaves_the_stem_shared():
    build = lambda **fields: models.build(
        "preresnet_mcdo_18", num_classes=10, width=4, stages=(1, 1), **fields
    )
    usual, everywhere, last = (
        pass_flops(ensembles.as_apply(model), shapes(model), image_shape=IMAGE)
        for model in (
            build(),
            build(dropout_placement="all"),
            build(dropout_placement="last"),
        )
    )
    assert everywhere == usual
    assert usual.shared == pytest.approx(convolution(32, 3, 4), rel=0.01)
    # Normalisation, pooling and a dense layer are all that a last dropout repeats.
    assert last.of_sample < 20 * 16 * 16 * 8
    assert sum(last) == pytest.approx(sum(usual), rel=1e-3)


def test_an_undivided_network_counts_with_its_whole_pass():
    """One pass may make the predictions of several members."""
    weights = jnp.zeros((3, 5 * 5 * 2, 7))  # members, values, classes

    def predict(weights, images):
        return jnp.einsum("bi,mik->bmk", images.reshape(len(images), -1), weights)

    network = ensembles.as_apply(predict)
    found = pass_flops(network, weights, image_shape=(5, 5, 2))
    assert found == PassFlops(0.0, 3 * 2 * 50 * 7)


def test_samples_and_members_add_up():
    flops = PassFlops(shared=1e9, of_sample=2e9)
    for name, expected in (
        (Ensemble((0,), 1), 3),
        (Ensemble((0,), 5), 11),
        (Ensemble((0, 1), 5, together=True), 22),
        (Ensemble((0,), 5, temporal=True), 11),
    ):
        np.testing.assert_allclose(gflops(name, flops), expected)
