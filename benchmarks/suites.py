"""The suites: each is a function of a `Scale` that returns rows of `timing.compare`.

Contract of this file: ours is the library as it is called by the scripts. Peers in JAX
are what one would write without it; those in PyTorch are in `peers`, and left out where
PyTorch is not installed.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flax_peer, start
from benchmarks.scales import Row, Scale
from benchmarks.timing import Rival
from spatial_smoothing import ensembles, evaluation, ops
from spatial_smoothing.analysis import directions, landscape
from spatial_smoothing.data import augment, batches
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import input_pipeline, optim, steps

_KEY = jax.random.key(0)
_NORMALIZE = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)


def smoothing(scale: Scale) -> list[Row]:
    """Times the layer, forward and with its gradient, on the map of each stage."""
    rows = []
    for stage in range(4):
        shape = (scale.batch_sizes[0], 32 >> stage, 32 >> stage, scale.width << stage)
        for dtype in ("float32", "bfloat16"):
            x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
            for backward in (False, True):
                rows += _smoothing_rows(scale, x, stage + 1, backward=backward)
    return rows


def _smoothing_rows(
    scale: Scale, x: jax.Array, stage: int, *, backward: bool
) -> list[Row]:
    def rival(function: Callable[[jax.Array], jax.Array]) -> Rival:
        def gradient(x, g):
            return jax.vjp(function, x)[1](g)[0]

        g = jnp.ones(jax.eval_shape(function, x).shape, x.dtype)
        compiled = jax.jit(gradient if backward else lambda x, g: function(x))
        return lambda: jax.block_until_ready(compiled(x, g))

    rivals = {
        "ours": rival(ops.smooth),
        "depthwise convolution": rival(flax_peer.smooth),
    }
    if scale.peers:
        from benchmarks import peers

        rivals["PyTorch"] = peers.smoothing(
            np.asarray(x, np.float32), bfloat16=x.dtype != "float32", backward=backward
        )
    y = jax.eval_shape(ops.smooth, x).size
    moved = (2 * x.size + y if backward else x.size + y) * x.dtype.itemsize
    kind = "gradient" if backward else "forward"
    return scale.compare(
        "smoothing",
        f"stage {stage} {kind} {x.dtype}",
        rivals,
        turn=scale.turn,
        work=moved,
        limit=scale.limits.get("copy"),
    )


def training(scale: Scale) -> list[Row]:
    """Times training steps with augmentation; those of PyTorch have none."""
    on_cpu = jax.default_backend() == "cpu"
    dtype = "float32" if on_cpu else "bfloat16"
    rows = []
    for name in scale.models:
        model = scale.model(name, dtype=None if on_cpu else jnp.bfloat16)
        for batch_size in scale.batch_sizes:
            rivals = {"ours": training_rival(scale, model, batch_size)}
            if scale.peers:
                rivals |= _training_peers(scale, model, name, batch_size)
            rows += scale.compare(
                "training",
                f"{name}, {scale.steps} x {batch_size} images, {dtype}",
                rivals,
                work=scale.steps * _training_operations(model, batch_size),
                limit=scale.limits.get(dtype),
            )
    return rows


def _training_peers(scale: Scale, model, name: str, size: int) -> dict:
    from benchmarks import peers

    images, labels = scale.data(size)
    prepared = np.asarray(_NORMALIZE(jnp.asarray(images)))
    build = functools.partial(
        peers.network, name, width=scale.width, stages=model.stages
    )
    rivals = {
        "PyTorch": peers.training_step(build(), prepared, labels, steps=scale.steps)
    }
    if scale.torch_compile:
        rivals["PyTorch compiled"] = peers.training_step(
            build(), prepared, labels, steps=scale.steps, compiled=True
        )
    return rivals


def training_rival(scale: Scale, model, batch_size: int) -> Rival:
    """Returns a function that makes the next steps of one epoch in every call."""
    count = scale.steps * (max(2, scale.rounds) + 2)
    schedule = optim.warmup_multistep(
        0.1, steps_per_epoch=100, warmup_epochs=1, milestones=(60, 120, 160), factor=0.2
    )
    optimizer = optim.sgd(schedule, momentum=0.9, weight_decay=5e-4)
    mesh = sharding.mesh()
    state = steps.place_state(
        lambda: steps.init_state(model, optimizer, (32, 32, 3), seed=0, members=1), mesh
    )
    pipeline = input_pipeline.create(
        Dataset(*scale.data(batch_size * count)),
        order_keys=steps.Streams.of(0).order,
        seed=0,
        total_steps=count,
        batch_size=batch_size,
        mesh=mesh,
    )
    advance = steps.compile_steps(
        model,
        optimizer,
        state,
        pipeline,
        prepare=augment.preparation(_NORMALIZE, augment=True),
        seed=0,
        mesh=mesh,
    )
    held = {"state": state}

    def run() -> None:
        stop = int(held["state"].step) + scale.steps
        held["state"] = jax.block_until_ready(advance(held["state"], stop))

    return run


def first_step(name: str, *, width: int, stages: Sequence[int], size: int) -> None:
    """Makes one training step; see `start`."""
    scale = Scale(width=width, rounds=0)
    training_rival(scale, scale.model(name, stages=tuple(stages)), size)()


def _training_operations(model, batch_size: int) -> float:
    """Returns the floating-point operations of a step, as XLA counts them at first."""
    images = jnp.zeros((batch_size, 32, 32, 3))
    variables = jax.eval_shape(model.init, _KEY, images)

    def loss(params, rest, images):
        logits, _ = model.apply(
            {**rest, "params": params},
            images,
            train=True,
            rngs={"dropout": _KEY},
            mutable=["batch_stats"],
        )
        return logits.mean()

    rest = {"batch_stats": variables["batch_stats"]}
    lowered = jax.jit(jax.grad(loss)).lower(variables["params"], rest, images)
    return lowered.cost_analysis()["flops"]


def mc_dropout(scale: Scale) -> list[Row]:
    """Times the table of all ensemble sizes, from images to NLL and other scores."""
    name = "resnet_mcdo_smoothing_18"
    model, (images, labels) = scale.model(name), scale.data(scale.eval_batch)
    variables = jax.jit(model.init)(_KEY, jnp.zeros((1, 32, 32, 3)))
    batch = {"image": images, "label": labels, "mask": np.ones(len(labels), bool)}
    predict = ensembles.predictor(model, prepare=_NORMALIZE, sizes=scale.sizes)

    def table(predict: ensembles.Predict) -> Rival:
        scores_of = evaluation.compile_scores(predict)

        def run() -> list[Row]:
            scores = scores_of(variables, _KEY, [batch])
            return [
                evaluation.scored_row(each, num_classes=100, key=_KEY, num_replicates=0)
                for each in ensembles.named(scores.ensembles).values()
            ]

        return run

    rivals = {
        "ours": table(predict),
        "lax.map, size by size": table(_one_by_one(model, scale.sizes)),
    }
    if scale.peers:
        from benchmarks import peers

        prepared = np.asarray(_NORMALIZE(jnp.asarray(images)))
        network = peers.network(name, width=scale.width, stages=model.stages)
        for title, shared in (("loops", False), ("one loop", True)):
            rivals[f"PyTorch, {title}"] = peers.mc_dropout_table(
                network, prepared, labels, sizes=scale.sizes, shared=shared
            )
    return scale.compare(
        "mc_dropout",
        f"N = {', '.join(map(str, scale.sizes))}",
        rivals,
        turns=0.5,
    )


def _one_by_one(model, sizes) -> ensembles.Predict:
    """The mixtures of `ensembles.predictor`, with new samples for every size."""

    def predict(variables, key, images):
        parts = []
        for index, size in enumerate(sizes):
            logits = jax.lax.map(
                ensembles.sampler(model, variables, _NORMALIZE(images)),
                jax.random.split(jax.random.fold_in(key, index), size),
            )
            parts.append(jax.vmap(mixtures.single)(logits).sum())
        each = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *parts)
        return ensembles.Predictions(ensembles.Lineup(each, None, None, tuple(sizes)))

    return predict


def loss_landscape(scale: Scale) -> list[Row]:
    """Times a point of a loss landscape, with one dropout sample."""
    name = "resnet_mcdo_smoothing_18"
    model, (images, labels) = scale.model(name), scale.data(scale.eval_batch)
    variables = jax.jit(model.init)(_KEY, jnp.zeros((1, 32, 32, 3)))
    mesh = sharding.mesh(1)
    point = landscape.compile_point(
        model, prepare=lambda key, images: _NORMALIZE(images), mesh=mesh
    )
    stack = functools.partial(jax.tree.map, lambda leaf: leaf[None])
    state = landscape.State(
        variables["params"],
        stack(variables["batch_stats"]),
        directions.draw(_KEY, variables["params"]),
        jnp.full((1, 2), 0.1),
    )
    data = [
        sharding.replicate(batch, mesh)
        for batch in batches.sequential(images, labels, batch_size=len(labels))
    ]
    rivals = {"ours": lambda: point(state, _KEY, data)}
    if scale.peers:
        from benchmarks import peers

        rivals["PyTorch"] = peers.landscape_point(
            peers.network(name, width=scale.width, stages=model.stages),
            np.asarray(_NORMALIZE(jnp.asarray(images))),
            labels,
        )
    return scale.compare("landscape", "one point", rivals)


SUITES: dict[str, Callable[[Scale], list[Row]]] = {
    "smoothing": smoothing,
    "training": training,
    "mc_dropout": mc_dropout,
    "landscape": loss_landscape,
    "start": start.start,
}
