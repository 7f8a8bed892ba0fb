"""Measures what landscapes and Hessians cost, relative to passes and gradients.

    python -m benchmarks.analyses [--model=resnet_mcdo_smoothing_18 --width=16]

This prints two ratios for one device: the time of a point of a landscape, divided by
that of one compiled evaluation pass over the same batches; and the time of a
Hessian-vector product, divided by that of a gradient. Both are medians over interleaved
repetitions, with their range. On a CPU, times are the processor time of all its cores,
which other programs on the machine change less than the time on the clock.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree

from benchmarks import timing
from spatial_smoothing import ensembles, evaluation, models
from spatial_smoothing.analysis import directions, hessian, landscape
from spatial_smoothing.cli import start
from spatial_smoothing.data import augment, batches
from spatial_smoothing.runtime import sharding

FLAGS = start.new_flags()
_MODEL = flags.DEFINE_string(
    "model",
    "resnet_mcdo_smoothing_18",
    "Name of the network, one of models.names().",
    flag_values=FLAGS,
)
_WIDTH = flags.DEFINE_integer(
    "width", 16, "Number of channels of the first stage.", flag_values=FLAGS
)
_STAGES = flags.DEFINE_list(
    "stages",
    ["2", "2", "2", "2"],
    "Number of blocks of each stage. Without it, 2,2,2,2.",
    flag_values=FLAGS,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "Number of images in a batch.", flag_values=FLAGS
)
_NUM_BATCHES = flags.DEFINE_integer(
    "num_batches", 4, "Number of batches in an evaluation pass.", flag_values=FLAGS
)
_ROW = flags.DEFINE_list(
    "row",
    ["landscape", "hessian"],
    "What to measure: landscape, hessian or both.",
    flag_values=FLAGS,
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 7, "Number of interleaved repetitions.", flag_values=FLAGS
)

KEY = jax.random.key(0)
prepare = augment.preparation(
    lambda images: images.astype(jnp.float32) / 128 - 1, augment=True
)


def show(name: str, rivals: dict[str, timing.Rival], *, target: float) -> None:
    """Prints how often the second function fits into the time of the first."""
    on_cpu = jax.default_backend() == "cpu"
    clock = "cpu" if on_cpu else "wall"
    taken = timing.in_turns(rivals, rounds=_REPEATS.value, clock=clock)
    ours, unit = taken.values()
    ratio = timing.spread([a / b for a, b in zip(ours, unit, strict=True)])
    print(
        f"{name:34} {1e3 * statistics.median(ours):8.1f} ms "
        f"{1e3 * statistics.median(unit):8.1f} ms {ratio['median']:6.2f}x "
        f"[{ratio['least']:.2f}, {ratio['largest']:.2f}] target {target:g}x"
    )


def main() -> None:
    """Measures and prints both."""
    stages = tuple(map(int, _STAGES.value))
    model = models.build(
        _MODEL.value, num_classes=100, width=_WIDTH.value, stages=stages
    )
    variables = dict(jax.jit(model.init)(KEY, jnp.zeros((1, 32, 32, 3))))
    rng = np.random.default_rng(0)
    count = _NUM_BATCHES.value * _BATCH_SIZE.value
    images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    labels = rng.integers(0, 100, count).astype(np.int32)
    data = list(batches.sequential(images, labels, batch_size=_BATCH_SIZE.value))
    print(f"{jax.devices()[0].device_kind}, {model.width=}, {len(data)} batches a pass")
    mesh = sharding.mesh(1)
    data = [sharding.replicate(batch, mesh) for batch in data]
    if "landscape" in _ROW.value:
        rivals = _landscape(model, variables, data, mesh)
        show("landscape point / pass", rivals, target=1.1)
    if "hessian" in _ROW.value:
        rivals = _hessian(model, variables, data[0])
        show("Hessian product / gradient", rivals, target=4)


def _landscape(model, variables, data, mesh):
    """A point of a scan, and a pass at fixed weights, of the same predictions."""
    shifts = directions.draw(KEY, variables["params"])
    stochastic = model.has_dropout
    predict = ensembles.predictor(model, dropout=stochastic)

    def fixed(variables, key, images):
        prepare_key, dropout_key = jax.random.split(key)
        return predict(variables, dropout_key, prepare(prepare_key, images))

    tally = evaluation.compile_tallies(fixed)
    points = ((0.001 * number, 0.0) for number in range(_REPEATS.value + 2))
    rows = landscape.scan(
        model,
        variables,
        shifts,
        points,
        data,
        key=KEY,
        prepare=prepare,
        num_samples=int(stochastic),
        mesh=mesh,
    )
    return {
        "point": lambda: next(rows),
        "pass": lambda: jax.block_until_ready(tally(variables, KEY, data)),
    }


def _hessian(model, variables, batch):
    """A product with the Hessian of a mini-batch, and its gradient."""
    loss = hessian.objective(model, prepare=prepare, weight_decay=5e-4)
    product = hessian.compile_hvp(loss)
    flat, unravel = ravel_pytree(variables["params"])

    @jax.jit
    def gradient(flat):
        of_flat = lambda flat: loss({**variables, "params": unravel(flat)}, KEY, batch)
        return jax.grad(of_flat)(flat)

    vector = jax.random.normal(KEY, flat.shape)
    return {
        "product": lambda: jax.block_until_ready(
            product(variables, KEY, batch, vector)
        ),
        "gradient": lambda: jax.block_until_ready(gradient(flat)),
    }


COMMAND = start.Command(main, FLAGS, about=__doc__)

if __name__ == "__main__":
    start.run(COMMAND)
