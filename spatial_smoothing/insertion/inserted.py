"""What is inserted into models, and the grammar that says where.

Contract of this file: an insertion is a frozen, hashable dataclass, so that it can be
part of what Flax and JAX cache on. Nothing here depends on Linen or on NNX.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ops

# "subsampling", patterns of paths, or a function of the path and the module.
Where = str | Sequence[str] | Callable[[str, Any], bool]
SUBSAMPLING = "subsampling"


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """Spatial smoothing, to be inserted before subsampling or after chosen modules.

    Attributes:
      where: The places, as `normalise_where` returns them.
      temperature: Scale t > 0 of the squashing function; None for its own default.
      squash: Name of the squashing function, a key of `ops.SQUASHES`.
      taps: One-dimensional blur kernel; None for no blur.
      padding: How the blur pads, as in `ops.blur`.
    """

    where: Where
    temperature: float | None
    squash: str
    taps: tuple[float, ...] | None
    padding: str
    name: ClassVar[str] = "smoothing"  # for messages
    after: ClassVar[bool] = True  # acts on the result of a chosen module
    min_ndim: ClassVar[int] = 3  # [H, W, C]

    def smooth(self, x: jax.Array) -> jax.Array:
        """Smooths a feature map `[..., H, W, C]`."""
        return ops.smooth(
            x,
            self.temperature,
            squash=self.squash,
            taps=self.taps,
            padding=self.padding,
        )

    def check(self) -> None:
        """Raises ValueError for unusable options."""
        jax.eval_shape(self.smooth, jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32))


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Element-wise dropout, to be inserted before subsampling or before chosen modules.

    Attributes:
      where: The places, as `normalise_where` returns them.
      rate: Probability to drop a value, in [0, 1).
    """

    where: Where
    rate: float
    name: ClassVar[str] = "dropout"  # for messages
    after: ClassVar[bool] = False  # acts on the input of a chosen module
    min_ndim: ClassVar[int] = 1

    def check(self) -> None:
        """Raises ValueError for an unusable rate."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {self.rate}")


Insertion = Smoothing | Dropout


def smoothing(
    where: Where,
    temperature: float | None,
    squash: str,
    taps: Sequence[float] | None,
    padding: str,
) -> Smoothing:
    """Returns a smoothing that can be hashed, of options as users give them.

    Args:
      where: The places, in any form that `normalise_where` takes.
      temperature: Scale t > 0 of the squashing function, a number or an array of one;
        None for its own default.
      squash: Name of the squashing function, a key of `ops.SQUASHES`.
      taps: One-dimensional blur kernel; None for no blur.
      padding: How the blur pads, as in `ops.blur`.

    Raises:
      ValueError: for places in no such form.
    """
    t = None if temperature is None else float(temperature)
    taps = tuple(taps) if isinstance(taps, Iterable) else taps
    return Smoothing(normalise_where(where), t, squash, taps, padding)


def ordered(insertions: Sequence[Insertion]) -> tuple[Insertion, ...]:
    """Puts dropout first, so that smoothing of the same array averages its noise."""
    dropout = [i for i in insertions if isinstance(i, Dropout)]
    return (*dropout, *(i for i in insertions if not isinstance(i, Dropout)))


def normalise_where(where: Where) -> Where:
    """Returns "subsampling", a function, or a tuple of patterns; else ValueError."""
    if callable(where) or where == SUBSAMPLING:
        return where
    is_sequence = isinstance(where, Iterable) and not isinstance(where, str)
    patterns = tuple(where) if is_sequence else (where,)
    if not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ValueError(
            f"where must be {SUBSAMPLING!r}, paths of modules or a function, "
            f"got {where!r}"
        )
    return patterns


def matches(where: Where, path: str, module: Any) -> list[str | None]:
    """Returns what chooses a module: its patterns, or [None] for a function.

    Args:
      where: Places to insert at, as `normalise_where` returns them.
      path: Path of the module in the model, such as "layer1/conv".
      module: The module, for a function to look at.

    Returns:
      An empty list if the module is not chosen.
    """
    if callable(where):
        return [None] if where(path, module) else []
    if where == SUBSAMPLING:
        return []
    return [pattern for pattern in where if _matches(path, pattern)]


def _matches(path: str, pattern: str) -> bool:
    """Whether each name of a path matches that of a pattern."""
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatch.fnmatchcase, names, wanted))


def check_feature_map(insertion: Insertion, x: Any, place: str) -> None:
    """Raises ValueError if an insertion cannot act on what it finds at its place."""
    is_array = isinstance(x, jax.Array | np.ndarray)
    if (
        not is_array
        or x.ndim < insertion.min_ndim
        or not jnp.issubdtype(x.dtype, jnp.floating)
    ):
        found = f"{x.dtype}{list(x.shape)}" if is_array else type(x).__name__
        raise ValueError(
            f"{insertion.name} {place} needs a feature map [..., H, W, C], "
            f"got {found}; choose other modules by where="
        )


class Used:
    """Which insertions found a place, and the error for those that found none."""

    def __init__(self, insertions: Sequence[Insertion]):
        self._insertions = insertions
        self._used: set[tuple[Insertion, str | None]] = set()
        self._paths: dict[str, None] = {}  # of all modules; a set that keeps its order

    def saw(self, path: str) -> None:
        """Notes that a module has this path, for the error to list it."""
        self._paths[path] = None

    def chose(self, insertion: Insertion, path: str, module: Any) -> bool:
        """Whether an insertion chooses a module by path or function; notes it."""
        found = matches(insertion.where, path, module)
        self._used.update((insertion, match) for match in found)
        return bool(found)

    def subsampled(self, insertion: Insertion) -> None:
        """Notes that an insertion acts before a subsampling layer."""
        self._used.add((insertion, None))

    def check(self) -> None:
        """Raises ValueError for an insertion, or a pattern, that found no place."""
        for insertion in self._insertions:
            where = insertion.where
            for use in where if isinstance(where, tuple) else [None]:
                if (insertion, use) in self._used:
                    continue
                if use is not None:
                    reason = f"no module matches {use!r}"
                elif callable(where):
                    reason = "the function where= is true for no module"
                else:
                    reason = "nothing is subsampled after the first convolution"
                raise ValueError(
                    f"no place for {insertion.name}: {reason}; choose modules by "
                    f"where=, of: {', '.join(self._paths) or 'none'}"
                )


def with_first(function: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Applies a function to the first argument, given by position or by name."""
    if args:
        return (function(args[0]), *args[1:]), kwargs
    if kwargs:
        name, value = next(iter(kwargs.items()))
        return args, {**kwargs, name: function(value)}
    return args, kwargs
