"""Loss landscapes: the scores of a network along two random directions of its weights.

Contract of this file: a direction d is a pytree like the parameters p, and the point
(a, b) of a landscape has the parameters p + a d0 + b d1. Only forward passes are made.
All points see the same examples, augmentation and dropout masks (common random
numbers), so that they differ by their weights alone. Each device evaluates one point at
a time; all points use the same compiled program.

Source: Li et al., NeurIPS 2018; Park & Kim, ICML 2022, section 3.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from spatial_smoothing import ensembles, metrics
from spatial_smoothing.analysis.directions import Directions, Params, norms, shift
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.ensembles import Predictions, mixtures
from spatial_smoothing.ensembles.mixtures import Mixture
from spatial_smoothing.evaluation.tallies import compile_tallies
from spatial_smoothing.layers import BatchNorm
from spatial_smoothing.metrics import Tally
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import random_bits, sharding
from spatial_smoothing.training.steps import Prepare

Row = dict[str, float]


class State(NamedTuple):
    """What D points are evaluated with, one on each of D devices.

    Attributes:
      params: Parameters at the point (0, 0), a pytree.
      statistics: `batch_stats` at each point; every array has a leading axis of D.
      directions: Two directions, each a pytree with the structure of `params`.
      points: f[D, 2], coordinates (a, b) of the points.
    """

    params: Params
    statistics: dict[str, Any]
    directions: Directions
    points: jax.Array


SCORES = ("nll", "accuracy", "brier", "ece")


def grid(a: Sequence[float], b: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the points of a grid: b is the outer loop, a the inner one.

    Args:
      a: Coordinates along the first direction; 1 is the norm of the weights.
      b: Coordinates along the second direction.
    """
    return [(float(x), float(y)) for y in b for x in a]


def compile_point(
    model: Network, *, prepare: Prepare, mesh: Mesh, num_samples: int = 1
) -> Callable[..., Tally]:
    """Compiles `point(state, key, data)`, one pass over `data` for D points at once.

    `state` is a `State`, `key` a PRNG key, and `data` are batches. Batch i is augmented
    and predicted with keys that follow from (key, i) alone, so that all points see the
    same random numbers.

    Args:
      model: The network, a Linen module.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      mesh: Mesh of the D devices over which points are spread; all else is replicated.
      num_samples: Number of dropout samples that a prediction averages; 0 for a
        prediction without dropout.

    Returns:
      A function to a `Tally` whose fields have a leading axis of D points.
    """
    predict = point_predictor(
        model, prepare=prepare, mesh=mesh, num_samples=num_samples
    )
    return compile_tallies(predict)


def point_predictor(
    model: Network, *, prepare: Prepare, mesh: Mesh, num_samples: int = 1
) -> Callable[[State, jax.Array, jax.Array], Predictions]:
    """Returns the function that predicts at D points at once; see `compile_point`.

    Args:
      model: The network, a Linen module.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      mesh: Mesh of the D devices over which points are spread, which need not be here.
      num_samples: Number of dropout samples that a prediction averages; 0 for a
        prediction without dropout.

    Returns:
      `(state, key, u8[B, H, W, 3])` to `Predictions`, whose mixture has a leading axis
      of D points.
    """
    network = ensembles.as_apply(model)

    def predict_at_point(
        variables: dict[str, Any], key: jax.Array, images: jax.Array
    ) -> Mixture:
        if not num_samples:
            logits = network.apply(variables, images, None)
            return mixtures.of_pass(network)(logits)
        # `mc_mixtures` would need less memory, but adds up in a loop that begins with a
        # constant, which is the same on all devices: `shard_map` refuses it.
        logits = ensembles.mc_logits(
            key, network, variables, images, num_samples=num_samples
        )
        return jax.vmap(mixtures.single)(logits).sum()

    predict_at_points = _on_points(predict_at_point, mesh)

    def predict(state: State, key: jax.Array, images: jax.Array) -> Predictions:
        prepare_key, dropout_key = jax.random.split(key)
        images = prepare(prepare_key, images)
        return Predictions(predict_at_points(state, dropout_key, images))

    return predict


def compile_statistics(
    model: Network, *, prepare: Prepare, mesh: Mesh
) -> Callable[..., dict[str, Any]]:
    """Compiles `statistics(state, key, data)`, which estimates `batch_stats` anew.

    At each point they become the mean over examples of the statistics of the batches,
    each of which is normalised by its own. Only the structure of `state.statistics` is
    used, not its values.

    Args:
      model: The network, a Linen module.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      mesh: Mesh of the D devices over which points are spread; all else is replicated.

    Returns:
      A function to `batch_stats`, whose arrays have a leading axis of D points.
    """
    add = jax.jit(batch_statistics(model, prepare=prepare, mesh=mesh))

    def statistics(
        state: State, key: jax.Array, data: Iterable[Batch]
    ) -> dict[str, Any]:
        sums = jax.tree.map(jnp.zeros_like, state.statistics)
        num_examples = jnp.zeros((), jnp.int32)
        for index, batch in enumerate(data):
            sums, num_examples = add(sums, num_examples, state, key, index, batch)
        return jax.tree.map(lambda leaf: leaf / num_examples.astype(leaf.dtype), sums)

    return statistics


def batch_statistics(
    model: Network, *, prepare: Prepare, mesh: Mesh
) -> Callable[..., tuple[dict[str, Any], jax.Array]]:
    """Returns a function of one batch, to be compiled, for `compile_statistics`.

    Args:
      model: The network, a Linen module.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      mesh: Mesh of the D devices over which points are spread, which need not be here.

    Returns:
      `(sums, num_examples, state, key, index, batch)` to the new sums, which are like
      `state.statistics`, and the new number of examples, i32[].
    """

    def updated_statistics(
        variables: dict[str, Any], key: jax.Array, batch: Batch
    ) -> dict[str, Any]:
        _, updates = model.apply(
            variables,
            batch["image"],
            train=True,
            mask=batch["mask"],
            rngs={"dropout": random_bits.fused(key)},
            mutable=["batch_stats"],
        )
        return updates.get("batch_stats", {})

    updated_at_points = _on_points(updated_statistics, mesh)

    def add(
        sums: dict[str, Any],
        num_examples: jax.Array,
        state: State,
        key: jax.Array,
        index: jax.Array,
        batch: Batch,
    ) -> tuple[dict[str, Any], jax.Array]:
        """Adds the statistics of batch number `index`, weighted by its examples."""
        prepare_key, dropout_key = jax.random.split(jax.random.fold_in(key, index))
        image = prepare(prepare_key, batch["image"])
        # The layers return momentum * running + (1 - momentum) * those of the batch.
        # From running statistics of zero, the second term alone is left, and division
        # by (1 - momentum) gives the statistics of the batch.
        zeros = jax.tree.map(jnp.zeros_like, state.statistics)
        found = updated_at_points(
            state._replace(statistics=zeros), dropout_key, {**batch, "image": image}
        )
        count = batch["mask"].sum(dtype=jnp.int32)
        weight = count.astype(jnp.float32) / (1 - BatchNorm.momentum)
        sums = jax.tree.map(lambda s, x: s + x * weight, sums, found)
        return sums, num_examples + count

    return add


def _on_points(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Makes a function of variables one of a `State`, which has a point a device.

    Args:
      function: `(variables, *arguments) -> result`, where the result is a pytree.
      mesh: Mesh of D devices.

    Returns:
      A function of (state, *arguments), whose results have a leading axis of D points
      and are on all devices.
    """
    everywhere = PartitionSpec()
    one_each = PartitionSpec(mesh.axis_names)

    def on_device(state: State, *arguments):
        # A device is given its part of the first axis, which has the length one.
        a, b = state.points[0]
        variables = {
            "params": shift(state.params, state.directions, a, b),
            "batch_stats": jax.tree.map(lambda leaf: leaf[0], state.statistics),
        }
        result = function(variables, *arguments)
        return jax.tree.map(lambda leaf: leaf[None], result)

    def on_points(state: State, *arguments):
        specs = State(
            params=everywhere,
            statistics=one_each,
            directions=everywhere,
            points=one_each,
        )
        result = jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(specs, *(everywhere for _ in arguments)),
            out_specs=one_each,
        )(state, *arguments)
        return jax.lax.with_sharding_constraint(result, sharding.replicated(mesh))

    return on_points


def scan(
    model: Network,
    variables: dict[str, Any],
    directions: Directions,
    points: Iterable[tuple[float, float]],
    data: Iterable[Batch],
    *,
    key: jax.Array,
    prepare: Prepare,
    num_samples: int = 1,
    weight_decay: float = 0.0,
    recalibration: Iterable[Batch] = (),
    mesh: Mesh | None = None,
    done: Collection[tuple[float, float]] = (),
) -> Iterator[Row]:
    """Yields the row of each point as soon as it is there.

    Args:
      model: The network, a Linen module.
      variables: Flax variables of the network at the point (0, 0),
        `{"params", "batch_stats"}`.
      directions: Two directions, pytrees like `variables["params"]`, such as those of
        `directions.draw`.
      points: Coordinates (a, b) in the order in which they are evaluated, such as those
        of `grid`; 1 is the norm of the weights.
      data: Batches, u8, which are held on every device.
      key: PRNG key of augmentation and dropout; all points use the same.
      prepare: `prepare(key, images)` augments and normalises u8[B, H, W, 3] to
        f32[B, H, W, 3].
      num_samples: Number of dropout samples that a prediction averages; 0 for a
        prediction without dropout.
      weight_decay: Factor of the L2 terms that are added to the NLL, at least 0.
      recalibration: Batches from which the statistics of batch normalisation are
        estimated at each point, at the cost of a pass over them; none to keep those of
        `variables`.
      mesh: Mesh of the devices that points are spread over; None for all devices.
      done: Points to leave out, such as those of a scan that was interrupted.

    Yields:
      `a`, `b`, `nll` (nats), `accuracy`, `brier`, `ece`; `nll_l2`, which is nll +
      weight_decay / 2 sqnorm; `nll_l2_reference`, nll + weight_decay l2; and the sums
      of `directions.norms`. Scores are NaN where the network overflows.

    Source: Li et al., NeurIPS 2018, section 4; Park & Kim, ICML 2022, section 3.
    """
    mesh = mesh or sharding.mesh()
    num_devices = mesh.devices.size
    point = compile_point(model, prepare=prepare, mesh=mesh, num_samples=num_samples)
    statistics_at = compile_statistics(model, prepare=prepare, mesh=mesh)
    norms_at = jax.jit(lambda params, shifts, a, b: norms(shift(params, shifts, a, b)))
    data = [sharding.replicate(batch, mesh) for batch in data]
    recalibration = [sharding.replicate(batch, mesh) for batch in recalibration]
    params, trained, directions = sharding.replicate(
        (variables["params"], variables.get("batch_stats", {}), directions), mesh
    )
    trained = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_devices, *leaf.shape)), trained
    )
    dtype = jax.tree.leaves(params)[0].dtype
    missing = [at for at in points if tuple(at) not in done]
    for start in range(0, len(missing), num_devices):
        group = missing[start : start + num_devices]
        # Devices without a point of their own repeat the last one.
        padding = [group[-1]] * (num_devices - len(group))
        coordinates = np.asarray(group + padding, dtype)
        state = State(params, trained, directions, coordinates)
        if recalibration:
            estimated = statistics_at(state, key, recalibration)
            state = state._replace(statistics=estimated)
        tallies = point(state, key, data)
        for index, at in enumerate(group):
            tally = _take(tallies, index)
            sums = jax.device_get(norms_at(params, directions, *coordinates[index]))
            yield _row(at, tally, sums, weight_decay)


def _take(tallies: Tally, index: int) -> Tally:
    """Returns the tally of one point, given those of several."""
    return jax.tree.map(lambda leaf: leaf[index], tallies)


def _row(
    at: tuple[float, float], tally: Tally, sums: dict[str, Any], weight_decay: float
) -> Row:
    """Makes the row of a point of its tally and of the norms of its parameters."""
    # Logits that overflow would count as wrong predictions of some confidence, so that
    # accuracy and ECE would look like numbers.
    is_finite = not math.isnan(tally.nll + tally.brier)
    scores = metrics.summary(tally) if is_finite else dict.fromkeys(SCORES, math.nan)
    scores = {name: scores[name] for name in SCORES}
    sums = {name: float(value) for name, value in sums.items()}
    return {
        "a": float(at[0]),
        "b": float(at[1]),
        **scores,
        "nll_l2": scores["nll"] + weight_decay / 2 * sums["sqnorm"],
        "nll_l2_reference": scores["nll"] + weight_decay * sums["l2"],
        **sums,
    }


def surfaces(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Arranges rows of a grid, in any order, as arrays to draw or store.

    Args:
      rows: Rows of `scan`, each with `a`, `b` and further numbers.

    Returns:
      `a` f64[A] and `b` f64[B], increasing; all else f64[B, A], NaN where a point is
      missing.
    """
    rows = list(rows)
    axes = {name: sorted({row[name] for row in rows}) for name in ("a", "b")}
    shape = len(axes["b"]), len(axes["a"])
    # A dict, and not a set, keeps the order of the names.
    scores = dict.fromkeys(name for row in rows for name in row if name not in axes)
    arrays = {name: np.full(shape, np.nan) for name in scores}
    for row in rows:
        place = axes["b"].index(row["b"]), axes["a"].index(row["a"])
        for name in scores:
            arrays[name][place] = row[name]
    return {name: np.asarray(values) for name, values in axes.items()} | arrays


def curvature(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Fits a quadratic function of (a, b) to a surface by least squares.

    Args:
      a: f[A], coordinates along the first direction.
      b: f[B], coordinates along the second direction.
      values: f[B, A], the surface, such as the NLL; NaN where a value is missing.

    Returns:
      The mean of the second derivatives of the function along the two directions, and
      the standard deviation of what it leaves over, which common random numbers keep
      small. Both are NaN where fewer values are known than the function has terms.
    """
    x, y = np.meshgrid(a, b)
    known = np.isfinite(values)
    if known.sum() < 6:
        return math.nan, math.nan
    x, y, values = x[known], y[known], values[known]
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=-1)
    coefficients = np.linalg.lstsq(terms, values)[0]
    # The second derivative of c x^2 is 2 c; the mean of 2 c and 2 d is c + d.
    mean = coefficients[4] + coefficients[5]
    return float(mean), float(np.std(values - terms @ coefficients))
