"""Somebody's own model, scored as `evaluate.py` scores the runs of this package."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.data.datasets import AnyDataset, Dataset
from spatial_smoothing.ensembles import ApplyFunction, Ensemble, Variables
from spatial_smoothing.ensembles.apply import as_apply, is_stochastic, variables_of
from spatial_smoothing.ensembles.mixtures import single_with_logits
from spatial_smoothing.evaluation.ensembles import score_ensembles
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.times import Work, milliseconds, shared_seconds
from spatial_smoothing.runtime import sharding

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)
Data = AnyDataset | tuple[np.ndarray, np.ndarray]


def evaluate(
    model: Any,
    variables: Variables | None,
    data: Data,
    *,
    key: jax.Array,
    num_members: int = 1,
    num_samples: int = 50,
    sizes: Sequence[int] | None = None,
    label: str | None = None,
    dataset: str = "own data",
    split: str = "test",
    prepare: Callable[[jax.Array], jax.Array] = lambda images: images,
    batch_size: int = 128,
    chunk: int | None = None,
    held_out: Data | None = None,
    ood: tuple[str, Data] | None = None,
    num_replicates: int = 1000,
) -> list[Row]:
    """Scores a model by ensembles of every size, from one pass over the data.

    The rows are those of `evaluate.py --suite=ensemble`; `report.write` makes the same
    page of them.

    Args:
      model: A Linen module, an NNX module, or a function `(variables, images, key) ->
        logits`; see `ensembles.as_apply`, also for models that take other arguments.
      variables: Variables of the model; None for an NNX module's own. Those of several
        members are stacked along a leading axis; see `ensembles.stack`.
      data: Images [n, ...] and labels i32[n] as a pair of NumPy arrays, or a data set
        of `data.datasets`.
      key: Key of dropout masks and the bootstrap.
      num_members: Number of members M of a deep ensemble, whose variables are stacked;
        1 for one network.
      num_samples: Largest number of Monte Carlo dropout samples, at least 1. A model
        without dropout makes one prediction whatever this says.
      sizes: Increasing numbers of samples N to score, up to `num_samples`; None for 1,
        2, 3, 4, 5, 10, 20 and 50, as far as they are not larger.
      label: What the model is called in reports; None for the name of its class.
      dataset: What the data are called in reports.
      split: What the part of the data is called in reports.
      prepare: Images of the data to those that the model takes, such as a
        normalisation; it runs on the device.
      batch_size: Number of images at once, a multiple of the number of devices.
      chunk: Number of samples computed at once; see `ensembles.mc_logits`.
      held_out: Images and labels that the model was not trained on, others than `data`,
        to fit a temperature to for each ensemble; None for no temperature scaling.
      ood: Name of another data set, and its images and labels, for out-of-distribution
        detection; None for no detection.
      num_replicates: Number of replicates of the bootstrap; 0 for no intervals.

    Returns:
      A row for each ensemble: of several members first deep ensembles, then each alone.
      Scores are in nats (`nll`) or shares; see docs/uncertainty.md.

    Raises:
      ValueError: for arrays that do not fit, labels outside [0, K), unusable numbers,
        or dropout layers that are switched off.

    Example:
      >>> rows = ss.evaluate(model, variables, (images, labels), key=jax.random.key(0))
      >>> page = ss.report.write("report", rows)
    """
    network = as_apply(model)
    variables = variables_of(model, variables)
    first = _first_member(variables, num_members)
    test, held_out_data = _dataset(data, "data"), _dataset(held_out, "held_out")
    ood_data = _ood(ood)
    mesh = sharding.mesh()
    sharding.check_batch_size(batch_size, mesh)
    images = _first_images(test, batch_size)
    logits = _logits(network, first, prepare, images)
    num_classes = logits.shape[-1]
    # Of one pass: a network with members makes several.
    predictions = len(logits) if network.has_members else 1
    _check_labels(test, num_classes, "data")
    _check_labels(held_out_data, num_classes, "held_out")
    prepared = jax.eval_shape(prepare, images)
    stochastic = is_stochastic(network, first, prepared, key)
    chosen = _sizes(num_samples, sizes) if stochastic else (1,)
    label = label or network.name
    rows, seconds = score_ensembles(
        ensembles.predictor(
            network,
            prepare=prepare,
            sizes=chosen,
            num_members=num_members,
            dropout=stochastic,
            chunk=chunk,
            of_sample=single_with_logits,
        ),
        variables,
        test,
        key=key,
        num_classes=num_classes,
        batch_size=batch_size,
        mesh=mesh,
        held_out=held_out_data,
        ood=ood_data,
        num_replicates=num_replicates,
        name=label,
    )
    if seconds is not None:
        work = Work(num_members, chosen[-1])
        shared = shared_seconds(network, first, images, prepare=prepare)
        for name, row in rows.items():
            row["milliseconds"] = milliseconds(
                name, work, seconds, shared=shared, batch_size=batch_size
            )
    about = {"model": network.name, "dataset": dataset, "split": split}
    return [
        {**_about(name, label, predictions=predictions), **about, **row}
        for name, row in rows.items()
    ]


def _first_member(variables: Variables, num_members: int) -> Variables:
    """The variables of one member, of which the shapes are looked at."""
    if num_members < 1:
        raise ValueError(f"num_members must be at least 1, got {num_members}")
    if num_members == 1:
        return variables
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(variables)}
    if sizes != {(num_members,)}:
        raise ValueError(
            f"variables of {num_members} members must have a leading axis of that size "
            "in every array; ensembles.stack([variables, ...]) makes one"
        )
    return jax.tree.map(lambda leaf: leaf[0], variables)


def _first_images(data: AnyDataset, batch_size: int) -> jax.Array:
    """The images of the first batch, which is no larger than the data set."""
    batch = next(iter(data.batches(min(batch_size, data.num_examples))))
    return jnp.asarray(batch["image"])


def _dataset(data: Data | None, name: str) -> AnyDataset | None:
    """Arrays as a data set; a data set, or None, as it is."""
    if data is None or hasattr(data, "batches"):
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        is_other = not isinstance(data, tuple | list)
        found = type(data).__name__ if is_other else f"{len(data)} values"
        raise ValueError(
            f"{name} must be a pair of images and labels, or a data set, got {found}"
        )
    images, labels = (np.asarray(values) for values in data)
    if labels.ndim != 1 or len(images) != len(labels) or not len(labels):
        raise ValueError(
            f"{name} must be images [n, ...] and labels [n] with n of at least 1, got "
            f"shapes {list(images.shape)} and {list(labels.shape)}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels of {name} must be integers, got {labels.dtype}")
    return Dataset(images, labels.astype(np.int32))


def _ood(ood: tuple[str, Data] | None) -> tuple[str, AnyDataset] | None:
    """The name of another data set, and its images as a data set; None for none."""
    if ood is None:
        return None
    if (
        not isinstance(ood, tuple | list)
        or len(ood) != 2
        or not isinstance(ood[0], str)
    ):
        raise ValueError(
            "ood must be a pair of a name and of data, such as "
            '("noise", (images, labels))'
        )
    return ood[0], _dataset(ood[1], "ood")


def _logits(
    network: ApplyFunction,
    variables: Variables,
    prepare: Callable[[jax.Array], jax.Array],
    images: jax.Array,
) -> jax.ShapeDtypeStruct:
    """The shape of the logits of a pass, [B, K] or [M, B, K]; nothing is computed."""
    logits = jax.eval_shape(
        lambda variables, images: network.apply(variables, prepare(images), None),
        variables,
        images,
    )
    shape = logits.shape[1:] if network.has_members else logits.shape
    if len(shape) != 2 or shape[0] != len(images):
        expected = "[M, B, K]" if network.has_members else "[B, K]"
        raise ValueError(
            f"{network.name} must return logits {expected}, got shape "
            f"{list(logits.shape)} for {len(images)} images"
        )
    return logits


def _check_labels(data: AnyDataset | None, num_classes: int, name: str) -> None:
    if data is None:
        return
    low, high = int(np.min(data.labels)), int(np.max(data.labels))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels of {name} must lie in [0, {num_classes}), the classes that the "
            f"model has logits for, got {low} to {high}"
        )


def _sizes(num_samples: int, sizes: Sequence[int] | None) -> tuple[int, ...]:
    """Increasing numbers of samples, 1 and `num_samples` included."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if sizes is None:
        sizes = [size for size in SIZES if size <= num_samples]
    if not all(0 < size <= num_samples for size in sizes):
        raise ValueError(
            f"sizes must be between 1 and num_samples, {num_samples}, got "
            f"{', '.join(map(str, sizes))}"
        )
    return tuple(sorted({1, num_samples, *sizes}))


def _about(name: Ensemble, label: str, *, predictions: int) -> Row:
    """What the row of an ensemble begins with.

    Args:
      name: The ensemble.
      label: What the model is called.
      predictions: Number of predictions of one pass.
    """
    if name.together:
        label = f"Deep ensemble of {label}"
    return {
        "suite": "ensemble",
        "label": label,
        "run": ", ".join(f"member {member}" for member in name.members),
        "num_members": len(name.members),
        "num_samples": len(name.members) * name.num_samples * predictions,
    }
