"""Loss landscapes: the scores of a network along two random directions of its weights.

Contract of this file: a direction d is a pytree like the parameters p, and the point
(a, b) of a landscape has the parameters p + a d0 + b d1. Only forward passes are made.
All points see the same examples, augmentation and dropout masks (common random
numbers), so that they differ by their weights alone. Points are spread over the mesh,
one on each device at a time; one compilation serves all of them.

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
    """What D points are evaluated with.

    Attributes:
      params: Of the point (0, 0).
      statistics: `batch_stats` with a leading axis of D points.
      directions: Two, as `params`.
      points: f[D, 2], their (a, b).
    """

    params: Params
    statistics: dict[str, Any]
    directions: Directions
    points: jax.Array


SCORES = ("nll", "accuracy", "brier", "ece")


def grid(a: Sequence[float], b: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the points of a grid: b the outer loop, a the inner one."""
    return [(float(x), float(y)) for y in b for x in a]


def compile_point(
    model: Network, *, prepare: Prepare, mesh: Mesh, num_samples: int = 1
) -> Callable[..., Tally]:
    """Compiles `point(state, key, data)`, one pass over `data` for each device.

    `state` is a `State`. Batch i is augmented and predicted with keys that follow
    from (key, i) alone.

    Args:
      model: The network.
      prepare: `prepare(key, images)` augments and normalises.
      mesh: Where points are spread; all else is replicated.
      num_samples: Dropout samples that a prediction averages; 0 for the mean network.

    Returns:
      A function to a `Tally` whose fields have a leading axis of D points.
    """
    network = ensembles.as_apply(model)

    def of_point(variables, key: jax.Array, images: jax.Array) -> Mixture:
        if not num_samples:
            return mixtures.single(network.apply(variables, images, None))
        logits = ensembles.mc_logits(
            key, network, variables, images, num_samples=num_samples
        )
        return jax.vmap(mixtures.single)(logits).sum()

    predict_points = _on_points(of_point, mesh)

    def predict(state: State, key: jax.Array, images: jax.Array) -> Predictions:
        prepare_key, dropout_key = jax.random.split(key)
        images = prepare(prepare_key, images)
        return Predictions(predict_points(state, dropout_key, images))

    return compile_tallies(predict)


def compile_statistics(
    model: Network, *, prepare: Prepare, mesh: Mesh
) -> Callable[..., dict[str, Any]]:
    """Compiles `statistics(state, key, data)`, which estimates `batch_stats` anew.

    At each point they become the mean over examples of the statistics of the batches,
    which are normalised by their own. Arguments as `compile_point`.

    Returns:
      A function to `batch_stats` with a leading axis of D points.
    """

    def of_batch(variables, key, batch):
        _, updates = model.apply(
            variables,
            batch["image"],
            train=True,
            mask=batch["mask"],
            rngs={"dropout": random_bits.fused(key)},
            mutable=["batch_stats"],
        )
        return updates.get("batch_stats", {})

    of_points = _on_points(of_batch, mesh)

    @jax.jit
    def add(total, state: State, key, index, batch: Batch):
        prepare_key, dropout_key = jax.random.split(jax.random.fold_in(key, index))
        image = prepare(prepare_key, batch["image"])
        # Running statistics that start from zero become a known part of the batch's.
        blank = state._replace(statistics=jax.tree.map(jnp.zeros_like, total[0]))
        part = of_points(blank, dropout_key, {**batch, "image": image})
        count = batch["mask"].sum()
        weight = count / (1 - BatchNorm.momentum)
        sums = jax.tree.map(lambda s, x: s + x * weight, total[0], part)
        return sums, total[1] + count

    def statistics(state: State, key: jax.Array, data: Iterable[Batch]):
        total = (jax.tree.map(jnp.zeros_like, state.statistics), 0)
        for index, batch in enumerate(data):
            total = add(total, state, key, index, batch)
        sums, count = total
        return jax.tree.map(lambda leaf: leaf / count, sums)

    return statistics


def _on_points(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Makes `function(variables, *arguments)` one of a state, a point on each device.

    Returns:
      A function of (state, *arguments), whose results have a leading axis of D points
      and are on all devices.
    """
    every, own = PartitionSpec(), PartitionSpec(mesh.axis_names)

    def on_device(state: State, *arguments):
        a, b = state.points[0]
        variables = {
            "params": shift(state.params, state.directions, a, b),
            "batch_stats": jax.tree.map(lambda leaf: leaf[0], state.statistics),
        }
        result = function(variables, *arguments)
        return jax.tree.map(lambda leaf: leaf[None], result)

    def on_points(state: State, *arguments):
        result = jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(State(every, own, every, own), *(every for _ in arguments)),
            out_specs=own,
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
      model: The network.
      variables: `{"params", "batch_stats"}` of the point (0, 0).
      directions: Two; see `directions.draw`.
      points: (a, b) in their order; see `grid`.
      data: Batches, held on every device.
      key: Of augmentation and dropout; the same at all points.
      prepare: `prepare(key, images)` augments and normalises.
      num_samples: Dropout samples that a prediction averages; 0 for the mean network.
      weight_decay: Factor of the L2 terms.
      recalibration: Batches to estimate the statistics of batch normalisation from at
        each point, at the cost of a pass over them; none to keep the trained ones.
      mesh: Devices; None for all.
      done: Points to leave out, such as those of a scan that was interrupted.

    Yields:
      `a`, `b`, `nll` (nats), `accuracy`, `brier`, `ece`; `nll_l2`, which is nll +
      weight_decay / 2 sqnorm; `nll_l2_reference`, nll + weight_decay l2; and the sums
      of `directions.norms`. Scores are NaN where the network overflows.
    """
    mesh = mesh or sharding.mesh()
    size = mesh.devices.size
    point = compile_point(model, prepare=prepare, mesh=mesh, num_samples=num_samples)
    statistics = compile_statistics(model, prepare=prepare, mesh=mesh)
    norms_at = jax.jit(lambda *arguments: norms(shift(*arguments)))
    hold = lambda batches: [sharding.replicate(batch, mesh) for batch in batches]
    data, recalibration = hold(data), hold(recalibration)
    params, stats, directions = sharding.replicate(
        (variables["params"], variables.get("batch_stats", {}), directions), mesh
    )
    stats = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), stats)
    left = [at for at in points if tuple(at) not in done]
    for start in range(0, len(left), size):
        group = left[start : start + size]
        padded = group + group[-1:] * (size - len(group))
        where = np.asarray(padded, jax.tree.leaves(params)[0].dtype)
        state = State(params, stats, directions, where)
        if recalibration:
            state = state._replace(statistics=statistics(state, key, recalibration))
        tally = point(state, key, data)
        for index, (a, b) in enumerate(group):
            one = jax.tree.map(lambda leaf, i=index: leaf[i], tally)
            sums = jax.device_get(norms_at(params, directions, *where[index]))
            yield _row((a, b), one, sums, weight_decay)


def _row(
    at: tuple[float, float], tally: Tally, sums: dict[str, Any], weight_decay: float
) -> Row:
    finite = not math.isnan(tally.nll + tally.brier)
    scores = metrics.summary(tally) if finite else dict.fromkeys(SCORES, math.nan)
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

    Returns:
      `a` f64[A] and `b` f64[B], increasing; all else f64[B, A], NaN where a point is
      missing.
    """
    rows = list(rows)
    axes = {name: sorted({row[name] for row in rows}) for name in ("a", "b")}
    columns = {name: None for row in rows for name in row if name not in axes}
    arrays = {
        name: np.full((len(axes["b"]), len(axes["a"])), np.nan) for name in columns
    }
    for row in rows:
        index = axes["b"].index(row["b"]), axes["a"].index(row["a"])
        for name in columns:
            arrays[name][index] = row[name]
    return {name: np.asarray(values) for name, values in axes.items()} | arrays


def curvature(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Fits a quadratic function of (a, b) to a surface by least squares.

    Args:
      a: f[A].
      b: f[B].
      values: f[B, A]; NaN where there is none.

    Returns:
      The mean of its second derivatives along the two directions, and the standard
      deviation of what is left over, which common random numbers keep small.
    """
    x, y = np.meshgrid(a, b)
    known = np.isfinite(values)
    x, y, values = x[known], y[known], values[known]
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=-1)
    found = np.linalg.lstsq(terms, values)[0]
    return float(found[4] + found[5]), float(np.std(values - terms @ found))
