"""A small network's weights in the names of the paper's authors, for the tests."""

import jax
import numpy as np

import spatial_smoothing as ss

# A residual network of two stages, small enough to write down.
SMALL = {"num_classes": 10, "width": 4, "stages": (1, 1)}
SHAPES = {
    "layer0.0.weight": (4, 3, 3, 3),
    "layer0.1": (4,),
    "layer1.0.conv1.weight": (4, 4, 3, 3),
    "layer1.0.bn1": (4,),
    "layer1.0.conv2.weight": (4, 4, 3, 3),
    "layer1.0.bn2": (4,),
    "layer2.0.conv1.weight": (8, 4, 3, 3),
    "layer2.0.bn1": (8,),
    "layer2.0.conv2.weight": (8, 8, 3, 3),
    "layer2.0.bn2": (8,),
    "layer2.0.shortcut.0.weight": (8, 4, 1, 1),
    "layer2.0.shortcut.1": (8,),
    "classifier.0.dense.weight": (10, 8),
    "classifier.0.dense.bias": (10,),
}
NORM = ("weight", "bias", "running_mean", "running_var")


def small_state(seed=0):
    """The state dictionary of `resnet_dnn_18` with `SMALL`, in the authors' names."""
    rng, state = np.random.default_rng(seed), {}
    for key, shape in SHAPES.items():
        keys = [key]
        if len(shape) == 1 and not key.endswith("bias"):
            keys = [f"{key}.{leaf}" for leaf in NORM]
            state[f"{key}.num_batches_tracked"] = np.asarray(7)
        for each in keys:
            state[each] = rng.standard_normal(shape).astype(np.float32)
    return state


def convert(state, *, name="resnet_dnn_18", **arguments):
    return ss.convert.from_pytorch(name, state, **SMALL | arguments)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)
