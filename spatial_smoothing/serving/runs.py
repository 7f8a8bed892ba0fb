"""Serving: trained networks as functions of images, in this process or exported.

Contract of this file: what is predicted for an image depends on the image and the seed
alone, neither on the other images of the batch nor on how many there are. One sample of
the dropout masks serves all images, and normalisation is inside.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from spatial_smoothing import ensembles
from spatial_smoothing.data import augment
from spatial_smoothing.data.class_names import class_names
from spatial_smoothing.runs import workdirs
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.serving.predictor import Description, Predictor, uncertainty

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PROGRAM, _DESCRIPTION = "predict.jax_export", "description.json"
# (variables, u8 or f32 [B, H, W, 3], u32[] seed) -> the fields of Prediction.
Predict = Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]


def load_predictor(
    workdir: epath.PathLike,
    *,
    num_samples: int = 50,
    batch_size: int = 256,
    chunk: int | None = None,
) -> Predictor:
    """Loads the newest good checkpoint of a run, ready to predict.

    Args:
      workdir: Of the run.
      num_samples: Monte Carlo dropout samples, at least 1; a network without dropout
        makes one pass whatever this says.
      batch_size: Images at once.
      chunk: Samples at once; None for what suits the device, as in
        `ensembles.mc_logits`. Memory grows with batch_size * chunk.

    Raises:
      ValueError: if there is no run or checkpoint, or for unusable numbers.

    Example:
      >>> predictor = load_predictor("runs/shapes")
      >>> probs, entropy, mutual_information = predictor(images)
    """
    variables, description, predict = _load(
        workdir, num_samples=num_samples, chunk=chunk
    )
    variables = jax.device_put(variables, jax.local_devices()[0])
    compiled = functools.partial(jax.jit(predict), variables)
    return Predictor(compiled, description, batch_size=batch_size)


def export(
    workdir: epath.PathLike,
    out: epath.PathLike,
    *,
    num_samples: int = 50,
    chunk: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> epath.Path:
    """Writes a run as StableHLO, to run without this package.

    The program, of `jax.export`, holds variables and normalisation, and takes batches
    of any size: `(u8[B, H, W, 3], u32[] seed)` to a dictionary of the fields of
    `Prediction`. Beside it is its `Description` as JSON.

    Args:
      workdir: Of the run.
      out: A directory to make.
      num_samples: As in `load_predictor`.
      chunk: As in `load_predictor`; None for what suits the device that the program
        will run on.
      platforms: Where it is to run: "cpu", "cuda", "rocm", "tpu".

    Returns:
      `out`.

    Raises:
      ValueError: if `out` is there already, and as `load_predictor`.
    """
    out = epath.Path(out)
    if out.exists():
        raise ValueError(f"{out} is there already; choose another directory")
    variables, description, predict = _load(
        workdir, num_samples=num_samples, chunk=chunk, anywhere=True
    )
    constants = jax.device_get(variables)
    (batch,) = jax.export.symbolic_shape("batch")
    size = description.image_size
    exported = jax.export.export(
        jax.jit(functools.partial(predict, constants)), platforms=platforms
    )(
        jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )
    unfinished = out.with_name(f"{out.name}.tmp")
    if unfinished.exists():
        unfinished.rmtree()
    unfinished.mkdir(parents=True)
    (unfinished / _PROGRAM).write_bytes(exported.serialize())
    about = {**dataclasses.asdict(description), "provenance": provenance()}
    workdirs.write_json(unfinished / _DESCRIPTION, about)
    return unfinished.rename(out)


def load_exported(path: epath.PathLike, *, batch_size: int = 256) -> Predictor:
    """Loads what `export` wrote; its images must be uint8.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    path = epath.Path(path)
    if not (path / _PROGRAM).exists():
        raise ValueError(f"nothing exported in {path}: there is no {path / _PROGRAM}")
    try:
        exported = jax.export.deserialize(bytearray((path / _PROGRAM).read_bytes()))
        fields = json.loads((path / _DESCRIPTION).read_text())
        fields.pop("provenance")
        description = Description(**fields)
    except Exception as error:  # flatbuffers, JAX and json each raise their own
        raise ValueError(
            f"cannot read {path}: {type(error).__name__}: {error}; export it again"
        ) from error
    return Predictor(
        jax.jit(exported.call),
        description,
        batch_size=batch_size,
        dtypes=("uint8",),
    )


def describe(run: workdirs.Run, *, num_samples: int) -> Description:
    """Returns the description of a run that predicts with so many samples."""
    source = run.source
    return Description(
        model=run.config["model"],
        dataset=source.name,
        step=run.step,
        num_samples=num_samples if run.model.rate > 0 else 1,
        image_size=source.image_size,
        mean=source.mean,
        std=source.std,
        resize=source.resize,
        class_names=source.class_names
        or class_names(source.name, data_dir=run.config.get("data_dir")),
    )


def _load(
    workdir: epath.PathLike,
    *,
    num_samples: int,
    chunk: int | None,
    anywhere: bool = False,
) -> tuple[Any, Description, Predict]:
    """Returns variables, description and the function of a run.

    By default the function suits this process' device, else any that it is lowered for.
    """
    for name, value in (("num_samples", num_samples), ("chunk", chunk)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    run = workdirs.load(workdir)
    stochastic = run.model.rate > 0
    description = describe(run, num_samples=num_samples)

    def sampled(chunk: int | None) -> Callable:
        return lambda variables, key, image: ensembles.mc_logits(
            key, run.model, variables, image[None], num_samples=num_samples, chunk=chunk
        )[:, 0]

    def logits(variables: Any, key: jax.Array, image: jax.Array) -> jax.Array:
        if not stochastic:
            return run.model.apply(variables, image[None], train=False)
        if chunk or not anywhere:
            return sampled(chunk)(variables, key, image)
        return jax.lax.platform_dependent(
            *(variables, key, image),
            cpu=sampled(ensembles.CPU_CHUNK),
            default=sampled(ensembles.CHUNK),
        )

    def predict(variables: Any, images: jax.Array, seed: jax.Array) -> dict:
        if images.dtype != jnp.uint8:
            images = images * 255
        images = augment.normalize(images, mean=description.mean, std=description.std)
        of_all = jax.vmap(logits, in_axes=(None, None, 0), out_axes=1)
        samples = of_all(variables, jax.random.key(seed), images)
        return uncertainty(jax.nn.log_softmax(samples))

    return run.variables, description, predict
