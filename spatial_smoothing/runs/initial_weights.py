"""Weights to start a training from: those of a run, or of a file of PyTorch.

Contract of this file: weights are found by the path of each variable. The head is drawn
anew where its shape is another, which is where the number of classes is; so are the
normalisations of smoothing that the source does not have. Everything else has to fit.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from spatial_smoothing.convert.files import load_state_dict
from spatial_smoothing.convert.names import count_classes
from spatial_smoothing.convert.weights import from_pytorch
from spatial_smoothing.data import sources
from spatial_smoothing.data.file_names import listed
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runtime import paths
from spatial_smoothing.training import freezing

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights of one network, or of the members of a deep ensemble.

    Attributes:
      place: Absolute path of the workdir or the file.
      digest: SHA-256 of the file; for a workdir, that of the values of its variables.
      members: For each network, path of a variable -> its value.
      num_classes: Number of classes.
      step: Steps that a run was trained for; None for a file.
      mean: Mean of each channel that images were normalised by, in [0, 1]; None where
        nobody knows.
      std: Standard deviation of each channel, in [0, 1]; None where nobody knows.
    """

    place: str
    digest: str
    members: Sequence[Mapping[Path, np.ndarray]]
    num_classes: int
    step: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What a training starts from.

    Attributes:
      values: Path of a variable -> its value; with an axis of members where the weights
        are those of several networks.
      text: A line that says what was loaded, and what was not.
      about: The same for the provenance of a run, as values for JSON.
    """

    values: Mapping[Path, np.ndarray]
    text: str
    about: dict[str, Any]


def read(config: Mapping[str, Any]) -> Pretrained:
    """Reads the weights that a config names.

    Args:
      config: Config with `init_from`, a workdir or a file, and with the fields of the
        network, which tell how to read a file.

    Raises:
      ValueError: There is nothing there, or it is no run and no file with weights of
        this network.
    """
    place = paths.absolute(config["init_from"])
    if (place / "config.json").exists():
        return _read_run(place)
    if place.is_dir():
        raise ValueError(
            f"init_from {place} is a folder without config.json; give the workdir of a "
            "run, or a file with weights"
        )
    if not place.exists():
        raise ValueError(f"init_from {place} does not exist; give a workdir or a file")
    return _read_file(pathlib.Path(place), config)


def _read_run(place: Any) -> Pretrained:
    runs = workdirs.load_members(place)
    members = [
        {
            path: np.asarray(jax.device_get(leaf))
            for path, leaf in flax.traverse_util.flatten_dict(run.variables).items()
        }
        for run in runs
    ]
    source = runs[0].source
    return Pretrained(
        place=str(place),
        digest=_digest(members),
        members=members,
        num_classes=source.num_classes,
        step=runs[0].step,
        mean=tuple(source.mean),
        std=tuple(source.std),
    )


def _read_file(place: pathlib.Path, config: Mapping[str, Any]) -> Pretrained:
    _, state_dict = load_state_dict(place)
    arguments = recipes.model_arguments(config)
    arguments.pop("dtype", None)
    if not any("smooth" in key for key in state_dict):
        # Normalisations in front of the blurs are drawn anew.
        arguments.pop("smoothing_norm", None)
    # Without a last layer by a known name, the conversion says what it expects.
    count = count_classes(state_dict) or 1000
    variables = from_pytorch(
        config["model"], state_dict, num_classes=count, **arguments
    )
    leaves = flax.traverse_util.flatten_dict(jax.device_get(variables))
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Weights are those of the only built-in data set with as many classes, as `convert`
    # takes them.
    names = sources.names(task=sources.CLASSIFICATION)
    fitting = [n for n in names if sources.SOURCES[n].num_classes == count]
    known = sources.SOURCES[fitting[0]] if len(fitting) == 1 else None
    return Pretrained(
        place=str(place),
        digest=digest,
        members=[leaves],
        num_classes=count,
        mean=known and known.mean,
        std=known and known.std,
    )


def _digest(members: Sequence[Mapping[Path, np.ndarray]]) -> str:
    """Returns the SHA-256 of all values, in the order of their paths."""
    digest = hashlib.sha256()
    for values in members:
        for path in sorted(values):
            digest.update("/".join(path).encode())
            digest.update(np.ascontiguousarray(values[path]).tobytes())
    return digest.hexdigest()


def choose(
    pretrained: Pretrained,
    shapes: Mapping[str, Any],
    *,
    num_classes: int,
    members: int = 1,
) -> InitialWeights:
    """Chooses the weights that fit a network.

    Args:
      pretrained: The weights.
      shapes: Variables of the network, or their shapes, without an axis of members.
      num_classes: Number of classes of the network.
      members: Number of networks to be trained at once. All start from the weights of
        one network, each with a head of its own where that is drawn anew; weights of
        several networks have to be of as many.

    Raises:
      ValueError: The weights are of another network, or of another number of members.
    """
    found = len(pretrained.members)
    if found not in (1, members):
        raise ValueError(
            f"{pretrained.place} holds the {found} members of a deep ensemble, and "
            f"members is {members}; set members={found}, or start from a single network"
        )
    wanted = flax.traverse_util.flatten_dict(dict(shapes))
    given = pretrained.members[0]
    fitting = [p for p in wanted if p in given and given[p].shape == wanted[p].shape]
    fresh = [path for path in wanted if path not in {*fitting}]
    unused = [path for path in given if path not in wanted]
    _check(pretrained, wanted, given, fresh=fresh, unused=unused)
    if found == 1:
        values = {path: given[path] for path in fitting}
    else:
        values = {p: np.stack([m[p] for m in pretrained.members]) for p in fitting}
    about = {
        "path": pretrained.place,
        "sha256": pretrained.digest,
        "step": pretrained.step,
        "loaded": len(fitting),
        "drawn_anew": ["/".join(path) for path in fresh],
        "not_used": ["/".join(path) for path in unused],
    }
    return InitialWeights(
        values, _text(pretrained, len(wanted), fresh, unused, num_classes), about
    )


def _check(
    pretrained: Pretrained,
    wanted: Mapping[Path, Any],
    given: Mapping[Path, np.ndarray],
    *,
    fresh: Sequence[Path],
    unused: Sequence[Path],
) -> None:
    """Raises ValueError where more than a head and smoothing do not fit."""
    problems = {
        "missing": [
            "/".join(path)
            for path in fresh
            if path not in given and not _may_differ(path)
        ],
        "left over": ["/".join(path) for path in unused if not _may_differ(path)],
        "of another shape": [
            f"{'/'.join(path)} {given[path].shape}, not {wanted[path].shape}"
            for path in fresh
            if path in given and freezing.part_of(path[1]) != "head"
        ],
    }
    if any(problems.values()):
        text = "; ".join(
            f"{kind}: {listed(names)}" for kind, names in problems.items() if names
        )
        raise ValueError(
            f"the weights of {pretrained.place} are of another network; {text}; give "
            "the config its model, stem, width and stages"
        )


def _may_differ(path: Path) -> bool:
    """Whether a variable may be in one of two networks only."""
    return freezing.part_of(path[1]) == "head" or path[1].startswith("smoothing")


def _text(
    pretrained: Pretrained,
    total: int,
    fresh: Sequence[Path],
    unused: Sequence[Path],
    num_classes: int,
) -> str:
    step = "" if pretrained.step is None else f" (step {pretrained.step})"
    text = f"{total - len(fresh)} of {total} arrays from {pretrained.place}{step}"
    if fresh:
        text += f"; drawn anew: {listed('/'.join(path[1:]) for path in fresh)}"
        if pretrained.num_classes != num_classes:
            text += f" ({num_classes} classes, {pretrained.num_classes} there)"
    if unused:
        text += f"; not used: {listed('/'.join(path[1:]) for path in unused)}"
    return f"initial weights: {text}"
