"""Classification heads: from the last feature map to logits.

Contract of this file: maps are `[B, H, W, C]`; logits are `[B, K]` in at least float32.
Every head of the reference is a row of `HEADS`, a setting of the one module `Head`.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ops
from spatial_smoothing.layers import Layers, without_key
from spatial_smoothing.lookup import lookup

HEADS: dict[str, dict] = {
    "gap": {"pool": "average"},
    "bn_gap": {"pool": "average", "norm": True},
    "max": {"pool": "max"},
    "median": {"pool": "median"},
    "gap_clip": {"pool": "average", "squash": True},
    "gap_mlp": {"pool": "average", "hidden": (4096, 4096)},
    "mlp": {"pool": "spread", "hidden": (4096, 4096), "rate": 0.5},
}


class Head(nn.Module):
    """Pools a feature map over space and classifies it.

    Attributes:
      num_classes: Number of classes K.
      layers: Layer constructors of the network.
      pool: "average", "max", "median" (over all positions), or "spread": an adaptive
        average pool to `grid` x `grid`, flattened in the order channel, row, column.
      norm: Whether batch normalisation and ReLU come first.
      squash: Whether the pooled values g become t * (sigmoid(g / t) - 1/2).
      temperature: Scale t > 0 of the values that `squash` bounds.
      hidden: Widths of the hidden dense layers, each followed by a ReLU.
      rate: Probability, in [0, 1), of dropout after each hidden layer to drop a value;
        it applies in training only.
      grid: Side of the grid that "spread" pools to, in positions.
      train: Whether the network is being trained.
    """

    num_classes: int
    layers: Layers
    pool: str
    norm: bool = False
    squash: bool = False
    temperature: float = 2.0
    hidden: Sequence[int] = ()
    rate: float = 0.0
    grid: int = 7
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to logits `[B, K]`.

        Raises:
          ValueError: if training has dropout to do and there is no rng "dropout".
        """
        if self.norm:
            x = self.layers.norm(name="norm", relu=True)(x)
        x = x.astype(ops.at_least_float32(x.dtype))
        x = _POOLS[self.pool](x, self.grid)
        if self.squash:
            # A quarter of 4 t (sigmoid(x / t) - 1/2), which is precise for any t.
            x = ops.scaled_sigmoid(x, self.temperature) / 4
        for number, width in enumerate(self.hidden, 1):
            x = nn.relu(self.layers.dense(width, name=f"dense{number}")(x))
            if self.train and self.rate and not self.is_initializing():
                if not self.has_rng("dropout"):
                    raise without_key(self.rate)
                x = nn.Dropout(self.rate, deterministic=False)(x)
        x = self.layers.dropout()(x)
        name = f"dense{len(self.hidden) + 1}" if self.hidden else "dense"
        return self.layers.dense(self.num_classes, last=True, name=name)(x)


def head(kind: str, **fields) -> Head:
    """Returns the head called `kind`, a key of `HEADS`, with `fields` on top."""
    return Head(**{**lookup(HEADS, kind, "head"), **fields})


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages `[B, H, W, C]` over windows to `[B, size, size, C]`.

    Output i averages the inputs floor(i n / size) up to, but not including,
    ceil((i + 1) n / size) of each axis; windows overlap where size does not divide n.
    """

    def windows(n: int) -> np.ndarray:
        index = np.arange(n)
        start = np.arange(size) * n // size
        stop = -(-(np.arange(size) + 1) * n // size)
        inside = (index >= start[:, None]) & (index < stop[:, None])
        return inside / inside.sum(1, keepdims=True)

    rows, columns = (jnp.asarray(windows(n), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision="highest")


def _spread(x: jax.Array, grid: int) -> jax.Array:
    x = adaptive_average_pool(x, grid)
    # By numbers and not by -1, which an empty batch does not tell.
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], math.prod(x.shape[1:]))


def _median(x: jax.Array, grid: int) -> jax.Array:
    """The floor(n / 2)-th largest of n values: the upper median for even n."""
    n = x.shape[1] * x.shape[2]
    values = jnp.sort(x.reshape(x.shape[0], n, x.shape[-1]), axis=1)
    return values[:, n - max(n // 2, 1)]


_POOLS = {
    "average": lambda x, grid: x.mean((1, 2)),
    "max": lambda x, grid: x.max((1, 2)),
    "median": _median,
    "spread": _spread,
}
