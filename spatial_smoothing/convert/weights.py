"""State dictionaries to variables and back.

Contract of this file: variables are f32. No value changes on the way, except that half
and double precision become single precision, and that the bias of a convolution goes
into the batch normalisation behind it. What PyTorch stores and the networks here hold
fixed are constants: counters of batches, kernels of blurs, biases of convolutions.
"""

import contextlib
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.convert.files import StateDict, as_array
from spatial_smoothing.convert.names import (
    NAMINGS,
    Path,
    known_layouts,
    pytorch_key,
    without_prefixes,
)
from spatial_smoothing.models import zoo
from spatial_smoothing.models.network import Network

# Number of axes -> their order in the other library: 4 for HWIO to OIHW and back, 2 for
# [in, out] to [out, in] and back.
_TO_PYTORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
_TO_FLAX = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
_COUNTER, _KERNEL, _BIAS = ".num_batches_tracked", ".filter", ".bias"


class _Layout(NamedTuple):
    """What the state dictionary of a network is made of, in one naming.

    Attributes:
      naming: Name of the layout, a key of `NAMINGS`.
      paths: Key in PyTorch -> path of the variable.
      shapes: The keys of `paths` -> shape of the array in PyTorch.
      constants: Keys that PyTorch has and the variables have not -> their values.
      means: Keys of `constants` that are biases of convolutions -> key of the running
        mean of the normalisation behind, where there is one.
    """

    naming: str
    paths: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]
    constants: StateDict
    means: dict[str, str]


def from_pytorch(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    num_classes: int,
    stem: str = "cifar",
    **overrides,
) -> dict[str, Any]:
    """Converts a state dictionary in the names of the paper's authors or torchvision's.

    Args:
      name: One of `models.names()`.
      state_dict: PyTorch name -> array, in PyTorch's layout: a tensor, or anything
        that NumPy takes.
        Prefixes of all names that wrappers make, such as "module.", are dropped.
        Counters of batches, kernels of blurs and biases of torchvision's convolutions
        may be left out.
      num_classes: K, number of classes.
      stem: "cifar" or "imagenet".
      **overrides: Other arguments of `models.build`.

    Returns:
      Variables `{"params", "batch_stats"}`, f32, for the network that `models.build`
      makes of the same arguments.

    Raises:
      ValueError: The names are of no known layout; or, naming every key, some are
        missing, left over, misshapen, of the wrong type, not finite, or such that the
        network cannot represent them.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"state_dict must be a dictionary, got {type(state_dict).__name__}; "
            "load_state_dict returns a pair (name, state_dict)"
        )
    model = _built(name, num_classes=num_classes, stem=stem, **overrides)
    state = _arrays(state_dict)
    layouts = _layouts(model, _abstract_variables(model))
    layout = max(layouts, key=lambda each: len(each.paths.keys() & state.keys()))
    if not layout.paths.keys() & state.keys():
        first = [*state][:3]
        shown = ", ".join(first) + (", ..." if len(state) > len(first) else "")
        raise ValueError(
            f"the state_dict has names of no known layout ({shown or 'none at all'}); "
            f"layouts that are known: {known_layouts()}"
        )
    _raise_if_any(
        _problems(layout, state),
        f"state_dict does not fit {name} ({stem} stem, {layout.naming} names)",
    )
    for bias, mean in layout.means.items():
        if bias in state:
            state[mean] = state[mean] - state[bias]
    return flax.traverse_util.unflatten_dict(
        {
            # A copy, because JAX may still be reading when the source is changed.
            path: jnp.array(state[key].transpose(_TO_FLAX[state[key].ndim]))
            for key, path in layout.paths.items()
        }
    )


def to_pytorch(
    name: str,
    variables: Mapping[str, Any],
    *,
    num_classes: int,
    stem: str = "cifar",
    naming: str = "authors",
    **overrides,
) -> StateDict:
    """Converts variables to a state dictionary that PyTorch loads strictly.

    Args:
      name: One of `models.names()`.
      variables: Variables of the network, `{"params", "batch_stats"}`.
      num_classes: K, number of classes.
      stem: "cifar" or "imagenet".
      naming: "authors", or "torchvision" for ResNet, ResNeXt, WideResNet, AlexNet and
        VGG; the convolutions of the last two get biases of zero.
      **overrides: Other arguments of `models.build`.

    Returns:
      PyTorch name -> array, in PyTorch's layout; counters of batches are zero. Half
        precision becomes f32.

    Raises:
      ValueError: The naming has no names for the network; or, naming every variable,
        some are missing, left over or misshapen.
    """
    model = _built(name, num_classes=num_classes, stem=stem, **overrides)
    if model.ensemble is not None:
        raise _without_names(name, model)
    abstract = _abstract_variables(model)
    layout = _layout(model, abstract, naming=naming)
    values = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    shapes = flax.traverse_util.flatten_dict(_weights(abstract), sep="/")
    _raise_if_any(
        _mismatches({path: leaf.shape for path, leaf in shapes.items()}, values),
        f"variables do not fit {name} ({stem} stem)",
    )
    state = {}
    for key, path in layout.paths.items():
        value = np.asarray(values["/".join(path)])
        # PyTorch takes no bfloat16 of NumPy.
        if _is_floating(value) and value.dtype.itemsize < 4:
            value = value.astype(np.float32)
        state[key] = np.array(value.transpose(_TO_PYTORCH[value.ndim]), order="C")
    return state | layout.constants


def _built(name: str, **options) -> Network:
    """Builds a network; ValueError where PyTorch has no names for its variables."""
    model = zoo.build(name, **options)
    if model.task != "classification":
        raise ValueError(
            f"{name} is for {model.task}, and there are PyTorch names for networks "
            "that classify images only"
        )
    # Masks are no variables: such a network can start from the weights of another one.
    if model.ensemble not in (None, "masksembles"):
        raise _without_names(name, model)
    return model


def _without_names(name: str, model: Network) -> ValueError:
    return ValueError(
        f"{name} has the ensemble {model.ensemble!r}, and there are PyTorch names for "
        "networks that make one prediction in a pass only"
    )


def _arrays(state_dict: Mapping[str, Any]) -> StateDict:
    """Returns arrays under names without the prefixes of wrappers.

    Floating-point arrays become f32, as variables are. Counters of batches become
    scalars: some writers store them with the shape (1,).
    """
    arrays = {}
    for key, value in without_prefixes(state_dict).items():
        array = as_array(key, value)
        if jnp.issubdtype(array.dtype, jnp.floating):
            # Values beyond f32 become infinite, which `_problems` refuses by name.
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
        if key.endswith(_COUNTER) and array.size == 1:
            array = array.reshape(())
        arrays[key] = array
    return arrays


def _layouts(model: Network, abstract: dict[str, Any]) -> list[_Layout]:
    """Returns the layouts of a network in all namings that have names for it."""
    layouts = []
    for naming in NAMINGS:
        with contextlib.suppress(ValueError):
            layouts.append(_layout(model, abstract, naming=naming))
    return layouts


def _layout(model: Network, abstract: dict[str, Any], *, naming: str) -> _Layout:
    """Returns the layout of a network in a naming.

    Args:
      model: The network.
      abstract: What `_abstract_variables` returns.
      naming: A key of `NAMINGS`.

    Raises:
      ValueError: The naming has no names for the network.
    """
    leaves = flax.traverse_util.flatten_dict(_weights(abstract))
    keys = {path: pytorch_key(model, path, naming=naming) for path in leaves}
    constants, means = {}, {}
    for path, key in keys.items():
        module, _, kind = key.rpartition(".")
        if kind == "running_mean":  # every batch normalisation counts its batches
            constants[module + _COUNTER] = np.zeros((), np.int64)
        # In torchvision's VGG and AlexNet convolutions have biases.
        if module.startswith("features.") and path[-1] == "kernel":
            bias = np.zeros(leaves[path].shape[-1], np.float32)
            if (*path[:-1], "bias") not in keys:
                constants[module + _BIAS] = bias
            mean = ("batch_stats", path[1], "norm", "mean")
            if mean in keys:
                means[module + _BIAS] = keys[mean]
    if naming == "authors":
        constants |= _blur_kernels(model, abstract)
    return _Layout(
        naming,
        {key: path for path, key in keys.items()},
        {
            keys[path]: tuple(leaf.shape[axis] for axis in _TO_PYTORCH[leaf.ndim])
            for path, leaf in leaves.items()
        },
        constants,
        means,
    )


def _blur_kernels(model: Network, abstract: dict[str, Any]) -> StateDict:
    """Returns PyTorch name -> kernel f32[C, 1, k, k] of depthwise blurs.

    The paper's box blur is an average pool, and has no kernel.
    """
    if model.taps is None or (tuple(model.taps), model.padding) == ((1, 1), "full"):
        return {}
    taps = np.asarray(model.taps, float) / sum(model.taps)
    kernel = np.outer(taps, taps).astype(np.float32)
    outputs = abstract["intermediates"]
    stages = sorted(int(name[5:]) for name in outputs if name.startswith("stage"))
    return {
        f"smooth{stage}.{number}.blur{_KERNEL}": np.tile(
            kernel, (outputs[f"stage{stage}"][0].shape[-1], 1, 1, 1)
        )
        for stage, count in zip(stages, model.smoothing, strict=True)
        for number in range(count)
    }


def _problems(layout: _Layout, state: StateDict) -> dict[str, list[str]]:
    """Returns kind of problem -> keys of the state dictionary that have it."""
    constants = {key: value.shape for key, value in layout.constants.items()}
    numbers = {k: value for k, value in state.items() if not k.endswith(_COUNTER)}
    floating = {k: value for k, value in numbers.items() if _is_floating(value)}
    different = [
        key
        for key, value in floating.items()
        if key in constants
        and key not in layout.means
        and value.shape == constants[key]
        and not np.allclose(value, layout.constants[key], rtol=1e-5, atol=1e-8)
    ]
    return {
        **_mismatches(layout.shapes | constants, state, optional=constants),
        "not floating": [
            f"{key} is {value.dtype}"
            for key, value in numbers.items()
            if key not in floating
        ],
        "not finite": [k for k, value in floating.items() if not _is_finite(value)],
        "another blur than the model's taps": [
            key for key in different if key.endswith(_KERNEL)
        ],
        "not zero, but convolutions have no bias here without conv_bias=True": [
            key for key in different if key.endswith(_BIAS)
        ],
    }


def _mismatches(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Any],
    *,
    optional: Container[str] = (),
) -> dict[str, list[str]]:
    """Compares keys and shapes.

    Args:
      expected: Key -> shape that its array must have.
      found: Key -> array.
      optional: Keys that may be missing.

    Returns:
      Kind of problem -> keys that have it.
    """
    return {
        "missing": [k for k in expected if k not in found and k not in optional],
        "left over": [key for key in found if key not in expected],
        "misshapen": [
            f"{key} is {found[key].shape}, {shape} was expected"
            for key, shape in expected.items()
            if key in found and found[key].shape != shape
        ],
    }


def _raise_if_any(problems: Mapping[str, list[str]], what: str) -> None:
    """Raises ValueError with `what` and all problems, if there are any."""
    if any(problems.values()):
        text = "; ".join(f"{kind}: {', '.join(k)}" for kind, k in problems.items() if k)
        raise ValueError(f"{what}; {text}")


def _is_floating(value: np.ndarray) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def _is_finite(value: np.ndarray) -> bool:
    return bool(np.isfinite(value).all())


def _weights(abstract: dict[str, Any]) -> dict[str, Any]:
    """Returns the collections that are weights, without intermediate results."""
    return {c: abstract[c] for c in ("params", "batch_stats") if c in abstract}


def _abstract_variables(model: Network) -> dict[str, Any]:
    """Returns shapes of the variables, and of what each part of the network returns."""
    size = 224 if model.stem == "imagenet" else 32
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    collections = ["params", "batch_stats", "intermediates"]
    return jax.eval_shape(
        lambda key, images: model.init(key, images, mutable=collections),
        jax.random.key(0),
        images,
    )
