"""The suite of last-layer Laplace: a trained network with uncertain last weights.

Contract of this file: `laplace` is a suite, as `suites.settings` describes them. The
network is not trained again. Its predictions go the way of all ensembles.
"""

from collections.abc import Sequence

import jax
import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.data import batches
from spatial_smoothing.ensembles.mixtures import single_with_logits
from spatial_smoothing.evaluation import laplace as posteriors
from spatial_smoothing.evaluation.features import compile_features, last_layer
from spatial_smoothing.evaluation.flops import gflops, pass_flops
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.lineup import (
    about_ensembles,
    checked_mesh,
    preparation,
    scores_of,
)
from spatial_smoothing.evaluation.suites.settings import (
    LAPLACE,
    SMOOTHED,
    Setting,
    UnsuitableError,
    check_members,
)
from spatial_smoothing.evaluation.suites.subjects import training_images
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, sharding


def laplace(runs: Sequence[Run], setting: Setting, *, num_images: int = 0) -> list[Row]:
    """Scores networks whose last layer has a Laplace approximation.

    The posterior is fitted to the training images in closed form, the prior precision
    by the marginal likelihood. Features are those of passes without dropout.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Settings of the evaluation.
      num_images: Number of training images, drawn at random; 0 for all.

    Returns:
      A row for each ensemble, as of the suite "ensemble"; rows of single networks have
      `prior_precision`. Its `gflops` are those of a prediction for one image.

    Raises:
      ValueError: as `check`.
    """
    check(runs, setting, num_images=num_images)
    mesh = checked_mesh(setting)
    model = runs[0].model
    train = training_images(runs, setting, num_images, seed=setting.seed)
    features = compile_features(model, preparation(runs[0]))
    shape = (1, *setting.dataset.image_shape)
    fitted = []
    for run in runs:
        found = features(
            run.variables,
            progress.track(
                sharding.load_batches(train, setting.batch_size, mesh),
                total=batches.num_batches(train.num_examples, setting.batch_size),
                name="Features of training images",
            ),
        )
        last = last_layer(model, run.variables, jax.ShapeDtypeStruct(shape, np.float32))
        with progress.status("Fitting the posterior of the last layer"):
            fitted.append(posteriors.fit(*found, jax.device_get(last)))
    network = posteriors.network(model)
    variables = [
        {"network": run.variables, "posterior": jax.device_put(posterior)}
        for run, posterior in zip(runs, fitted, strict=True)
    ]
    predict = ensembles.predictor(
        network,
        prepare=preparation(runs[0]),
        num_members=len(runs),
        dropout=False,
        of_sample=single_with_logits,
    )
    names = ensembles.names_of((1,), num_members=len(runs))
    about = about_ensembles(names, runs)
    rows, _ = scores_of(
        predict,
        variables[0] if len(runs) == 1 else ensembles.stack(variables),
        setting,
        num_classes=model.num_classes,
        name="Last-layer Laplace",
    )
    flops = pass_flops(network, variables[0], image_shape=setting.dataset.image_shape)
    return [
        {
            **about[name],
            "label": _label(name, is_smoothed=any(model.smoothing)),
            **rows[name],
            **_precision(name, fitted),
            **({} if flops is None else {"gflops": gflops(name, flops)}),
        }
        for name in names
    ]


def check(runs: Sequence[Run], setting: Setting, *, num_images: int = 0) -> None:
    """Raises ValueError for arguments that `laplace` cannot use.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Settings of the evaluation.
      num_images: Number of training images to fit to; 0 for all.

    Raises:
      UnsuitableError: if the logits are not those of one dense layer.
      ValueError: if the runs are not of one network and data set, or for an unusable
        batch size or number of images.
    """
    check_members(runs)
    checked_mesh(setting)
    if num_images < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {num_images}")
    model = runs[0].model
    if model.ensemble is not None:
        raise UnsuitableError(
            f"the suite laplace is for networks that make one prediction in a pass; "
            f"{runs[0].path} has the ensemble {model.ensemble!r}"
        )
    images = jax.ShapeDtypeStruct((1, *setting.dataset.image_shape), np.float32)
    try:
        last_layer(model, runs[0].variables, images)
    except ValueError as error:
        raise UnsuitableError(f"the suite laplace needs features: {error}") from error


def _label(name: ensembles.Ensemble, *, is_smoothed: bool) -> str:
    """Returns what is scored: passes without dropout, whatever the network has."""
    text = "Deep ensemble" if name.together else "Deterministic"
    return text + LAPLACE + (SMOOTHED if is_smoothed else "")


def _precision(name: ensembles.Ensemble, fitted: Sequence[posteriors.Posterior]) -> Row:
    """Returns the prior precision that was chosen for a single network."""
    if name.together:
        return {}
    (member,) = name.members
    return {"prior_precision": float(fitted[member].precision)}
