"""The programs of `benchmarks.compiled`, for the compiler: functions and shapes.

Contract of this file: ours are the functions that the scripts call, with the arguments
that these give them; those of the peer are in `flax_peer`. Images are u8[B, H, W, 3].
Both normalise them, and a step, a point of a landscape and a Hessian-vector product
augment those of CIFAR with the same functions. Our step takes its batch from a data set
of 50,000 images on the device, as training does; the peer is given the batch. No array
is made: arguments are shapes with shardings.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks import compiled_rows, flax_peer
from benchmarks.compiled_rows import OURS, Row
from spatial_smoothing import ensembles, models, ops
from spatial_smoothing.analysis import directions, hessian
from spatial_smoothing.data import augment
from spatial_smoothing.data.corruption import transforms
from spatial_smoothing.data.datasets import DatasetShape
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.evaluation import tallies
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import sharding
from spatial_smoothing.runtime.topologies import Topology
from spatial_smoothing.training import costing, optim
from spatial_smoothing.training.options import Hyperparameters, Placement

NUM_SAMPLES = 50
_NORMALIZE = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
_CIFAR, _IMAGENET = (32, 32, 3), (224, 224, 3)


class Program(NamedTuple):
    """A program to compile.

    Attributes:
      traced: A function of `jax.jit`, traced for shapes with shardings.
      ideal: The bytes that it has to read and write at least; None if not known.
      parameters: The number of parameters of the network; 0 if there is none.
      loops: Whether it is a loop over steps, of which the figures are of one.
      num_devices: Number of devices that share the work.
    """

    traced: jax.stages.Traced
    ideal: int | None = None
    parameters: int = 0
    loops: bool = False
    num_devices: int = 1


def build(row: Row, topology: Topology) -> Program:
    """Returns the program of a row.

    Args:
      row: The row.
      topology: The devices that the row names.
    """
    mesh = sharding.mesh(devices=topology.devices)
    program = PROGRAMS[row.program](row, mesh)
    return program._replace(num_devices=mesh.size)


def _array(mesh: Mesh, shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape of an array that every device holds whole."""
    return _arrays(mesh, jax.ShapeDtypeStruct(tuple(shape), dtype))


def _arrays(mesh: Mesh, tree: Any) -> Any:
    """Returns the shapes of a tree of arrays, or of their shapes, on every device."""
    return sharding.placed(tree, sharding.replicated(mesh))


def _key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    return _arrays(mesh, jax.eval_shape(lambda: jax.random.key(0)))


def _labels(mesh: Mesh, size: int) -> jax.ShapeDtypeStruct:
    return _array(mesh, (size,), jnp.int32)


def image_shape(row: Row) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images of a row's network."""
    return _IMAGENET if row.case in compiled_rows.IMAGENET else _CIFAR


def _network(row: Row) -> Network | flax_peer.ResNet:
    """Returns the network of a row: ours, or the peer's."""
    imagenet = row.case in compiled_rows.IMAGENET
    num_classes, dtype = (1000 if imagenet else 100), jnp.dtype(row.dtype)
    ours = models.build(
        row.case,
        num_classes=num_classes,
        stem="imagenet" if imagenet else "cifar",
        dtype=dtype,
    )
    if row.rival == OURS:
        return ours
    return flax_peer.network(
        row.case,
        num_classes=num_classes,
        imagenet=imagenet,
        rate=ours.rate,
        dtype=dtype,
    )


def _prepare(row: Row) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns what is done with the images of a row before the network sees them."""
    # Those of ImageNet are cropped and flipped while they are decoded.
    return augment.preparation(
        _NORMALIZE, augment=row.case not in compiled_rows.IMAGENET
    )


def _smooth(row: Row, mesh: Mesh, *, gradient: bool) -> Program:
    """The op on one feature map: both maps are read or written once at the least."""
    function = ops.smooth if row.rival == OURS else flax_peer.smooth
    shape = map(int, row.case.split("x"))
    x = _array(mesh, (row.size, *shape), row.dtype)
    y = jax.eval_shape(function, x)
    if not gradient:
        ideal = (x.size + y.size) * x.dtype.itemsize
        return Program(jax.jit(function).trace(x), ideal)

    def of_input(x: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(function, x)[1](cotangent)[0]

    ideal = (2 * x.size + y.size) * x.dtype.itemsize
    return Program(jax.jit(of_input).trace(x, _arrays(mesh, y)), ideal)


def _step(row: Row, mesh: Mesh) -> Program:
    """A training step of SGD."""
    model, shape = _network(row), image_shape(row)
    if row.rival == OURS:
        return _our_step(row, mesh, model)
    variables, opt_state = _arrays(
        mesh, jax.eval_shape(lambda: flax_peer.init(model, shape))
    )
    step = flax_peer.training_step(model, _prepare(row))
    images = _array(mesh, (row.size, *shape), jnp.uint8)
    arguments = (variables, opt_state, _key(mesh), images, _labels(mesh, row.size))
    return Program(jax.jit(step, donate_argnums=(0, 1)).trace(*arguments))


def _our_step(row: Row, mesh: Mesh, model: Network) -> Program:
    """What training compiles: a loop over steps, or one step of images of the host."""
    shape = image_shape(row)
    schedule = optim.warmup_multistep(
        0.1, steps_per_epoch=391, warmup_epochs=1, milestones=(60, 120, 160), factor=0.2
    )
    hyperparameters = Hyperparameters(
        prepare=_prepare(row),
        schedule=schedule,
        optimizer=optim.sgd(schedule),
        epochs=201,
        batch_size=row.size * mesh.size,
        seed=0,
    )
    in_memory = shape == _CIFAR
    traced = costing.trace_step(
        model,
        DatasetShape(50_000 if in_memory else 1_281_167, shape, in_memory),
        hyperparameters,
        Placement(mesh),
    )
    size = hessian.num_parameters(_variables(row, mesh))
    return Program(traced, parameters=size, loops=in_memory)


def _mc_dropout(row: Row, mesh: Mesh, *, chunk: int) -> Program:
    """A pass over a batch that predicts by N = 1, 2, ..., 50 dropout samples."""
    model, shape = _network(row), image_shape(row)
    if row.rival == OURS:
        function = ensembles.predictor(
            model,
            prepare=_NORMALIZE,
            sizes=tuple(range(1, NUM_SAMPLES + 1)),
            chunk=chunk,
        )
    else:
        function = flax_peer.mc_dropout(
            model, _NORMALIZE, num_samples=NUM_SAMPLES, chunk=chunk
        )
    images = _array(mesh, (row.size, *shape), jnp.uint8)
    arguments = (_variables(row, mesh), _key(mesh), images)
    return Program(jax.jit(function).trace(*arguments))


def _variables(row: Row, mesh: Mesh) -> Any:
    """Returns the shapes of the variables of a row's network."""
    model, images = _network(row), jnp.zeros((1, *image_shape(row)))
    init = functools.partial(model.init, jax.random.key(0), images, train=False)
    return _arrays(mesh, jax.eval_shape(init))


def _landscape(row: Row, mesh: Mesh) -> Program:
    """The scores of a batch at shifted weights, by one dropout sample."""
    model, prepare = _network(row), _prepare(row)
    if row.rival == OURS:
        network = ensembles.as_apply(model)

        def point(variables, shifts, coordinates, key, images, labels):
            prepare_key, dropout_key = jax.random.split(key)
            params = directions.shift(
                variables["params"], shifts, coordinates[0], coordinates[1]
            )
            logits = ensembles.mc_logits(
                dropout_key,
                network,
                {**variables, "params": params},
                prepare(prepare_key, images),
                num_samples=1,
            )
            batch = {"label": labels, "mask": jnp.ones(labels.shape, bool)}
            return tallies.tally_of(mixtures.single(logits[0]), batch)
    else:
        point = flax_peer.landscape_point(model, prepare)
    variables = _variables(row, mesh)
    shifts = (variables["params"], variables["params"])
    coordinates = _array(mesh, (2,), jnp.float32)
    arguments = (variables, shifts, coordinates, _key(mesh), *_batch(row, mesh))
    return Program(jax.jit(point).trace(*arguments))


def _batch(row: Row, mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the shapes of images and labels."""
    images = _array(mesh, (row.size, *image_shape(row)), jnp.uint8)
    return images, _labels(mesh, row.size)


def _hessian_product(row: Row, mesh: Mesh) -> Program:
    """The product of a vector and the Hessian of a batch's loss."""
    model, prepare, variables = _network(row), _prepare(row), _variables(row, mesh)
    size = hessian.num_parameters(variables)
    vector = _array(mesh, (size,), jnp.float32)
    images, labels = _batch(row, mesh)
    if row.rival == OURS:
        loss = hessian.objective(model, prepare=prepare, weight_decay=5e-4)
        mask = _array(mesh, labels.shape, bool)
        batch = {"image": images, "label": labels, "mask": mask}
        product = hessian.compile_hvp(loss)
        return Program(product.trace(variables, _key(mesh), batch, vector))
    product = jax.jit(flax_peer.hessian_product(model, prepare))
    return Program(product.trace(variables, _key(mesh), images, labels, vector))


def _corruption(row: Row, mesh: Mesh) -> Program:
    """One corruption of images at severity 3."""

    def corrupt(key: jax.Array, images: jax.Array) -> jax.Array:
        return transforms.corrupt(key, images, row.case, 3)

    images = _array(mesh, (row.size, *_CIFAR), jnp.uint8)
    return Program(jax.jit(corrupt).trace(_key(mesh), images), 2 * images.size)


PROGRAMS: dict[str, Callable[[Row, Mesh], Program]] = {
    "smooth": functools.partial(_smooth, gradient=False),
    "smooth_gradient": functools.partial(_smooth, gradient=True),
    "step": _step,
    **{
        f"mc_dropout_{chunk}": functools.partial(_mc_dropout, chunk=chunk)
        for chunk in compiled_rows.CHUNKS
    },
    "landscape": _landscape,
    "hvp": _hessian_product,
    "corruption": _corruption,
}
