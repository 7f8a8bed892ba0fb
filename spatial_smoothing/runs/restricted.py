"""Runs that tell some of their classes apart only."""

from collections.abc import Sequence

import flax.traverse_util
import jax
import numpy as np

from spatial_smoothing.data.labelled_sets import LabelledSet
from spatial_smoothing.models.rivals import batch_ensemble
from spatial_smoothing.runs.workdirs import Run


def restrict(run: Run, classes: Sequence[int]) -> Run:
    """Returns a run that predicts some of its classes: the other logits are left out.

    That is what masking logits before softmax does, because the last layer makes each
    logit alone.

    Args:
      run: A trained network, with a head of `models.heads`.
      classes: Numbers of the classes to keep, increasing; they become 0, 1, ...
    """
    if len(classes) == run.model.num_classes:
        return run
    params = run.variables["params"]
    last = max(name for name in params["head"] if name.startswith("dense"))
    leaves = flax.traverse_util.flatten_dict(params["head"][last])
    dense = {
        path: _of_classes(path[-1], value, classes, of=run.model.num_classes)
        for path, value in leaves.items()
    }
    head = {**params["head"], last: flax.traverse_util.unflatten_dict(dense)}
    variables = {**run.variables, "params": {**params, "head": head}}
    return run._replace(
        model=run.model.clone(num_classes=len(classes)), variables=variables
    )


def _of_classes(
    name: str, value: jax.Array, classes: Sequence[int], *, of: int
) -> jax.Array:
    """Returns the part of a parameter of the last layer that makes some of the logits.

    Args:
      name: Name of the parameter.
      value: f[..., K], or f[..., M K] of a network whose last layer makes the logits of
        M members side by side.
      classes: Numbers of the classes to keep.
      of: Number K of the classes that there are.
    """
    if name == batch_ensemble.INPUT_FACTORS:  # one for each value that the layer takes
        return value
    chosen = np.asarray(classes)
    by_member = value.reshape(*value.shape[:-1], -1, of)
    kept = by_member[..., chosen]
    return kept.reshape(*value.shape[:-1], kept.shape[-2] * len(chosen))


def tested_on(
    run: Run, spec: str, found: LabelledSet, class_names: Sequence[str] | None
) -> Run:
    """Returns a run as it is tested on another data set than its own.

    Args:
      run: A trained network.
      spec: Name of the other data set.
      found: Its images, and the network's classes that it has.
      class_names: Names of the network's classes; None where nobody knows them.
    """
    source = run.source
    names = class_names or [str(number) for number in range(source.num_classes)]
    config = {
        **run.config,
        "dataset": spec,
        "class_names": [names[number] for number in found.classes],
        "image_size": source.image_size,
        "mean": list(source.mean),
        "std": list(source.std),
        "in_memory": source.in_memory,
    }
    return restrict(run, found.classes)._replace(config=config)
