"""The passes of `--suite=ood`: confidences of all images, by ensemble and confidence.

Contract of this file: the confidences of images in distribution, of every set of
out-of-distribution (OOD) images, and of the images on which constants are chosen, are
computed alike. Of several choices of a constant, one is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing import ensembles
from spatial_smoothing.data import batches, datasets
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.ensembles.mixtures import single_with_logits
from spatial_smoothing.evaluation import feature_bank, feature_confidences
from spatial_smoothing.evaluation.confidences import (
    FEATURES,
    WRONG,
    Confidence,
    averages,
    compile_confidences,
    confidences_of,
)
from spatial_smoothing.evaluation.detection import best_choice
from spatial_smoothing.evaluation.feature_bank import Bank, Fitted
from spatial_smoothing.evaluation.features import compile_features, last_layer
from spatial_smoothing.evaluation.held_out import compile_collection, fit_temperatures
from spatial_smoothing.evaluation.suites.lineup import (
    checked_mesh,
    predictor,
    preparation,
    stacked,
)
from spatial_smoothing.evaluation.suites.settings import Setting
from spatial_smoothing.evaluation.suites.subjects import training_images
from spatial_smoothing.metrics import feature_statistics
from spatial_smoothing.metrics.confidences import GAMMA
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, sharding

_FILE = "features"
_MOST_IMAGES = 10_000  # whose features give a percentile


class Constants(NamedTuple):
    """The choices of the constants of confidences.

    Attributes:
      gammas: Exponents of the generalised entropy.
      neighbours: Numbers k of the neighbour whose distance is taken.
      percentiles: Percentiles of the features at which ReAct cuts them off.
    """

    gammas: tuple[float, ...]
    neighbours: tuple[int, ...]
    percentiles: tuple[float, ...]

    def texts(self, name: str) -> list[str | None]:
        """What reports call the choices for a confidence; [None] without a constant."""
        return {
            "gen": [f"gamma = {value:g}" for value in self.gammas],
            "knn": [f"k = {value}" for value in self.neighbours],
            "react": [f"percentile {value:g}" for value in self.percentiles],
        }.get(name, [None])


# Those of OpenOOD v1.5, and the choices that it makes on a validation set.
PUBLISHED = Constants((GAMMA,), (feature_confidences.NEIGHBOURS,), (90.0,))
CHOICES = Constants(
    (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0),
    (50, 100, 200, 500, 1000),
    (85.0, 90.0, 95.0, 99.0),
)


class Values(NamedTuple):
    """A confidence of all images.

    Attributes:
      inside: f32[n], of the images in distribution.
      wrong: f32[n], 1 where their prediction is wrong, else 0.
      outside: f32[m] for each set of OOD images.
      constant: What was chosen for it, in words; None without a constant.
    """

    inside: np.ndarray
    wrong: np.ndarray
    outside: list[np.ndarray]
    constant: str | None


class Part(NamedTuple):
    """Names a part of the images.

    Attributes:
      kind: "test images", "OOD set", "held-out images" or "OOD validation set".
      number: Number of an OOD set, from 1; 0 for the others, of which there is one.
    """

    kind: str
    number: int = 0

    def __str__(self) -> str:
        """What is shown beside a progress bar."""
        text = f"{self.kind} {self.number}" if self.number else self.kind
        return text[0].upper() + text[1:]


_INSIDE, _HELD_OUT = Part("test images"), Part("held-out images")
_VALIDATION, _OUTSIDE = Part("OOD validation set"), "OOD set"
# Part of the images -> confidence -> f32[G, n], for one ensemble.
_Parts = dict[Part, Mapping[Confidence, np.ndarray]]


def of_predictions(
    runs: Sequence[Run],
    setting: Setting,
    names: Sequence[str],
    *,
    sizes: Sequence[int],
    key: jax.Array,
) -> dict[Ensemble, dict[Confidence, Values]]:
    """Returns the confidences of predictions, for every ensemble.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation.
      names: Names of confidences; those of features are left out.
      sizes: Increasing numbers of dropout samples N.
      key: Key of dropout masks.
    """
    chosen = confidences_of(names)
    if not chosen:
        return {}
    mesh, variables = checked_mesh(setting), stacked(runs)
    predict = predictor(runs, setting, sizes, of_sample=single_with_logits)
    constants = _constants(setting)
    compute = compile_confidences(predict, chosen, gammas=constants.gammas)
    # The test images get the dropout masks that the suite "ensemble" draws for them.
    data_key, held_out_key, ood_key, _ = jax.random.split(key, 4)
    temperatures = None
    if setting.held_out is not None and "temperature" in names:
        data = _tracked(setting.held_out, "Held-out images", setting, mesh)
        collect = compile_collection(predict, of=averages)
        temperatures = fit_temperatures(*collect(variables, held_out_key, data))
    parts = {}
    for number, (part, dataset) in enumerate(_images(setting).items()):
        data = _tracked(dataset, str(part), setting, mesh)
        part_key = data_key if part == _INSIDE else jax.random.fold_in(ood_key, number)
        found = compute(variables, part_key, data, temperatures)
        parts[part] = ensembles.named(found)
    return {
        ensemble: _values({part: parts[part][ensemble] for part in parts}, constants)
        for ensemble in parts[_INSIDE]
    }


def of_features(
    runs: Sequence[Run], setting: Setting, names: Sequence[str], *, num_images: int
) -> dict[Ensemble, dict[Confidence, Values]]:
    """Returns the confidences of features, for ensembles of one sample.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation.
      names: Names of confidences; those of predictions are left out.
      num_images: Number of training images to fit to; 0 for all.

    Raises:
      ValueError: if there are fewer training images than neighbours.
    """
    names = [name for name in names if name in feature_confidences.NAMES]
    if not names:
        return {}
    train = training_images(runs, setting, num_images, seed=setting.seed)
    constants = _constants(setting)
    if "knn" in names:
        constants = _possible(constants, train.num_examples)
    members = [_of_member(run, setting, names, train, constants) for run in runs]
    found = {}
    for ensemble in ensembles.names_of((1,), num_members=len(runs)):
        parts = {
            part: _mean([members[number][part] for number in ensemble.members])
            for part in members[0]
        }
        found[ensemble] = _values(parts, constants)
    return found


def _of_member(
    run: Run,
    setting: Setting,
    names: Sequence[str],
    train: AnyDataset,
    constants: Constants,
) -> _Parts:
    """The confidences of features of one network, for each part of the images."""
    mesh, prepare = checked_mesh(setting), preparation(run)
    features = compile_features(run.model, prepare)

    def make() -> Bank:
        data = _tracked(train, "Features of training images", setting, mesh)
        return Bank(*features(run.variables, data))

    digest = f"{run.fingerprint} {run.step} {train.checksum()}"
    member = "" if run.member is None else f"-{run.member}"
    bank = feature_bank.cached(run.path / f"{_FILE}{member}.npz", digest, make)
    activations = bank.features
    if setting.held_out is not None and "react" in names:
        held_out = datasets.some(setting.held_out, _MOST_IMAGES)
        data = _tracked(held_out, "Features of held-out images", setting, mesh)
        activations, _ = features(run.variables, data)
    with progress.status("Fitting confidences of features"):
        fitted = _fit(run, setting, names, bank, activations, constants, mesh)
    compute = feature_confidences.compile_feature_confidences(
        run.model, prepare, names, mesh=mesh, neighbours=constants.neighbours
    )
    return {
        part: compute(
            run.variables, fitted, _tracked(dataset, f"{part}, features", setting, mesh)
        )
        for part, dataset in _images(setting).items()
    }


def _fit(
    run: Run,
    setting: Setting,
    names: Sequence[str],
    bank: Bank,
    activations: np.ndarray,
    constants: Constants,
    mesh: Mesh,
) -> Fitted:
    """Fits what the confidences of features with these names need.

    Args:
      run: The network.
      setting: Settings of the evaluation.
      names: Names of confidences of features.
      bank: Features of the training images.
      activations: f32[n, D], features that percentiles are taken of.
      constants: The choices of constants.
      mesh: Devices.
    """
    shape = (1, *setting.dataset.image_shape)
    last = last_layer(run.model, run.variables, jax.ShapeDtypeStruct(shape, np.float32))
    fitted = Fitted(last)
    if {"mahalanobis", "relative_mahalanobis", "vim"} & set(names):
        moments, classes, everything = feature_bank.fit_gaussians(
            bank, run.model.num_classes, mesh
        )
        fitted = fitted._replace(classes=classes, everything=everything)
        if "vim" in names:
            residual = feature_bank.fit_residual(bank, moments, last, mesh)
            fitted = fitted._replace(residual=residual)
    if "ddu" in names:
        fitted = fitted._replace(
            densities=feature_statistics.densities(bank.features, bank.labels)
        )
    if "knn" in names:
        fitted = fitted._replace(bank=feature_bank.split_bank(bank.features, mesh))
    if "react" in names:
        chosen = datasets.choose(len(activations), _MOST_IMAGES)
        thresholds = feature_bank.percentiles(
            activations[chosen], constants.percentiles
        )
        fitted = fitted._replace(thresholds=thresholds)
    return fitted


def _constants(setting: Setting) -> Constants:
    """The choices of constants: one of each, unless there is a validation set."""
    return PUBLISHED if setting.ood_sets.validation is None else CHOICES


def _possible(constants: Constants, num_training: int) -> Constants:
    """The constants without neighbours that so few training images do not have."""
    possible = tuple(k for k in constants.neighbours if k <= num_training)
    if not possible:
        raise ValueError(
            f"KNN takes the distance to neighbour {min(constants.neighbours)}, and "
            f"there are {num_training} training images; give more by --ood_images"
        )
    return constants._replace(neighbours=possible)


def _images(setting: Setting) -> dict[Part, AnyDataset]:
    """The parts of the images that are computed, and the images of each."""
    sets = setting.ood_sets
    found = {_INSIDE: setting.dataset}
    for number, each in enumerate(sets.tested, 1):
        found[Part(_OUTSIDE, number)] = each.dataset
    if sets.validation is not None:
        found[_HELD_OUT] = setting.held_out
        found[_VALIDATION] = sets.validation.dataset
    return found


def _tracked(dataset: AnyDataset, name: str, setting: Setting, mesh: Mesh) -> Any:
    """The batches of a data set on the devices, under a bar."""
    return progress.track(
        sharding.load_batches(dataset, setting.batch_size, mesh),
        total=batches.num_batches(dataset.num_examples, setting.batch_size),
        name=name,
    )


def _mean(
    members: Sequence[Mapping[Confidence, np.ndarray]],
) -> dict[Confidence, np.ndarray]:
    """The mean over members of each confidence.

    A prediction counts as wrong where most members are wrong.
    """
    found = {each: np.mean([m[each] for m in members], 0) for each in members[0]}
    wrong = Confidence(WRONG, FEATURES)
    return {**found, wrong: np.float32(found[wrong] > 0.5)}


def _values(parts: _Parts, constants: Constants) -> dict[Confidence, Values]:
    """The confidences of one ensemble, each with the constant that is best for it."""
    found = {}
    outside = [values for part, values in parts.items() if part.kind == _OUTSIDE]
    for each, inside in parts[_INSIDE].items():
        if each.name == WRONG:
            continue
        choice = 0
        if len(inside) > 1:
            choice = best_choice(parts[_HELD_OUT][each], parts[_VALIDATION][each])
        found[each] = Values(
            inside[choice],
            parts[_INSIDE][Confidence(WRONG, each.average)][0],
            [part[each][choice] for part in outside],
            constants.texts(each.name)[choice],
        )
    return found
