"""PyTorch state dictionaries to Flax variables.

Contract of this file: a state dictionary maps names such as `layer1.0.conv1.weight` to
arrays in PyTorch's layouts (OIHW, `[out, in]`); variables are `{"params",
"batch_stats"}` as `model.init` returns them. Values keep their dtype.
"""

import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.models import zoo

# Flax path (joined by "/") -> PyTorch key without its leaf.
_RESIDUAL_KEYS = [
    (r"stem_conv", r"layer0.0"),
    (r"stem_norm", r"layer0.1"),
    (r"stage(\d+)_block(\d+)/conv(\d)", r"layer\1.\2.conv\3"),
    (r"stage(\d+)_block(\d+)/norm(\d)", r"layer\1.\2.bn\3"),
    (r"stage(\d+)_block(\d+)/shortcut_conv", r"layer\1.\2.shortcut.0"),
    (r"stage(\d+)_block(\d+)/shortcut_norm", r"layer\1.\2.shortcut.1"),
]
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Not variables here: a counter, and the constant kernel of a blur.
_IGNORED = ("num_batches_tracked", "filter")


def from_pytorch(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    num_classes: int,
    stem: str = "cifar",
    **overrides,
) -> dict[str, Any]:
    """Converts a state dictionary of the authors' PyTorch networks.

    Args:
      name: One of `models.names()`.
      state_dict: PyTorch name -> array (anything NumPy takes), in PyTorch's layout.
      num_classes: K.
      stem: "cifar" or "imagenet".
      **overrides: As for `models.build`.

    Returns:
      Variables for the network that `models.build` makes of the same arguments.

    Raises:
      ValueError: naming every key that is missing, left over or misshapen.
    """
    abstract = flax.traverse_util.flatten_dict(
        _abstract_variables(name, num_classes=num_classes, stem=stem, **overrides)
    )
    family, head = zoo.spec(name).family, overrides.get("head")
    head = head or zoo.spec(name).arguments.get("head", "gap")
    keys = {path: pytorch_key(path, family=family, head=head) for path in abstract}
    left_over = [
        key
        for key in state_dict
        if key not in set(keys.values()) and key.split(".")[-1] not in _IGNORED
    ]
    missing = [key for key in keys.values() if key not in state_dict]
    variables, misshapen = {}, []
    for path, leaf in abstract.items():
        if keys[path] in state_dict:
            value = np.asarray(state_dict[keys[path]])
            variables[path] = jnp.asarray(_to_flax_layout(value))
            if variables[path].shape != leaf.shape:
                misshapen.append(
                    f"{keys[path]} is {value.shape}, "
                    f"its Flax form {leaf.shape} was expected"
                )
    problems = {"missing": missing, "left over": left_over, "misshapen": misshapen}
    if any(problems.values()):
        text = "; ".join(f"{kind}: {', '.join(k)}" for kind, k in problems.items() if k)
        raise ValueError(f"state_dict does not fit {name} ({stem} stem); {text}")
    return flax.traverse_util.unflatten_dict(variables)


def pytorch_key(path: tuple[str, ...], *, family: str, head: str) -> str:
    """Returns the PyTorch key of a variable.

    Args:
      path: Keys of the variable, from the collection to the leaf.
      family: Family of the network, as in `zoo.Spec`.
      head: Its head.
    """
    *module, leaf = path[1:]
    plain = family in ("alexnet", "vgg", "prevgg")
    # Index of the classifier behind its pools.
    position = 2 if plain else int(head == "mlp")
    rules = [
        (r"head/norm", f"classifier.{position}.bn"),
        (r"head/dense(\d?)", rf"classifier.{position}.dense\1"),
        (r"smoothing(\d+)_(\d+)/norm", r"smooth\1.\2.bn"),
        *([] if plain else _RESIDUAL_KEYS),
    ]
    joined = "/".join(module)
    if plain and (match := re.fullmatch(r"stage(\d+)_block(\d+)/(conv|norm)", joined)):
        stage, block, layer = int(match[1]), int(match[2]), match[3]
        index = block + (stage > 0)  # a pool comes first in all stages but one
        key = f"layer{stage}.{index}.{layer.replace('norm', 'bn')}"
        return f"{key}.{_LEAVES[leaf]}"
    for pattern, replacement in rules:
        if re.fullmatch(pattern, joined):
            return f"{re.sub(pattern, replacement, joined)}.{_LEAVES[leaf]}"
    raise ValueError(f"no PyTorch name for the variable {'/'.join(path)!r}")


def _to_flax_layout(value: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, `[out, in]` to `[in, out]`, vectors as they are."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value


def _abstract_variables(name: str, **arguments) -> dict[str, Any]:
    model = zoo.build(name, **arguments)
    size = 224 if arguments["stem"] == "imagenet" else 32
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)
