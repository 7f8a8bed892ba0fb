"""Linen: your own model and arrays, evaluated by MC dropout of every size."""

import flax.linen as nn
import jax
import numpy as np

import spatial_smoothing as ss
from spatial_smoothing.data import shapes


class CNN(nn.Module):
    """A network whose dropout is off outside training, as usual."""

    @nn.compact
    def __call__(self, x, train=False):
        """Classifies f32[B, 32, 32, 3]."""
        for features in (8, 16):
            x = nn.relu(nn.Conv(features, (3, 3), strides=2)(x))
            x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(shapes.NUM_CLASSES)(x.mean((1, 2)))


def main(output="report_linen"):
    """Writes a report; returns its rows."""
    images, labels = shapes.generate("test", size=200)  # NumPy arrays of your own
    model = CNN()
    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rows = ss.evaluate(
        # Without this, an error says that all samples are equal, and what to do.
        ss.ensembles.from_linen(model, force_dropout=True),
        variables,
        (images, labels),
        key=jax.random.key(1),
        num_samples=10,
        prepare=lambda images: images / 255.0 - 0.5,
        batch_size=40,
        num_replicates=100,
    )
    print(ss.report.write(output, rows, title="My CNN"))
    return rows


if __name__ == "__main__":
    main()
