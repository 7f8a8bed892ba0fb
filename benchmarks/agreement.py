"""Compares what a device computes in float32 with what the CPU beside it computes.

    python -m benchmarks.agreement --output=FILE.json

The rows are the smoothing op with its gradient, dropout masks, a forward pass, a
training step and an evaluation, each with the same numbers on both. By default JAX
multiplies float32 on GPUs and TPUs with fewer bits; rows of networks are computed so
("default"), and with all bits ("highest"), which alone has a limit. Rows that are in
the file are not computed again.
"""

import argparse
import itertools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.row_files import RowFile
from benchmarks.scales import SCALES, Row, Scale
from spatial_smoothing import ensembles, evaluation, ops
from spatial_smoothing.data import augment
from spatial_smoothing.ensembles import named
from spatial_smoothing.runtime import messages, random_bits
from spatial_smoothing.training import optim, steps

_MODEL = "resnet_mcdo_smoothing_18"
_SIZES = (1, 2, 5)
_KEY_SEED = 3
_ALL_BITS = "highest"
"""Precision of products in which float32 has all its bits, as JAX calls it."""


class Case(NamedTuple):
    """Something that both devices compute.

    Attributes:
      name: What it is called.
      compute: A function without arguments that returns a pytree of arrays; it
        computes on JAX's default device.
      limit: Largest error that is rounding.
      precisions: Precisions of products of matrices and convolutions, as JAX calls
        them, with which the device computes; () where there are none.
    """

    name: str
    compute: Callable[[], Any]
    limit: float
    precisions: tuple[str, ...] = ()

    @property
    def rows(self) -> dict[str, str]:
        """Name of a row -> precision with which the device computes."""
        if not self.precisions:
            return {self.name: _ALL_BITS}
        return {f"{self.name}, {each}": each for each in self.precisions}


def small_cases(scale: Scale) -> Iterator[Case]:
    """Yields the smoothing op with its gradient, and dropout masks.

    Args:
      scale: Width and batch size of the feature maps.
    """
    for stage in range(4):
        shape = (scale.batch_sizes[0], 32 >> stage, 32 >> stage, scale.width << stage)
        yield Case(f"smooth, stage {stage + 1}", _smoothing(shape), 1e-5)
    # Random bits are integers: they agree, or something is wrong.
    yield Case("dropout masks", _masks, 0.0)


def network_cases(scale: Scale) -> Iterator[Case]:
    """Yields what a network computes: forward pass, training step, evaluation.

    Args:
      scale: Width, stages and batch size of the network.
    """
    model = scale.model(_MODEL)
    data = scale.data(scale.batch_sizes[0])
    # The variables are made once, on the CPU, and are the same on both devices.
    with jax.default_device(jax.devices("cpu")[0]):
        variables = jax.device_get(
            jax.jit(model.init)(_key(), jnp.zeros((1, 32, 32, 3)))
        )
    for name, function, limit in (
        ("forward pass", _forward, 1e-4),
        ("training step", _training_step, 1e-3),
        ("evaluation", _evaluation, 1e-4),
    ):
        compute = function(model, variables, *data)
        yield Case(name, compute, limit, (_ALL_BITS, "default"))


def compare(case: Case, device: jax.Device, reference: jax.Device) -> Iterator[Row]:
    """Computes a case on both devices, on the second one with all bits.

    Args:
      case: What is computed.
      device: The device in question.
      reference: The device that it is compared with, a CPU.

    Yields:
      A row for each precision: `error`, the largest difference of two values divided by
      the largest value, in the array in which that is worst; `limit`, and whether the
      error `agrees` with it, both None for fewer than all bits; `seconds` of the
      device, with compilation.
    """
    expected = _on(reference, case, _ALL_BITS)
    for name, precision in case.rows.items():
        begin = time.perf_counter()
        found = _on(device, case, precision)
        error = max(jax.tree.leaves(jax.tree.map(_error, found, expected)))
        limit = case.limit if precision == _ALL_BITS else None
        yield {
            "name": name,
            "error": error,
            "limit": limit,
            "agrees": None if limit is None else error <= limit,
            "seconds": round(time.perf_counter() - begin, 2),
        }


def _on(device: jax.Device, case: Case, precision: str) -> Any:
    with jax.default_device(device), jax.default_matmul_precision(precision):
        return jax.device_get(case.compute())


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest value; inf for NaN."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    if not found.size:
        return 0.0
    largest = np.abs(expected).max()
    error = np.abs(found - expected).max() / (largest or 1.0)
    return float(error) if np.isfinite(error) else float("inf")


def _key() -> jax.Array:
    return random_bits.key(_KEY_SEED)


def _smoothing(shape: Sequence[int]) -> Callable[[], Any]:
    x = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    y = jax.eval_shape(ops.smooth, x)
    cotangent = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)

    def both(x, cotangent):
        value, of_input = jax.vjp(ops.smooth, x)
        return value, of_input(cotangent)[0]

    return lambda: jax.jit(both)(x, cotangent)


def _masks() -> Any:
    def draw(key):
        plain = jax.random.bernoulli(key, 0.7, (64, 16, 16, 8))
        return plain, jax.random.bernoulli(random_bits.fused(key), 0.7, plain.shape)

    return jax.jit(draw)(_key())


def _normalize(images: jax.Array) -> jax.Array:
    return augment.normalize(images, mean=(0.5,) * 3, std=(0.25,) * 3)


def _forward(model, variables, images, labels) -> Callable[[], Any]:
    def logits(variables, key, images):
        rngs = {"dropout": random_bits.fused(key)}
        return model.apply(variables, _normalize(images), rngs=rngs)

    return lambda: jax.jit(logits)(variables, _key(), images)


def _training_step(model, variables, images, labels) -> Callable[[], Any]:
    schedule = optim.warmup_multistep(
        0.1, steps_per_epoch=1, warmup_epochs=0, milestones=(9,), factor=0.2
    )
    optimizer = optim.sgd(schedule, momentum=0.9, weight_decay=5e-4)

    def step(variables, key, images, labels):
        state = steps.TrainState(
            step=jnp.zeros((), jnp.int32),
            variables=variables,
            opt_state=optimizer.init(variables["params"]),
            sums=steps.Sums(jnp.int32(0), jnp.float32(0), jnp.int32(0)),
            finite=jnp.ones((), bool),
        )
        batch = {
            "image": _normalize(images),
            "label": labels,
            "mask": jnp.ones(labels.shape, bool),
        }
        new = steps.train_step(
            state, batch, model=model, optimizer=optimizer, dropout_key=key
        )
        # The change of all parameters together: a single one may be next to nothing.
        changes = jax.tree.map(
            jnp.subtract, new.variables["params"], variables["params"]
        )
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(changes)])
        return flat, new.sums.loss, new.variables["batch_stats"]

    return lambda: jax.jit(step)(variables, _key(), images, labels)


def _evaluation(model, variables, images, labels) -> Callable[[], Any]:
    predict = ensembles.predictor(model, prepare=_normalize, sizes=_SIZES)
    batch = {"image": images, "label": labels, "mask": np.ones(len(labels), bool)}

    def scores() -> Any:
        found = evaluation.compile_scores(predict)(variables, _key(), [batch])
        return {
            str(name): scored.examples.nll
            for name, scored in named(found.ensembles).items()
        }

    return scores


def line(row: Row) -> str:
    """Returns a row as a line of text."""
    limit = "" if row["limit"] is None else f"limit {row['limit']:.0e}"
    verdict = {True: "agrees", False: "DOES NOT AGREE", None: ""}[row["agrees"]]
    return f"{row['name']:26} error {row['error']:8.1e}  {limit:12} {verdict}".rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Compares; returns 1 if a row is beyond its limit, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--scale", choices=SCALES, default="agreement")
    given = parser.parse_args(argv)
    messages.quiet()
    # The last CPU, so that a machine without another device compares two, if it can.
    device, reference = jax.devices()[0], jax.devices("cpu")[-1]
    print(f"{device.device_kind} beside {reference.device_kind}", flush=True)
    file = RowFile(given.output)
    scale = SCALES[given.scale]
    for case in itertools.chain(small_cases(scale), network_cases(scale)):
        if all(map(file.has, case.rows)):
            continue
        for row in compare(case, device, reference):
            if not file.has(row["name"]):
                file.add(row)
                print(line(row), flush=True)
    beyond = [row["name"] for row in file.rows if row["agrees"] is False]
    print(f"beyond their limits: {', '.join(beyond) or 'none'}")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
