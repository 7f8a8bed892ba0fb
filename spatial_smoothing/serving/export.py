"""Exporting: a trained network as one StableHLO program, and reading it back.

Contract of this file: an exported directory holds the program, with variables and
normalisation inside, and a description of it as JSON. It runs without this package.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from etils import epath

from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs import workdirs
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.serving.loading import load
from spatial_smoothing.serving.predictor import Description, Predictor

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PROGRAM, _DESCRIPTION = "predict.jax_export", "description.json"
_DIGEST = "program_sha256"


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
      workdir: Workdir of the run.
      out: Directory to make.
      num_samples: Number of Monte Carlo dropout samples, at least 1; a network without
        dropout makes one pass whatever this says.
      chunk: Number of samples computed at once, at least 1; None for what suits the
        device that the program will run on.
      platforms: Platforms that the program runs on, at least one of "cpu", "cuda",
        "rocm" and "tpu".

    Returns:
      `out`.

    Raises:
      ValueError: if `out` is there already, for other platforms, and as
        `load_predictor`.
    """
    platforms = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    for platform in platforms or [None]:
        lookup(dict.fromkeys(PLATFORMS), platform, "platform")
    out = epath.Path(out)
    if out.exists():
        raise ValueError(f"{out} is there already; choose another directory")
    loaded = load(workdir, num_samples=num_samples, chunk=chunk, for_any_platform=True)
    constants = jax.device_get(loaded.variables)
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(
        jax.jit(functools.partial(loaded.predict, constants)), platforms=platforms
    )(
        jax.ShapeDtypeStruct((batch, *loaded.description.image_shape), jnp.uint8),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )
    unfinished = out.with_name(f"{out.name}.tmp")
    if unfinished.exists():
        unfinished.rmtree()
    unfinished.mkdir(parents=True)
    program = bytes(exported.serialize())
    (unfinished / _PROGRAM).write_bytes(program)
    made = {**provenance(), _DIGEST: hashlib.sha256(program).hexdigest()}
    about = {**dataclasses.asdict(loaded.description), "provenance": made}
    workdirs.write_json(unfinished / _DESCRIPTION, about)
    return unfinished.rename(out)


def load_exported(path: epath.PathLike, *, batch_size: int | None = None) -> Predictor:
    """Loads what `export` wrote; its images must be uint8.

    Args:
      path: Directory that `export` has made.
      batch_size: Number of images at once; None for 256, and for segmentation 4.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    path = epath.Path(path)
    if not (path / _PROGRAM).exists():
        raise ValueError(f"nothing exported in {path}: there is no {path / _PROGRAM}")
    try:
        program = (path / _PROGRAM).read_bytes()
        fields = json.loads((path / _DESCRIPTION).read_text())
        digest = fields.pop("provenance").get(_DIGEST)  # not in those of older versions
        # Of weights that have changed nothing else would tell.
        if digest not in (None, hashlib.sha256(program).hexdigest()):
            raise ValueError(f"{_PROGRAM} is not the file that was written")
        exported = jax.export.deserialize(bytearray(program))
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
