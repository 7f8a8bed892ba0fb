"""NNX: your own model and arrays, evaluated by MC dropout of every size."""

import jax
from flax import nnx

import spatial_smoothing as ss
from spatial_smoothing.data import shapes


class CNN(nnx.Module):
    """A network with dropout layers."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, shapes.NUM_CLASSES, rngs=rngs)

    def __call__(self, x):
        """Classifies f32[B, 32, 32, 3]."""
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(self.dropout(x).mean((1, 2)))


def main(output="report_nnx"):
    """Writes a report; returns its rows."""
    images, labels = shapes.generate("test", size=200)  # NumPy arrays of your own
    rows = ss.evaluate(
        CNN(rngs=nnx.Rngs(0)),
        None,  # the module carries its variables
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
