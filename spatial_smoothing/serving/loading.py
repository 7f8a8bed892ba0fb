"""Loading: a trained run as a function of images, in this process.

Contract of this file: what is predicted for an image depends on the image and the seed
alone, neither on the other images of the batch nor on how many there are. One sample of
the dropout masks serves all images, and normalisation is inside.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from spatial_smoothing import ensembles
from spatial_smoothing.data import augment
from spatial_smoothing.data.class_names import class_names
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.ensembles.mixtures import Mixture
from spatial_smoothing.runs import workdirs
from spatial_smoothing.serving.predictor import (
    Description,
    Predictor,
    count,
    uncertainty,
)


class Loaded(NamedTuple):
    """A run, ready to predict.

    Attributes:
      variables: Variables of the network, `{"params", "batch_stats"}`.
      description: What is predicted, and from what.
      predict: `(variables, u8 or f32 [B, H, W, 3], u32[] seed)` -> the fields of
        `Prediction`.
    """

    variables: Any
    description: Description
    predict: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]


def load_predictor(
    workdir: epath.PathLike,
    *,
    num_samples: int = 50,
    batch_size: int | None = None,
    chunk: int | None = None,
) -> Predictor:
    """Loads the newest good checkpoint of a run, ready to predict.

    Args:
      workdir: Workdir of the run.
      num_samples: Number of Monte Carlo dropout samples, at least 1; a network without
        dropout makes one pass whatever this says.
      batch_size: Number of images at once; None for 256, and for segmentation 4.
      chunk: Number of samples computed at once; None for what suits the device, as in
        `ensembles.mc_logits`. Memory grows with batch_size * chunk.

    Raises:
      ValueError: if there is no run or checkpoint, or for unusable numbers.

    Example:
      >>> predictor = load_predictor("runs/shapes")
      >>> probs, entropy, mutual_information = predictor(images)
    """
    loaded = load(workdir, num_samples=num_samples, chunk=chunk)
    variables = jax.device_put(loaded.variables, jax.local_devices()[0])
    compiled = functools.partial(jax.jit(loaded.predict), variables)
    return Predictor(compiled, loaded.description, batch_size=batch_size)


def describe(run: workdirs.Run, *, num_samples: int) -> Description:
    """Returns the description of a run.

    Args:
      run: The run.
      num_samples: Number of Monte Carlo dropout samples that it predicts with.
    """
    source = run.source
    return Description(
        model=run.config["model"],
        dataset=source.name,
        step=run.step,
        num_samples=num_samples if run.model.has_dropout else 1,
        image_size=source.image_size,
        mean=source.mean,
        std=source.std,
        resize=source.resize,
        class_names=source.class_names
        or class_names(source.name, data_dir=run.config.get("data_dir")),
        task=source.task,
        palette=source.palette,
        num_predictions=run.model.num_predictions,
    )


def load(
    workdir: epath.PathLike,
    *,
    num_samples: int,
    chunk: int | None,
    for_any_platform: bool = False,
) -> Loaded:
    """Loads a run as variables and a function that is not compiled yet.

    Args:
      workdir: Workdir of the run.
      num_samples: Number of Monte Carlo dropout samples, at least 1.
      chunk: Number of samples computed at once; None for what suits the device.
      for_any_platform: Whether the function suits any platform that it is lowered for;
        if not, it suits the device of this process.

    Raises:
      ValueError: if there is no run or checkpoint, or for unusable numbers.
    """
    num_samples = count("num_samples", num_samples)
    chunk = None if chunk is None else count("chunk", chunk)
    run = workdirs.load(workdir)
    network = ensembles.as_apply(run.model)
    description = describe(run, num_samples=num_samples)

    def sampled(
        variables: Any, key: jax.Array, image: jax.Array, *, chunk: int | None
    ) -> Mixture:
        of_sizes = mixtures.mc_mixtures(
            key, network, variables, image[None], sizes=(num_samples,), chunk=chunk
        )
        return jax.tree.map(lambda leaf: leaf[0], of_sizes)

    def of_image(variables: Any, key: jax.Array, image: jax.Array) -> Mixture:
        """The mixture of one image, as a batch of one."""
        if not network.stochastic:
            logits = network.apply(variables, image[None], None)
            return mixtures.of_pass(network)(logits)
        if chunk or not for_any_platform:
            return sampled(variables, key, image, chunk=chunk)
        return jax.lax.platform_dependent(
            *(variables, key, image),
            cpu=functools.partial(sampled, chunk=ensembles.CPU_CHUNK),
            default=functools.partial(sampled, chunk=ensembles.CHUNK),
        )

    def predict(variables: Any, images: jax.Array, seed: jax.Array) -> dict:
        if images.dtype != jnp.uint8:
            images = images * 255
        images = augment.normalize(images, mean=description.mean, std=description.std)
        # Each image alone sees the masks of the key: a batch does not change them.
        of_all = jax.vmap(of_image, in_axes=(None, None, 0))
        # The generator is part of what is exported, not of the process that predicts.
        key = jax.random.key(seed, impl="threefry2x32")
        each = of_all(variables, key, images)
        return jax.tree.map(lambda field: field[:, 0], uncertainty(each))

    return Loaded(run.variables, description, predict)
