"""Parts of a network that keep their weights while the rest trains.

Contract of this file: a part is "stem", "stage1", ... or "head"; the smoothing behind a
stage belongs to it. A frozen part is the function that it is in evaluation: parameters
and statistics of batch normalisation stay as they are, and batch normalisation uses the
running statistics. The bounds of its kernels stay, too. Its dropout stays on.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from spatial_smoothing.layers import BatchNorm
from spatial_smoothing.lookup import unknown
from spatial_smoothing.models.rivals.spectral import SpectralConv

_PART = re.compile(r"(stem|stage\d+)_")
_SMOOTHING = re.compile(r"smoothing(\d+)_")


def part_of(name: str) -> str:
    """Returns the part of a network that a module belongs to.

    Args:
      name: Name of a module of the network, such as "stage1_block0"; its variables are
        below this key.
    """
    if match := _SMOOTHING.match(name):
        return f"stage{match[1]}"
    match = _PART.match(name)
    return match[1] if match else name


def check_parts(params: Mapping[str, Any], frozen: Sequence[str]) -> None:
    """Checks which parts are to be frozen.

    Args:
      params: Parameters of the network, or their shapes.
      frozen: Names of the parts to be frozen.

    Raises:
      ValueError: The network has no such part, or no other part.
    """
    parts = list(dict.fromkeys(part_of(name) for name in sorted(params)))
    for name in frozen:
        if name not in parts:
            raise unknown("part to freeze", name, parts)
    if set(parts) <= set(frozen):
        raise ValueError(
            f"freeze={','.join(frozen)} leaves nothing to train; leave out the head"
        )


def label(params: Mapping[str, Any], name_of: Callable[[str], str]) -> dict[str, Any]:
    """Returns a tree like the parameters, with a text in the place of each array.

    Args:
      params: Parameters of a network.
      name_of: Function from a part to its text.
    """
    texts = {name: name_of(part_of(name)) for name in params}
    return {
        name: jax.tree.map(lambda _, text=texts[name]: text, tree)
        for name, tree in params.items()
    }


def without_gradient(
    params: Mapping[str, Any], frozen: Sequence[str]
) -> Mapping[str, Any]:
    """Returns the parameters, of which frozen parts have no gradient.

    Gradients are not computed below the first part that trains.

    Args:
      params: Parameters of a network.
      frozen: Names of the parts that are frozen.
    """
    if not frozen:
        return params
    return {
        name: jax.lax.stop_gradient(tree) if part_of(name) in frozen else tree
        for name, tree in params.items()
    }


def evaluating(frozen: Sequence[str]) -> contextlib.AbstractContextManager:
    """Returns a context in which layers of frozen parts keep their statistics.

    These are batch normalisation and spectral normalisation.

    Args:
      frozen: Names of the parts that are frozen.
    """
    if not frozen:
        return contextlib.nullcontext()

    def evaluate(
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer = context.module
        if isinstance(layer, BatchNorm) and not layer.use_running_average:
            mode = {"use_running_average": True}
        elif isinstance(layer, SpectralConv) and layer.train:
            mode = {"train": False}
        else:
            return method(*args, **kwargs)
        if context.method_name != "__call__" or part_of(layer.path[0]) not in frozen:
            return method(*args, **kwargs)
        # Applied as a function of its own, because the layer in the network holds its
        # mode already. The statistics of the network are left as they are.
        still = layer.clone(parent=None, name=None, **mode)
        return still.apply(dict(layer.variables), *args, **kwargs)

    return nn.intercept_methods(evaluate)
