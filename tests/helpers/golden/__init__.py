"""Golden values, and the rule that fills networks with weights; see README.md."""

import contextlib
import json
import math
import pathlib
import zlib

import flax.linen as nn
import jax
import numpy as np

FOLDER = pathlib.Path(__file__).parent


def arrays(name):
    """Returns the arrays of `name`.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def table(name):
    """Returns what `name`.json holds."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def images(seed, batch, size):
    """Returns normal random images, f32[batch, size, size, 3]."""
    drawn = np.random.default_rng(seed).standard_normal((batch, 3, size, size))
    return drawn.astype(np.float32).transpose(0, 2, 3, 1)


def state_dict(layout):
    """Returns a PyTorch state dictionary; `layout` holds a key and its sizes a row."""
    return {key: weight(key, shape) for key, *shape in layout}


def weight(key, shape):
    """Returns the value of one key, which follows from its name and shape."""
    layer, leaf = key.split(".")[-2:]
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if leaf == "num_batches_tracked":
        values = np.zeros(shape)
    elif leaf in ("bias", "running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) > 1:
        deviation = math.sqrt(2.0 / math.prod(shape[1:]))
        values = rng.standard_normal(shape) * deviation
    else:
        values = 0.5 + rng.random(shape)
        if leaf == "weight" and layer in ("bn2", "bn3"):
            values = 0.5 * values
    return values.astype(np.float32)


def variables(model, x):
    """Returns random variables for `model`; its own initial ones compile slowly."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            deviation = math.sqrt(2.0 / math.prod(leaf.shape[:-1]))
            return np.float32(deviation * rng.standard_normal(leaf.shape))
        return np.float32(0.5 + rng.random(leaf.shape))

    abstract = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map_with_path(draw, abstract)


@contextlib.contextmanager
def dropout_by_channel():
    """Makes every `flax.linen.Dropout` drop the same channels of all examples."""

    def intercept(call, args, kwargs, context):
        if not isinstance(context.module, nn.Dropout):
            return call(*args, **kwargs)
        x, rate = args[0], context.module.rate
        channel = np.arange(x.shape[-1]).reshape((1,) * (x.ndim - 1) + (-1,))
        kept = (7 * channel + 3) % 10 >= round(10 * rate)
        return x * kept.astype(x.dtype) / (1 - rate)

    with nn.intercept_methods(intercept):
        yield
