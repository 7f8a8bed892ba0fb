"""Import paths of version 0.1 that still work in this one.

Code that imports one of these names gets the module at its new place. The table will go
with the next release. It leaves out what only this package used, such as the parts of
the report.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence

_PACKAGE = __name__.rpartition(".")[0]
# Old name -> new name, both below the package.
MOVED = {
    "checkpoints": "training.checkpoints",
    "cpu": "runtime.cpu",
    "data.baselines": "data.corruption.baselines",
    "data.cache": "runtime.cache",
    "data.cifar": "data.tfds.prepare_cifar",
    "data.corrupted": "data.corruption.official_sets",
    "data.corrupted_sets": "data.corruption.corrupted_sets",
    "data.corrupted_writer": "data.corruption.writer",
    "data.corruptions": "data.corruption.transforms",
    "data.decoding": "data.images.decoding",
    "data.encoded": "data.images.pipeline",
    "data.folders": "data.images.folders",
    "data.image_files": "data.images.image_files",
    "data.perturbations": "data.corruption.perturbations",
    "data.perturbed_sets": "data.corruption.perturbed_sets",
    "data.prepared": "data.tfds.prepared",
    "distributed": "runtime.sharding",
    "draws": "runtime.random_bits",
    "existing": "insertion.linen",
    "feeds": "training.input_pipeline",
    "interrupts": "runtime.interrupts",
    "locks": "runs.locks",
    "logs": "training.logs",
    "mixtures": "ensembles.mixtures",
    "optim": "training.optim",
    "paths": "runtime.paths",
    "prediction": "serving.predictor",
    "processes": "runtime.processes",
    "profiling": "training.profiling",
    "provenance": "runs.provenance",
    "recipes": "runs.recipes",
    "scoring": "evaluation.scores",
    "steps": "training.steps",
    "streaming": "serving.streaming",
    "suites": "evaluation.suites",
    "temporal": "ensembles.temporal",
    "workdirs": "runs.workdirs",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module by its old name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns a spec for old names; see `importlib`."""
        if _new_name(fullname) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: types.ModuleType) -> None:
        """Puts the module of the new name in the place of `module`."""
        name = module.__name__
        sys.modules[name] = importlib.import_module(_new_name(name))


def _new_name(fullname: str) -> str | None:
    """The name of a module today; None for one that has kept its name.

    A module of a package that moved has moved with it.
    """
    if not fullname.startswith(f"{_PACKAGE}."):
        return None
    parts = fullname.removeprefix(f"{_PACKAGE}.").split(".")
    for size in range(len(parts), 0, -1):
        new = MOVED.get(".".join(parts[:size]))
        if new is not None:
            return ".".join([_PACKAGE, new, *parts[size:]])
    return None


def keep_old_names() -> None:
    """Makes the names in the table importable; calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # First: the usual finders would load a module of a package that moved again,
        # under its old name, with classes of its own.
        sys.meta_path.insert(0, _Finder())
