"""Import paths of version 0.1 that still work in this one.

Code that imports one of these names gets the module at its new place. The table will go
with the next release.
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
        """Returns a spec for names in the table; see `importlib`."""
        if fullname.removeprefix(f"{_PACKAGE}.") in MOVED:
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Puts the module of the new name in the place of `module`."""
        new = MOVED[module.__name__.removeprefix(f"{_PACKAGE}.")]
        sys.modules[module.__name__] = importlib.import_module(f"{_PACKAGE}.{new}")


def keep_old_names() -> None:
    """Makes the names in the table importable; calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
