"""What is evaluated: all ensembles that some runs make, predicting in one pass.

Contract of this file: the suites that score ensembles build what they score by these
functions, so that a name means the same ensemble in all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from spatial_smoothing import ensembles
from spatial_smoothing.data import augment
from spatial_smoothing.ensembles import Ensemble, Predict
from spatial_smoothing.ensembles.mixtures import Mixture, single
from spatial_smoothing.evaluation.ensembles import score_ensembles
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    check_members,
    label,
    recipe,
)
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import random_bits, sharding

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)
TEMPORAL = " + temporal"


class Contest(NamedTuple):
    """All ensembles of some runs, ready to predict.

    Attributes:
      about: Name of each ensemble -> what its rows begin with, in the order of reports.
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`.
      variables: Variables of the runs, as `predict` takes them.
      mesh: The mesh of all devices.
    """

    about: dict[Ensemble, Row]
    predict: Predict
    variables: Any
    mesh: Mesh


def contest(
    runs: Sequence[Run], setting: Setting, *, sizes: tuple[int, ...]
) -> Contest:
    """Returns the ensembles that some runs make.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation.
      sizes: Numbers of dropout samples N to score, as `ensemble_sizes` takes them.

    Raises:
      ValueError: if the runs are not of one network and data set, or for an unusable
        batch size or sizes.
    """
    check_members(runs)
    sizes = sizes_for(runs, setting, sizes)
    return Contest(
        about_ensembles(ensembles.names_of(sizes, num_members=len(runs)), runs),
        predictor(runs, setting, sizes),
        stacked(runs),
        checked_mesh(setting),
    )


def predictor(
    runs: Sequence[Run],
    setting: Setting,
    sizes: Sequence[int],
    *,
    of_sample: Callable[[jax.Array], Mixture] = single,
) -> Predict:
    """Returns the function that predicts by all ensembles of some runs.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation, for `chunk`.
      sizes: Increasing numbers of samples N, from 1.
      of_sample: What becomes of the logits of a sample; see `ensembles.predictor`.
    """
    model = runs[0].model
    return ensembles.predictor(
        model,
        prepare=preparation(runs[0]),
        sizes=sizes,
        num_members=len(runs),
        dropout=model.has_dropout,
        chunk=setting.chunk,
        of_sample=of_sample,
    )


def scores_of(
    predict: Predict, variables: Any, setting: Setting, *, num_classes: int, name: str
) -> tuple[dict[Ensemble, Row], float | None]:
    """Scores all ensembles that a function predicts by on the images of an evaluation.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`, whose mixtures are
        `Lineup`s.
      variables: Variables, as `predict` takes them.
      setting: Settings of the evaluation: the images, and all numbers.
      num_classes: Number of classes K.
      name: What is shown beside the progress bar.

    Returns:
      Name of each ensemble -> row of its scores; and the mean seconds of a batch, None
      where there was one.

    Raises:
      ValueError: if the devices cannot divide a batch.
    """
    return score_ensembles(
        predict,
        variables,
        setting.dataset,
        key=random_bits.key(setting.seed),
        num_classes=num_classes,
        batch_size=setting.batch_size,
        mesh=checked_mesh(setting),
        held_out=setting.held_out,
        label_sets=setting.label_sets,
        ood=setting.ood,
        num_replicates=setting.num_replicates,
        name=name,
    )


def preparation(run: Run) -> Callable[[jax.Array], jax.Array]:
    """Returns a function of u8[B, H, W, 3] to images as the network takes them."""
    mean, std = run.source.mean, run.source.std
    return lambda images: augment.normalize(images, mean=mean, std=std)


def stacked(runs: Sequence[Run]) -> Any:
    """Returns the variables of the runs, as `predictor` takes them."""
    variables = [run.variables for run in runs]
    return variables[0] if len(runs) == 1 else ensembles.stack(variables)


def checked_mesh(setting: Setting) -> Mesh:
    """Returns the mesh of all devices; ValueError if they cannot divide a batch."""
    mesh = sharding.mesh()
    sharding.check_batch_size(setting.batch_size, mesh)
    return mesh


def sizes_for(
    runs: Sequence[Run], setting: Setting, sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the numbers of samples N to score.

    Args:
      runs: One run, or the members of a deep ensemble. Without dropout they make one
        prediction each.
      setting: Settings of the evaluation, for `num_samples`.
      sizes: The numbers that were asked for.
    """
    if not runs[0].model.has_dropout:
        return (1,)
    return ensemble_sizes(setting.num_samples, sizes=sizes)


def ensemble_sizes(
    num_samples: int, *, sizes: tuple[int, ...] = SIZES
) -> tuple[int, ...]:
    """Returns increasing sizes from 1 to `num_samples`, both included.

    Args:
      num_samples: The largest size.
      sizes: Sizes between the two; of the default, those that are too large are left
        out.

    Raises:
      ValueError: for sizes that are not the default and out of this range.
    """
    if sizes != SIZES and not all(0 < size <= num_samples for size in sizes):
        raise ValueError(
            f"sizes must be between 1 and num_samples, {num_samples}, got "
            f"{','.join(map(str, sizes))}"
        )
    return tuple(sorted({1, num_samples, *(s for s in sizes if s <= num_samples)}))


def about_ensembles(
    names: Sequence[Ensemble], runs: Sequence[Run]
) -> dict[Ensemble, Row]:
    """Returns what the rows of each ensemble of some runs begin with.

    Args:
      names: Names of the ensembles.
      runs: The members, in their order.
    """
    return {name: _about(name, runs) for name in names}


def _about(name: Ensemble, runs: Sequence[Run]) -> Row:
    model = runs[0].model
    # A deep ensemble is of all runs, also where few of them have joined it so far.
    text = label(model, num_members=len(runs) if name.together else 1)
    members = runs if name.together else [runs[member] for member in name.members]
    return {
        "label": text + (TEMPORAL if name.temporal else ""),
        "model": runs[0].config["model"],
        "smoothed": any(model.smoothing),
        "recipe": recipe(runs[0].config, smoothing=False),
        "dataset": runs[0].source.name,
        "run": ", ".join(run.name for run in members),
        "num_members": len(name.members),
        "num_samples": len(name.members) * name.num_samples * model.num_predictions,
    }
