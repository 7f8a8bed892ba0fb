"""Variance of feature maps: over dropout samples, over frames, and over space.

Contract of this file: a tap is the output of a part of the network, f32[B, H, W, C],
and has the name of the part: `stem`, `stage1`, `smooth1`, ... Statistics are updated
pass by pass (Welford), so that memory depends on neither the number of samples nor that
of batches.

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

# What a variance can be taken over -> what that is.
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
      model: The network, a Linen module that sows its stages as intermediates, as those
        of `models` do.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      images: f32[B, H, W, 3], normalised.
      key: PRNG key of the dropout masks; None for a pass without dropout.
      blocks: Whether to give every block (`stage1_block0`, ...) in place of stages.

    Returns:
      Name -> f32[B, H, W, C], or wider. Logits are left out. Under `jit` the order is
      lost; `tap_names` gives it.
    """

    def is_captured(module: nn.Module, method: str) -> bool:
        return blocks and "_block" in (module.name or "")

    _, state = model.apply(
        variables,
        images,
        train=False,
        rngs={} if key is None else {"dropout": random_bits.fused(key)},
        mutable=["intermediates"],
        capture_intermediates=is_captured,
    )
    found = {}
    for name, value in state["intermediates"].items():
        # Flax keeps a tuple of all values that a name was given; here it has one. What
        # is captured of a module is a level deeper, under the name of its method.
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
    """Returns the names of the taps in the order of the network, without computing.

    Args:
      model: The network, as `taps` takes it.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      images: f32[B, H, W, 3], or their `jax.ShapeDtypeStruct`.
      blocks: Whether to give every block in place of stages.
    """
    names = []

    def trace(variables, images):
        # Results of a traced function are sorted by name, so they are listed inside.
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
      model: The network, as `taps` takes it.
      prepare: Normalises u8[B, H, W, 3] to f32[B, H, W, 3].
      over: What the variance is taken over. "samples": dropout samples of each image.
        "frames": images are u8[T, B, H, W, 3], T at least 2, and all frames share one
        dropout mask.
      num_samples: With "samples", the number S of dropout samples, at least 2. With
        "frames", 0 for passes without dropout and anything else for one mask.
      ddof: Divisors are the number of values less this, 0 or 1.
      blocks: Whether to give every block in place of stages.

    Returns:
      A function to the number of examples, i32[], and a dict of name of the tap -> name
      of the statistic (one of `STATISTICS`) -> f32[], the sum over examples of its mean
      over positions and channels.

    Raises:
      ValueError: for an unknown `over`, or too few samples or frames.

    Source: Park & Kim, ICML 2022, figure 5.
    """
    lookup(OVER, over, "choice of what to take the variance over")
    if over == "samples":
        _check_count(num_samples, over, ddof)

    @jax.jit
    def sums(variables: dict[str, Any], key: jax.Array, batch: Batch):
        if over == "frames":
            count = batch["image"].shape[0]
            _check_count(count, over, ddof)
            mask_key = key if num_samples else None

            def execute(index: jax.Array) -> Taps:
                frame = prepare(batch["image"][index])
                return taps(model, variables, frame, key=mask_key, blocks=blocks)

        else:
            count = num_samples
            images = prepare(batch["image"])

            def execute(index: jax.Array) -> Taps:
                sample_key = jax.random.fold_in(key, index)
                return taps(model, variables, images, key=sample_key, blocks=blocks)

        moments, space_sums = streamed(
            execute, count, also=lambda maps: over_space(maps, ddof)
        )
        statistics = {}
        for name, (_, squares) in moments.items():
            variance = squares / (count - ddof)
            statistics[name] = {
                "variance": variance.mean((1, 2, 3)),
                "deviation": jnp.sqrt(variance).mean((1, 2, 3)),
                **{
                    statistic: total / count
                    for statistic, total in space_sums[name].items()
                },
            }
        mask = batch["mask"]
        total = jax.tree.map(lambda value: jnp.where(mask, value, 0).sum(), statistics)
        return mask.sum(dtype=jnp.int32), total

    return sums


def _check_count(count: int, over: str, ddof: int) -> None:
    """Raises ValueError if a variance of so many values is not defined."""
    if count <= max(ddof, 1):
        raise ValueError(
            f"a variance over {over} with ddof {ddof} needs more than "
            f"{max(ddof, 1)}, got {count}"
        )


def over_space(maps: Taps, ddof: int) -> dict[str, dict[str, jax.Array]]:
    """Returns the variance and the deviation over the positions of maps.

    Args:
      maps: Name of the tap -> f32[B, H, W, C].
      ddof: The divisor is the number of positions less this, 0 or 1.

    Returns:
      Name of the tap -> `space_variance` and `space_deviation` f32[B], means over
      channels.
    """

    def of_maps(x: jax.Array) -> dict[str, jax.Array]:
        size = x.shape[1] * x.shape[2]
        # A map of a single position has no spread: 0 / 1, and not 0 / 0.
        variance = x.var((1, 2)) * size / max(size - ddof, 1)
        return {
            "space_variance": variance.mean(-1),
            "space_deviation": jnp.sqrt(variance).mean(-1),
        }

    return {name: of_maps(x) for name, x in maps.items()}


def _nothing_more(maps: Taps) -> tuple[()]:
    return ()


def streamed(
    execute: Callable[[jax.Array], Taps],
    count: int,
    *,
    also: Callable[[Taps], Any] = _nothing_more,
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], Any]:
    """Returns moments of the maps of several passes, keeping two maps for each tap.

    The mean m and the sum of squared deviations s from it are updated by each map x,
    the i-th, counted from 1 (Welford):

        m' = m + (x - m) / i        s' = s + (x - m) (x - m')

    The sum of squares less the squared mean would be the same in exact arithmetic. In
    float32 it has no digits left where the mean is much larger than the deviation.

    Args:
      execute: Function of the number of the pass, i32[], to maps f32[B, H, W, C].
      count: Number of passes, at least 1.
      also: Function of the maps of one pass to further values, a pytree of arrays,
        which are summed over passes; the default has none.

    Returns:
      Name of the tap -> (mean, sum of squared deviations from it), f32[B, H, W, C]
      each; and the sums of `also`.

    Source: Welford, Technometrics 4, 1962.
    """
    map_shapes = jax.eval_shape(execute, 0)
    further_shapes = jax.eval_shape(also, map_shapes)
    zeros = lambda shapes: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(index: jax.Array, carry):
        means, squares, further = carry
        maps = execute(index)
        new_means = jax.tree.map(
            lambda mean, x: mean + (x - mean) / (index + 1).astype(x.dtype), means, maps
        )
        squares = jax.tree.map(
            lambda square, x, mean, new_mean: square + (x - mean) * (x - new_mean),
            squares,
            maps,
            means,
            new_means,
        )
        return new_means, squares, jax.tree.map(jnp.add, further, also(maps))

    first = zeros(map_shapes), zeros(map_shapes), zeros(further_shapes)
    means, squares, further = jax.lax.fori_loop(0, count, add, first)
    return {name: (means[name], squares[name]) for name in means}, further


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
    """Returns the variance of every tap over passes, and over space within one.

    Args:
      model: The network, as `taps` takes it.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      data: Batches of u8[B, H, W, 3], or u8[T, B, H, W, 3] with "frames". Batch i draws
        from `fold_in(key, i)`.
      key: PRNG key of the dropout masks.
      prepare: Normalises u8[B, H, W, 3] to f32[B, H, W, 3].
      over: What the variance is taken over. "samples": dropout samples of each image.
        "frames": frames of a sequence, which share one dropout mask.
      num_samples: With "samples", the number S of dropout samples, at least 2. With
        "frames", 0 for passes without dropout and anything else for one mask.
      ddof: Divisors are the number of values less this, 0 or 1.
      blocks: Whether to give every block in place of stages.

    Returns:
      A row for each tap in the order of the network: `tap`; `variance` and `deviation`
      over passes; `space_variance` and `space_deviation` over the positions of one map;
      means over all else. The mean of deviations is not the root of the mean variance.

    Raises:
      ValueError: for an unknown `over`, too few samples or frames, or no batches.

    Source: Park & Kim, ICML 2022, figure 5.
    """
    sums = compile_sums(
        model,
        prepare=prepare,
        over=over,
        num_samples=num_samples,
        ddof=ddof,
        blocks=blocks,
    )
    total = names = None
    for index, batch in enumerate(data):
        part = sums(variables, jax.random.fold_in(key, index), batch)
        if total is None:
            total = part
            one_frame = batch["image"][0] if over == "frames" else batch["image"]
            images = jax.eval_shape(prepare, one_frame)
            names = tap_names(model, variables, images, blocks=blocks)
        else:
            total = jax.tree.map(jnp.add, total, part)
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
      key: PRNG key of the dropout masks.
      model: The network, as `taps` takes it.
      variables: Flax variables of the network, `{"params", "batch_stats"}`.
      images: f32[B, H, W, 3], normalised.
      num_samples: Number S of dropout samples, at least 2.
      blocks: Whether to give every block in place of stages.

    Returns:
      Name of the tap, in the order of the network -> `samples` f32[2, B, H, W, C] and
      `variance` f32[B, H, W, C] (divisor S - 1).

    Raises:
      ValueError: if `num_samples` is less than 2.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    compute = compile_sample_maps(model, num_samples=num_samples, blocks=blocks)
    first_two, moments = compute(key, variables, images)
    names = tap_names(model, variables, images, blocks=blocks)
    found = {}
    for name in names:
        _, squares = moments[name]
        found[name] = {
            "samples": first_two[name],
            "variance": squares / (num_samples - 1),
        }
    return found


def compile_sample_maps(
    model: nn.Module, *, num_samples: int, blocks: bool = False
) -> Callable[..., Any]:
    """Compiles `compute(key, variables, images)`, the maps that `sample_maps` returns.

    Args:
      model: The network, as `taps` takes it.
      num_samples: Number S of dropout samples, at least 2.
      blocks: Whether to give every block in place of stages.

    Returns:
      A function to name of the tap -> f32[2, B, H, W, C], the maps of two samples; and
      name of the tap -> mean, and sum of squared deviations from it, over all samples.
    """

    @jax.jit
    def compute(key: jax.Array, variables: dict[str, Any], images: jax.Array):
        def execute(index: jax.Array) -> Taps:
            sample_key = jax.random.fold_in(key, index)
            return taps(model, variables, images, key=sample_key, blocks=blocks)

        first_two = jax.lax.map(execute, jnp.arange(2))
        moments, _ = streamed(execute, num_samples)
        return first_two, moments

    return compute
