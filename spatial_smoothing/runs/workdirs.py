"""Work directories: what a run leaves behind, and how to read it again.

Contract of this file: a workdir holds `config.json` (the resolved config, a flat JSON
object with absolute paths), `provenance.json`, `metrics.jsonl`, `checkpoints/`,
`tensorboard/` and `evaluation/`. A workdir belongs to one config; the fields of `FREE`
may change from one start to the next, because they do not change what is trained. A
workdir may be copied, moved, and reached by links.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from spatial_smoothing import ensembles
from spatial_smoothing.data import file_names
from spatial_smoothing.data.sources import Source
from spatial_smoothing.models.network import Network
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.provenance import provenance
from spatial_smoothing.runtime import paths, processes, random_bits, sharding
from spatial_smoothing.training import input_pipeline
from spatial_smoothing.training.checkpoints import (
    Checkpoints,
    abstract,
    check_path,
    fingerprint,
    saved_steps,
)

FREE = frozenset(
    {
        "checkpoint_every",
        "checkpoint_minutes",
        "data_dir",
        "download",
        "eval_batch_size",
        "eval_every",
        "max_to_keep",
        "num_workers",
        "shard_state",
    }
)
# Fields that configs of older runs lack, and what these mean.
SINCE = {
    "members": 1,
    "shard_state": False,
    "train_split": None,
    "mean": None,
    "std": None,
    "init_from": None,
    "freeze": None,
    "backbone_factor": 1.0,
    "stage_rates": None,
    "mask": None,
    "dropout_placement": None,
    "learning_rate_batch": None,
    "schedule": "multistep",
    "optimizer": "sgd",
    "class_weights": None,
    "nesterov": False,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "ema": 0.0,
    "train_samples": 1,
    "train_samples_loss": "mean",
    "ensemble": None,
    "ensemble_size": None,
    "alpha": None,
    "gamma": None,
    "scale": None,
    "repetition": None,
    "batch_repetitions": None,
    "spectral_bound": None,
}
# What the data set tells, which a run keeps; see `Source.facts`.
_FACTS = ("class_names", "image_size", "mean", "std", "in_memory", "palette")
# Smallest value of the fields that are numbers.
_AT_LEAST = {
    "backbone_factor": 0,
    "batch_size": 1,
    "checkpoint_every": 1,
    "checkpoint_minutes": 0,
    "epochs": 1,
    "eval_batch_size": 1,
    "eval_every": 1,
    "factor": 0,
    "learning_rate": 0,
    "max_to_keep": 1,
    "members": 1,
    "momentum": 0,
    "num_workers": 0,
    "seed": 0,
    "warmup_epochs": 0,
    "weight_decay": 0,
}


class Run(NamedTuple):
    """A trained network, ready to predict.

    Attributes:
      path: The workdir.
      config: Config of the run; of a member, with the member's seed.
      model: The network.
      variables: Flax variables, `{"params", "batch_stats"}`, whole on all devices.
      step: Steps that it was trained for.
      member: Number of a member of the workdir, from 0; None for a single network.
    """

    path: epath.Path
    config: dict[str, Any]
    model: Network
    variables: dict[str, Any]
    step: int
    member: int | None = None

    @property
    def name(self) -> str:
        """Its name in reports: the workdir, and which member."""
        return str(self.path) + ("" if self.member is None else f" #{self.member}")

    @property
    def source(self) -> Source:
        """The data set that it was trained on."""
        return recipes.source(self.config)

    @property
    def fingerprint(self) -> str:
        """A short text that another network has not, whatever the workdir is called."""
        words = json.dumps(fingerprint(self.variables)).encode()
        return f"{zlib.crc32(words):08x}"


def claim(workdir: epath.PathLike, config: Mapping[str, Any]) -> epath.Path:
    """Makes a workdir for a config, or checks that it holds a run of this config.

    Of several processes, the first does so for all.

    Args:
      workdir: A path, local or remote.
      config: Flat dict of values that JSON can hold. Its relative paths are of the
        current directory, and kept as absolute ones.

    Returns:
      The absolute path.

    Raises:
      ValueError: if a number in the config is out of range; if several members are to
        be trained on images that are not in memory; if the workdir holds a run of
        another config, or something that is not a run, or not all processes see it; or
        if its path is not UTF-8, or has a character of patterns.
    """
    for name, least in _AT_LEAST.items():
        if name in config and not config[name] >= least:
            raise ValueError(f"{name} must be at least {least}, got {config[name]}")
    if "seed" in config:  # member m has the seed `seed + m`
        random_bits.check_seed(config["seed"])
        last = config["seed"] + config.get("members", 1) - 1
        random_bits.check_seed(last, name="seed + members - 1")
    if config.get("members", 1) > 1 and not recipes.source(config).in_memory:
        raise ValueError(input_pipeline.NO_MEMBERS)
    path = paths.absolute(workdir)
    file_names.check_text(path)  # what writes checkpoints takes no other names
    check_path(path)
    with processes.together():
        if processes.is_first():
            _claim(path, config)
    # Each process checks by itself that it sees the same file system.
    with processes.together():
        if not (path / "config.json").exists():
            raise ValueError(
                f"there is no {path / 'config.json'}, which process 0 has; choose a "
                "workdir that all processes share"
            )
    return path


def _claim(path: epath.Path, config: Mapping[str, Any]) -> None:
    # What the data tell is kept, so that a run can be used without them.
    config = recipes.with_facts({**SINCE, **recipes.located(config)})
    config = json.loads(json.dumps(config))  # tuples become lists, as when read
    if not (path / "config.json").exists():
        # A process that was killed while it wrote the config leaves a temporary file,
        # and another one may write its config at this moment.
        names = [p.name for p in path.iterdir()] if path.exists() else []
        others = [name for name in names if not name.endswith(".tmp")]
        if others and "config.json" not in others:
            raise ValueError(
                f"workdir {path} is not empty and holds no config.json; choose another"
            )
        path.mkdir(parents=True, exist_ok=True)
        if paths.write_new_text(path / "config.json", _as_json(config)):
            _sign(path)
            return
    # A workdir that holds this config already is the run that continues.
    held = read_config(path)
    different = [
        f"{name} is {held.get(name)!r} there and {config.get(name)!r} here"
        for name in sorted({*held, *config} - FREE)
        if not _is_same(name, held.get(name), config.get(name))
    ]
    if different:
        raise ValueError(
            f"workdir {path} holds another config: {'; '.join(different)}; "
            "choose another workdir"
        )


def _is_same(name: str, held: Any, new: Any) -> bool:
    """Whether a field of a config has the same value in two starts of a run."""
    if name == "dataset" and isinstance(held, str) and isinstance(new, str):
        return recipes.is_same_dataset(held, new)
    return held == new


def with_held_facts(
    workdir: epath.PathLike, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a config with what the first start of its run found out of its data.

    A run that continues needs neither the weights that it started from, nor another
    look at the data, to know how images are normalised.

    Args:
      workdir: A path; the workdir need not be there.
      config: Config of this start. Fields that it gives stay as they are.
    """
    path = paths.absolute(workdir)
    if not (path / "config.json").exists():
        return dict(config)
    held = read_config(path)
    same_data = recipes.is_same_dataset(held.get("dataset", ""), config["dataset"])
    if not same_data:
        return dict(config)
    # Folders are listed anew, so that a class that was added is noticed.
    names = _FACTS if held.get("in_memory") is not None else ("mean", "std")
    known = {name: held[name] for name in names if held.get(name) is not None}
    return {**config, **{n: v for n, v in known.items() if config.get(n) is None}}


def has_checkpoint(workdir: epath.PathLike) -> bool:
    """Returns whether a training in a workdir would continue from a checkpoint.

    Of several processes, all are told what the first one sees.

    Args:
      workdir: A path; the workdir need not be there.
    """
    return bool(
        processes.of_first(saved_steps(paths.absolute(workdir) / "checkpoints"))
    )


def sign(
    workdir: epath.PathLike, *, initial_weights: Mapping[str, Any] | None = None
) -> None:
    """Adds this start to `provenance.json`, if it differs from the one before.

    The file holds the provenance of the first start. It lists later ones under
    "continued" where more than the time differs from the one before. Of several
    processes, the first writes.

    Args:
      workdir: Workdir that this run has claimed and locked.
      initial_weights: What the run starts from, as values for JSON, which is kept as
        `initial_weights`; None for random values, or where the run continues.

    Raises:
      ValueError: if the file is there and not JSON.
      OSError: if it cannot be written.
    """
    with processes.together():
        if processes.is_first():
            _sign(epath.Path(workdir), initial_weights)


def _sign(
    workdir: epath.Path, initial_weights: Mapping[str, Any] | None = None
) -> None:
    path, now = workdir / "provenance.json", provenance()
    if not path.exists():
        write_json(path, now)
    held = _read_json(path)
    if initial_weights is not None:
        held = {**held, "initial_weights": dict(initial_weights)}
        write_json(path, held)
    # Compared with the newest start, not with the first one.
    continued = held.get("continued", [])
    last = continued[-1] if continued else held
    if any(last.get(name) != now[name] for name in now.keys() - {"time"}):
        write_json(path, {**held, "continued": [*continued, now]})


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns the config of a workdir; raises ValueError if there is none."""
    path = paths.absolute(workdir) / "config.json"
    file_names.check_text(path.parent)
    if not path.exists():
        raise ValueError(f"no run in workdir {workdir}: there is no {path}")
    config = _read_json(path)
    # Other projects have files of this name, too.
    if missing := [name for name in ("model", "dataset") if name not in config]:
        raise ValueError(
            f"no run in workdir {workdir}: {path} has no {' and no '.join(missing)}; "
            "choose another workdir"
        )
    return {**SINCE, **config}


def task(workdir: epath.PathLike) -> str:
    """Returns the task of the networks of a workdir.

    Args:
      workdir: A path, local or remote.

    Returns:
      "classification" or "segmentation".

    Raises:
      ValueError: if there is no run.
    """
    return recipes.source(read_config(workdir)).task


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
    except ValueError as error:  # the text is not UTF-8, or not JSON
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(held, dict):
        raise ValueError(f"{path} is no JSON object, but {type(held).__name__}")
    return held


def load(workdir: epath.PathLike) -> Run:
    """Loads the newest checkpoint of a workdir of one network.

    Args:
      workdir: A path, local or remote.

    Raises:
      ValueError: if it holds several networks, no run, or no checkpoint that is not
        damaged.
    """
    count = read_config(workdir)["members"]
    if count > 1:
        raise ValueError(
            f"{workdir} holds the {count} members of a deep ensemble; evaluate.py "
            "takes them all, and this a run with members = 1"
        )
    return load_members(workdir)[0]


def load_members(workdir: epath.PathLike) -> list[Run]:
    """Loads the newest checkpoint of a workdir, and changes nothing in it.

    Args:
      workdir: A path, local or remote.

    Returns:
      A run for each member, in the order of their seeds; a single one where the workdir
      holds no deep ensemble.

    Raises:
      ValueError: if there is no run, or no checkpoint that is not damaged.
    """
    path = paths.absolute(workdir)
    described = describe_members(path)
    shapes = stacked_shapes(described)
    # Members are saved stacked, in a single tree.
    everywhere = sharding.replicated(sharding.mesh())
    with Checkpoints(path / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(variables=abstract(shapes, sharding=everywhere))
    if restored is None:
        raise ValueError(
            f"no checkpoint in workdir {path} yet; train for an epoch first"
        )
    variables, step = restored.items["variables"], restored.step
    several = len(described) > 1
    each = ensembles.unstack(variables) if several else [variables]
    return [
        run._replace(variables=one, step=step)
        for run, one in zip(described, each, strict=True)
    ]


def describe_members(workdir: epath.PathLike) -> list[Run]:
    """Returns what `load_members` does, with the shapes of variables in their place.

    Args:
      workdir: A path, local or remote. It needs no checkpoint.

    Returns:
      A run for each member, at step 0, whose variables are `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: if there is no run.
    """
    path = paths.absolute(workdir)
    config = read_config(path)
    count = config["members"]
    model = recipes.build_model(config)
    size = recipes.source(config).image_size
    shapes = recipes.abstract_variables(model, image_size=size)
    if count == 1:
        return [Run(path, config, model, shapes, step=0)]
    return [
        Run(
            path,
            {**config, "seed": config["seed"] + member},
            model,
            shapes,
            step=0,
            member=member,
        )
        for member in range(count)
    ]


def stacked_shapes(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the shapes of the variables of some runs, stacked if there are several.

    Args:
      runs: Runs of one network, with variables or with their shapes.
    """
    variables = [run.variables for run in runs]
    if len(runs) == 1:
        return variables[0]
    return jax.eval_shape(ensembles.stack, variables)


def evaluation_path(workdir: epath.PathLike) -> epath.Path:
    """Returns the file with the scores of a workdir; ValueError if there is none."""
    path = paths.absolute(workdir) / "evaluation" / "metrics.json"
    if not path.exists():
        raise ValueError(
            f"{workdir} is not evaluated yet; run evaluate.py --workdir={workdir}"
        )
    return path


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a value that JSON can hold, in one piece."""
    paths.write_text(path, _as_json(value))


def _as_json(value: Any) -> str:
    """Returns the content of a file of JSON."""
    return json.dumps(value, indent=2) + "\n"
