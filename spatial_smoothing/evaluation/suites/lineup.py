"""What is evaluated: all ensembles that some runs make, predicting in one pass."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from spatial_smoothing import ensembles
from spatial_smoothing.data import augment
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.evaluation.passes import Predict, Row
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    check_members,
    label,
    recipe,
)
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import sharding

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)


class Line(NamedTuple):
    """Which ensemble a row is of.

    Attributes:
      label: What it is called.
      run: The workdirs that take part.
      members: How many these are.
      samples: Of each, and of each frame.
    """

    label: str
    run: str
    members: int
    samples: int


class Lineup(NamedTuple):
    """R ensembles of some runs.

    Attributes:
      about: What the rows of each begin with.
      predict: `(variables, key, images) -> log-probabilities f32[R, B, K]`.
      variables: Of the runs, as `predict` takes them.
      mesh: Of all devices.
    """

    about: list[Row]
    predict: Predict
    variables: dict[str, Any]
    mesh: Mesh


def lineup(runs: Sequence[Run], setting: Setting, *, sizes: tuple[int, ...]) -> Lineup:
    """Returns the ensembles that the suite `ensemble` scores.

    Raises:
      ValueError: if the runs are not of one network and data set, or for an unusable
        batch size or sizes.
    """
    check_members(runs)
    sizes = sizes_for(runs, setting, sizes)
    mixtures_of = predictor(runs, setting, sizes)

    def log_probs(variables, key, images) -> jax.Array:
        return mixtures_of(variables, key, images).log_probs()

    about = [about_line(line, runs) for line in lines_of(runs, sizes)]
    return Lineup(about, log_probs, stacked(runs), checked_mesh(setting))


def predictor(
    runs: Sequence[Run], setting: Setting, sizes: Sequence[int]
) -> Callable[..., mixtures.Mixture]:
    """Returns `predict(variables, key, images)` to the mixtures of `lines_of`."""
    model = runs[0].model
    return mixtures.predictor(
        model,
        prepare=preparation(runs[0]),
        sizes=sizes,
        num_members=len(runs),
        dropout=model.rate > 0,
        chunk=setting.chunk,
    )


def preparation(run: Run) -> Callable[[jax.Array], jax.Array]:
    """Returns a function of u8[B, H, W, 3] to images as the network takes them."""
    mean, std = run.source.mean, run.source.std
    return lambda images: augment.normalize(images, mean=mean, std=std)


def stacked(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the variables of the runs, as `predictor` takes them."""
    variables = [run.variables for run in runs]
    return variables[0] if len(runs) == 1 else ensembles.stack(variables)


def checked_mesh(setting: Setting) -> Mesh:
    """Returns all devices; ValueError if they cannot divide a batch."""
    mesh = sharding.mesh()
    sharding.check_batch_size(setting.batch_size, mesh)
    return mesh


def sizes_for(
    runs: Sequence[Run], setting: Setting, sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the samples N to score; those without dropout make one prediction."""
    if not runs[0].model.rate:
        return (1,)
    return ensemble_sizes(setting.num_samples, sizes=sizes)


def ensemble_sizes(
    num_samples: int, *, sizes: tuple[int, ...] = SIZES
) -> tuple[int, ...]:
    """Returns increasing sizes from 1 to `num_samples`, both included.

    Raises:
      ValueError: for sizes that are not the default and out of this range.
    """
    if sizes != SIZES and not all(0 < size <= num_samples for size in sizes):
        raise ValueError(
            f"sizes must be between 1 and num_samples, {num_samples}, got "
            f"{','.join(map(str, sizes))}"
        )
    return tuple(sorted({1, num_samples, *(s for s in sizes if s <= num_samples)}))


def lines_of(runs: Sequence[Run], sizes: Sequence[int]) -> list[Line]:
    """What the ensembles of `mixtures.predictor` are, in its order."""
    if not sizes:
        return []
    paths, model = [run.name for run in runs], runs[0].model
    alone = [Line(label(model), path, 1, size) for path in paths for size in sizes]
    if len(runs) == 1:
        return alone
    deep = label(model, num_members=len(runs))
    shapes = [(m, 1) for m in range(1, len(runs))]
    shapes += [(len(runs), size) for size in sizes]
    return [Line(deep, ", ".join(paths), *shape) for shape in shapes] + alone


def about_line(line: Line, runs: Sequence[Run]) -> Row:
    """Returns what the row of an ensemble begins with."""
    return {
        "label": line.label,
        "model": runs[0].config["model"],
        "smoothed": any(runs[0].model.smoothing),
        "recipe": recipe(runs[0].config, smoothing=False),
        "dataset": runs[0].source.name,
        "run": line.run,
        "num_members": line.members,
        "num_samples": line.members * line.samples,
    }
