"""Variance of feature maps: over dropout samples, over frames, and over space.

Contract of this file: a tap is the output of a part of the network, f32[B, H, W, C],
named as there: `stem`, `stage1`, `smooth1`, ... Statistics are streamed (Welford), so
that memory depends on neither the number of samples nor that of batches.

Source: Park & Kim, ICML 2022, figure 5 and section 3.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing.data.batches import Batch
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runtime import random_bits

Taps = dict[str, jax.Array]
Row = dict[str, Any]

OVER = {"samples": "dropout samples of an image", "frames": "a sequence of images"}
STATISTICS = ("variance", "deviation", "space_variance", "space_deviation")


def taps(
    model: nn.Module,
    variables: dict[str, Any],
    images: jax.Array,
    *,
    key: jax.Array | None = None,
    blocks: bool = False,
) -> Taps:
    """Returns the feature maps of one pass, in the order of the network.

    Args:
      model: The network.
      variables: Its variables.
      images: f32[B, H, W, 3], normalised.
      key: Of dropout; None for the mean network.
      blocks: Whether to give every block (`stage1_block0`, ...) in place of stages.

    Returns:
      Name -> f32[B, H, W, C]. Logits are left out. Under `jit` the order is lost; see
      `tap_names`.
    """
    is_block = lambda name: "_block" in (name or "")
    _, state = model.apply(
        variables,
        images,
        train=False,
        rngs={} if key is None else {"dropout": random_bits.fused(key)},
        mutable=["intermediates"],
        capture_intermediates=lambda module, _: blocks and is_block(module.name),
    )
    found = {}
    for name, value in state["intermediates"].items():
        if isinstance(value, dict):
            found[name] = value["__call__"][0]
        elif not (blocks and name.startswith("stage")):
            found[name] = value[0]
    return {
        name: value.astype(jnp.promote_types(value.dtype, jnp.float32))
        for name, value in found.items()
        if value.ndim == 4
    }


def tap_names(
    model: nn.Module, variables: dict[str, Any], images: Any, *, blocks: bool = False
) -> list[str]:
    """Returns the names of the taps in the order of the network, at no cost."""
    names = []

    def trace(variables, images):
        names.extend(taps(model, variables, images, blocks=blocks))

    jax.eval_shape(trace, variables, images)
    return names


def compile_sums(
    model: nn.Module,
    *,
    prepare: Callable[[jax.Array], jax.Array],
    over: str = "samples",
    num_samples: int = 10,
    ddof: int = 1,
    blocks: bool = False,
) -> Callable[..., Any]:
    """Compiles `sums(variables, key, batch)`, the statistics of a batch.

    Args:
      model: The network.
      prepare: Normalises u8[B, H, W, C].
      over: "samples", or "frames": images are u8[T, B, H, W, C], T at least 2, and all
        frames share one dropout mask.
      num_samples: Dropout samples S, at least 2; with "frames", 0 is for the mean
        network and anything else for one mask.
      ddof: Divisors are the number of values less this.
      blocks: See `taps`.

    Returns:
      A function to (count of examples, name -> statistic -> sum over them of its mean
      over positions and channels).

    Raises:
      ValueError: for an unknown `over`, or too few samples or frames.
    """
    lookup(OVER, over, "choice of what to take the variance over")
    frames = over == "frames"

    def check(count: int) -> None:
        if count <= max(ddof, 1):
            raise ValueError(
                f"a variance over {over} with ddof {ddof} needs more than "
                f"{max(ddof, 1)}, got {count}"
            )

    if not frames:
        check(num_samples)

    @jax.jit
    def sums(variables: dict[str, Any], key: jax.Array, batch: Batch):
        count = batch["image"].shape[0] if frames else num_samples
        check(count)
        images = None if frames else prepare(batch["image"])
        live = key if num_samples else None

        def execute(index: jax.Array) -> Taps:
            if frames:
                image = prepare(batch["image"][index])
                return taps(model, variables, image, key=live, blocks=blocks)
            sample = jax.random.fold_in(key, index)
            return taps(model, variables, images, key=sample, blocks=blocks)

        moments, space = streamed(execute, count, also=lambda t: over_space(t, ddof))
        found = {}
        for name, (_, squares) in moments.items():
            variance = squares / (count - ddof)
            found[name] = {
                "variance": variance.mean((1, 2, 3)),
                "deviation": jnp.sqrt(variance).mean((1, 2, 3)),
                **{s: value / count for s, value in space[name].items()},
            }
        mask = batch["mask"]
        total = jax.tree.map(lambda value: jnp.where(mask, value, 0).sum(), found)
        return mask.sum(), total

    return sums


def over_space(maps: Taps, ddof: int) -> dict[str, dict[str, jax.Array]]:
    """Variance and deviation over the positions of maps, mean over channels: f[B]."""

    def one(x: jax.Array) -> dict[str, jax.Array]:
        size = x.shape[1] * x.shape[2]
        # A map of a single point has no spread.
        variance = x.var((1, 2)) * size / max(size - ddof, 1)
        return {
            "space_variance": variance.mean(-1),
            "space_deviation": jnp.sqrt(variance).mean(-1),
        }

    return {name: one(x) for name, x in maps.items()}


def streamed(
    execute: Callable[[jax.Array], Taps],
    count: int,
    *,
    also: Callable[[Taps], Any] = lambda maps: (),
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], Any]:
    """Moments of the maps of several executions, keeping two maps for each tap.

    Args:
      execute: Number of the execution -> maps.
      count: Executions.
      also: Further values of the maps, to be summed over executions.

    Returns:
      Name -> (mean, sum of squared deviations from it), and the sums of `also`.
    """
    shapes = jax.eval_shape(lambda index: (execute(index), also(execute(index))), 0)
    maps, extra = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(index: jax.Array, carry):
        means, squares, sums = carry
        x = execute(index)
        new = jax.tree.map(lambda m, x: m + (x - m) / (index + 1), means, x)
        squares = jax.tree.map(
            lambda s, x, old, new: s + (x - old) * (x - new), squares, x, means, new
        )
        return new, squares, jax.tree.map(jnp.add, sums, also(x))

    means, squares, sums = jax.lax.fori_loop(0, count, add, (maps, maps, extra))
    return {name: (means[name], squares[name]) for name in means}, sums


def variance(
    model: nn.Module,
    variables: dict[str, Any],
    data: Iterable[Batch],
    *,
    key: jax.Array,
    prepare: Callable[[jax.Array], jax.Array],
    over: str = "samples",
    num_samples: int = 10,
    ddof: int = 1,
    blocks: bool = False,
) -> list[Row]:
    """Variance of every tap over executions, and over space within one.

    Args:
      model: The network.
      variables: Its variables.
      data: Batches; see `compile_sums`, as for the options. Batch i draws from
        `fold_in(key, i)`.
      key: Of dropout.
      prepare: Normalises.
      over: "samples" or "frames".
      num_samples: S.
      ddof: Divisors are the number of values less this.
      blocks: Every block in place of stages.

    Returns:
      A row for each tap in the order of the network: `tap`; `variance` and `deviation`
      over executions; `space_variance` and `space_deviation` over the positions of one
      map; means over all else. The mean of deviations is not the root of the mean
      variance.

    Raises:
      ValueError: if there are no batches.
    """
    options = {"over": over, "num_samples": num_samples, "ddof": ddof}
    sums = compile_sums(model, prepare=prepare, blocks=blocks, **options)
    total = names = None
    for index, batch in enumerate(data):
        part = sums(variables, jax.random.fold_in(key, index), batch)
        total = part if index == 0 else jax.tree.map(jnp.add, total, part)
        if index == 0:
            image = batch["image"][0] if over == "frames" else batch["image"]
            images = jax.eval_shape(prepare, image)
            names = tap_names(model, variables, images, blocks=blocks)
    if total is None:
        raise ValueError("there is nothing to analyse: no batches")
    count, found = jax.device_get(total)
    return [
        {"tap": name, **{s: float(found[name][s] / count) for s in STATISTICS}}
        for name in names
    ]


def sample_maps(
    key: jax.Array,
    model: nn.Module,
    variables: dict[str, Any],
    images: jax.Array,
    *,
    num_samples: int = 10,
    blocks: bool = False,
) -> dict[str, dict[str, jax.Array]]:
    """Returns the maps of two dropout samples and the variance over many, to draw.

    Args:
      key: Of dropout.
      model: The network.
      variables: Its variables.
      images: f32[B, H, W, 3], normalised.
      num_samples: S, at least 2.
      blocks: See `taps`.

    Returns:
      Name, in the order of the network -> `samples` f32[2, B, H, W, C], `variance`
      f32[B, H, W, C] (divisor S - 1).

    Raises:
      ValueError: if `num_samples` is less than 2.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")

    @jax.jit
    def compute(key, variables, images):
        def execute(index: jax.Array) -> Taps:
            sample = jax.random.fold_in(key, index)
            return taps(model, variables, images, key=sample, blocks=blocks)

        pair = jax.lax.map(execute, jnp.arange(2))
        return pair, streamed(execute, num_samples)[0]

    pair, moments = compute(key, variables, images)
    names = tap_names(model, variables, images, blocks=blocks)
    variances = {name: moments[name][1] / (num_samples - 1) for name in names}
    return {n: {"samples": pair[n], "variance": variances[n]} for n in names}
