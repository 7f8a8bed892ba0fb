"""Recipes: the network and the data set that a config describes.

Contract of this file: a config is a flat dict of JSON's types, as `configs/` make it
and `workdirs` keep it. Nothing is read or written.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from spatial_smoothing.data import sources
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.data.sources import Source
from spatial_smoothing.lookup import unknown
from spatial_smoothing.models import zoo
from spatial_smoothing.models.network import Network

# Fields of a config that are arguments of `models.build`; None leaves the model's own.
MODEL_FIELDS = (
    "stem",
    "width",
    "stages",
    "rate",
    "mc_stages",
    "smoothing",
    "temperature",
    "squash",
    "taps",
    "padding",
    "smoothing_norm",
    "head",
    "head_temperature",
    "conv_bias",
    "dtype",
)
_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def source(config: Mapping[str, Any]) -> Source:
    """Returns the data set of a config.

    Args:
      config: With `dataset`, and if need be `image_size` and `class_names`.

    Raises:
      ValueError: There is no such data set, or it has images of another size.
    """
    return sources.source(
        config["dataset"],
        image_size=config.get("image_size"),
        class_names=config.get("class_names"),
    )


def loader(
    config: Mapping[str, Any],
    *,
    data_dir: epath.PathLike | None = None,
    download: bool = False,
) -> Callable[[str, str], AnyDataset]:
    """Returns a function of name and split to a data set for the networks of a config.

    Args:
      config: As for `source`, with `data_dir`, `augment` and `num_workers`.
      data_dir: Of TFDS, in place of that of the config.
      download: See `sources.load`.
    """
    own = source(config)

    def load(name: str, split: str) -> AnyDataset:
        return sources.load(
            name,
            split,
            data_dir=data_dir or config.get("data_dir"),
            download=download,
            image_size=own.image_size,
            class_names=own.class_names if name == own.name else None,
            augment=config.get("augment", True),
            num_workers=config.get("num_workers") or 0,
        )

    return load


def build_model(config: Mapping[str, Any]) -> Network:
    """Builds the network that a config describes, and tries that it works.

    Args:
      config: With `model`, `dataset`, and any of `MODEL_FIELDS`.

    Raises:
      ValueError: for an unknown model, data set or type, or fields that do not fit.
    """
    fields = {name: config.get(name) for name in MODEL_FIELDS}
    dtype = fields.pop("dtype") or "float32"
    if dtype not in _DTYPES:
        raise unknown("dtype", dtype, _DTYPES)
    # JSON and configs have lists where a module, to be hashable, needs tuples.
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if value is not None
    }
    of = source(config)
    model = zoo.build(
        config["model"],
        num_classes=of.num_classes,
        dtype=_DTYPES[dtype],
        **given,
    )
    abstract_variables(model, image_size=of.image_size)
    return model


def abstract_variables(model: Network, *, image_size: int) -> dict[str, Any]:
    """Returns shapes and types of a network's variables, at no cost.

    Args:
      model: The network.
      image_size: Height and width of its images.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes = dict(jax.eval_shape(model.init, jax.random.key(0), images))
    return {"batch_stats": {}, **shapes}
