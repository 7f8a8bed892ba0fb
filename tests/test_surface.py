import ast
import functools
import graphlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest
from checkout import ROOT

import spatial_smoothing as ss
from spatial_smoothing import _moved

PACKAGE = "spatial_smoothing"


def table():
    """Returns the files and folders of each layer, as ARCHITECTURE.md lists them."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.M)
    assert [number for number, _ in rows] == [str(i) for i in range(len(rows))]
    names = (re.findall(r"`(.*?)`", files) for _, files in rows)
    names = [{re.sub(r"/\*$|\.py$", "", name) for name in row} for row in names]
    return [{name.replace("/", ".") for name in row} for row in names]


# What may import what: a file imports from lower layers and its own, never from higher
# ones. In the lowest, each file or folder stands on its own.
LAYERS = table()
ANYONE = {"lookup", "forms", "runtime"}
# In no layer: the surface, the command that calls all others, and the configs, which
# import nothing of the package.
TOP = ("__init__", "__main__", "_moved", "configs")

# Library -> the only files and folders that may import it.
LIBRARIES = {
    "tensorflow": set(),
    "torch": {"convert"},
    "safetensors": {"convert"},
    "absl": {"cli"},
    "grain": {"data"},
    "ml_collections": {"cli"},
    "optax": {"training"},
    "orbax": {"training"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "rich": {"report", "runtime", "training"},
    "tensorboardX": {"training"},
    "tensorflow_datasets": {"data"},
    "datasets": {"data"},
    "PIL": {"data"},
    "flax": set.union(*LAYERS[1:3]) | {"runtime", "metrics", "analysis"},
}

# Options that may be given by position.
POSITIONAL = {
    *(f"ops.{name}.temperature" for name in ("smooth", "scaled_tanh")),
    *(f"ops.{name}.temperature" for name in ("scaled_sigmoid", "scaled_softmax")),
    *(f"ops.{name}.temperature" for name in ("clip", "scale")),
    "ops.blur.taps",
    "metrics.tallies.tally.mask",
    *(f"metrics.detection.{name}.weights" for name in ("auroc", "aupr")),
    "metrics.detection.trapezoidal_aupr.weights",
    "metrics.smooth_calibration.smooth_ece.weights",
    *(f"metrics.detection.{name}.weights" for name in ("fpr_at_tpr", "ood")),
    *(f"metrics.selective.{name}.weights" for name in ("risk_coverage", "aurc")),
    *(f"metrics.selective.{n}.weights" for n in ("excess_aurc", "coverage_at_risk")),
    *(f"metrics.selective.{name}.weights" for name in ("augrc", "scod")),
    *(f"metrics.calibration.{n}.weights" for n in ("adaptive_ece", "fit_temperature")),
    "metrics.tables.table.weights",
    *(f"report.column.{name}.better" for name in ("percent", "nats")),
    "runtime.sharding.mesh.num_devices",
    "cli.convert.main.arguments",
}


def modules():
    """Returns the names of all modules below the package."""
    found = pkgutil.walk_packages(ss.__path__, f"{PACKAGE}.")
    return [module.name for module in found]


def files():
    """Returns name -> file of the modules and the scripts."""
    paths = {
        ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts): path
        for path in (ROOT / PACKAGE).rglob("*.py")
    }
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    for top in TOP:
        del paths[top]
    return {**paths, **{path.stem: path for path in ROOT.glob("*.py")}}


@functools.cache
def imports(path):
    """Returns the dotted names that a file imports, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path):
    """Returns the modules of the package that a file imports."""
    known = files()
    for name in imports(path):
        if name.startswith(f"{PACKAGE}."):
            name = name.removeprefix(f"{PACKAGE}.")
            if name.split(".")[0] in TOP:
                continue
            yield name if name in known else name.rpartition(".")[0]


def unit(name):
    """Returns the file or folder of the table that a module belongs to."""
    parts = name.split(".")
    heads = [".".join(parts[:size]) for size in range(len(parts), 0, -1)]
    return next((head for head in heads if head in set.union(*LAYERS)), parts[0])


def layer(name):
    """Returns the number of a module's layer."""
    numbers = [number for number, row in enumerate(LAYERS) if unit(name) in row]
    assert len(numbers) == 1, f"give {name} a place in LAYERS"
    return numbers[0]


def test_public_names_are_sorted_and_there():
    assert ss.__all__ == sorted(ss.__all__)
    for name in ss.__all__:
        assert getattr(ss, name) is not None
    defined = {name for name in vars(ss) if not name.startswith("_")}
    # Old names too: another test of this process may have imported them.
    submodules = {name.split(".")[1] for name in modules()} | set(_moved.MOVED)
    assert defined - submodules <= set(ss.__all__)
    assert ss.__version__ == importlib.metadata.version("spatial-smoothing")


X, OTHERS = object(), (object(), object(), object())


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (ss.smooth, [X], {"temperature": 10.0}),
        (ss.box_blur, [X], {}),
        (ss.blur, [X, (1, 2, 1)], {"padding": "reflect"}),
        (ss.SpatialSmoothing, [], {"temperature": 10.0}),
        (ss.models.names, [], {}),
        (ss.models.build, ["name"], {"num_classes": 100, "stem": "cifar"}),
        (ss.mc_dropout, [X, *OTHERS], {"num_samples": 50}),
        (ss.deep_ensemble, OTHERS, {}),
        (ss.prefix_means, [X], {"sizes": (1, 2)}),
        (ss.metrics.tally, [X, X], {"mask": None}),
        (ss.metrics.summary, [X], {"definition": "reference"}),
        (ss.convert.from_pytorch, ["name", X], {"num_classes": 100, "stem": "cifar"}),
    ],
)
def test_promised_calls_are_accepted(function, arguments, options):
    inspect.signature(function).bind(*arguments, **options)


@pytest.mark.parametrize("name", sorted(files()))
def test_imports_never_run_upward(name):
    for other in own_imports(files()[name]):
        assert layer(other) <= layer(name), f"{name} imports {other}"
        if layer(name) == 0:
            assert unit(other) in {unit(name), *ANYONE}, f"{name} imports {other}"


def test_imports_have_no_cycles():
    graph = {
        name: {other for other in own_imports(path) if other != name}
        for name, path in files().items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_layers_name_what_is_there():
    units = {unit(name) for name in files()}
    assert set.union(*LAYERS) == units


@pytest.mark.parametrize("name", sorted(files()))
def test_libraries_are_imported_where_they_belong(name):
    for other in imports(files()[name]):
        library = other.split(".")[0]
        allowed = LIBRARIES.get(library)
        assert allowed is None or unit(name) in allowed, f"{name} imports {library}"
        if unit(name) == "metrics" and library == "flax":
            assert other == "flax.struct"


# Names under which files import the libraries that change most.
CHANGING = {
    *("jax", "jnp", "flax", "nn", "nnx", "optax", "orbax", "ocp", "grain", "chex"),
    *("etils", "epath", "tfds", "tensorflow_datasets"),
}


@pytest.mark.parametrize("folder", [PACKAGE, "benchmarks"])
def test_no_private_names_of_libraries_are_used(folder):
    """Other versions of a library may have other private names, or none."""
    for path in (ROOT / folder).rglob("*.py"):
        used = set(imports(path))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(ast.unparse(node))
        for name in used:
            first, *rest = name.split(".")
            private = [part for part in rest if re.match("_[^_]", part)]
            assert not (first in CHANGING and private), f"{path.name}: {name}"


def test_the_surface_imports_no_more_than_it_needs():
    used = own_imports(ROOT / PACKAGE / "__init__.py")
    assert max(layer(name) for name in used if name) == 1
    heavy = "matplotlib tensorboardX tensorflow tensorflow_datasets torch"
    assert loaded(f"import {PACKAGE}", heavy) == []
    # The command imports them when it needs them, and not before the first step.
    assert loaded(f"from {PACKAGE}.cli import train", heavy) == []


def test_every_module_is_importable_without_tensorflow_and_torch():
    # None makes it absent also for the libraries that load it where they find it.
    absent = "import sys\nsys.modules['torch'] = None\n"
    names = "\n".join(f"import {name}" for name in modules())
    assert loaded(absent + names, "tensorflow matplotlib") == []


def loaded(code, names):
    """Runs code in a new interpreter; returns which of the modules it has loaded."""
    code += f"\nimport sys\nprint(*sorted(set('{names}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def public_functions(name):
    """Yields name and object of the public functions and methods of a module."""
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value):
            yield key, value
        elif inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{key}.{method}", function


@pytest.mark.parametrize("name", [n for n in modules() if not n.endswith("__main__")])
def test_options_are_keyword_only(name):
    for key, function in public_functions(name):
        for parameter in inspect.signature(function).parameters.values():
            where = f"{name.removeprefix(PACKAGE + '.')}.{key}.{parameter.name}"
            by_position = parameter.kind == parameter.POSITIONAL_OR_KEYWORD
            has_default = parameter.default is not parameter.empty
            assert not (by_position and has_default) or where in POSITIONAL, where


@pytest.mark.parametrize("name", sorted(files()))
def test_keys_do_not_depend_on_the_generator_that_the_process_is_set_to(name):
    """Seeds become keys in `random_bits.key`; a constant only serves for shapes."""
    for node in ast.walk(ast.parse(files()[name].read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "jax.random.key":
            given = [word.arg for word in node.keywords]
            assert isinstance(node.args[0], ast.Constant) or "impl" in given, name


@pytest.mark.parametrize(
    "old", [*_moved.MOVED, "suites.settings", "data.corruptions.blur"]
)
def test_old_names_are_the_modules_at_their_new_places(old):
    """Not second copies of them, whose classes would be others."""
    head = next(name for name in (old, old.rpartition(".")[0]) if name in _moved.MOVED)
    new = f"{PACKAGE}.{_moved.MOVED[head]}{old.removeprefix(head)}"
    module = importlib.import_module(f"{PACKAGE}.{old}")
    assert module is importlib.import_module(new)
    assert module.__name__ == module.__spec__.name == new
