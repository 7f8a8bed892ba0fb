"""Insertions into a Flax Linen model while it is being called.

Contract of this file: a `Call` lasts as long as one call of a wrapped model. It sees
the modules through `nn.intercept_methods`, decides by path, by function or by kind of
layer where each insertion belongs, and has no effect outside its thread.

Pools are functions in Linen, which no interceptor sees. With the first `Call`, the
function behind all of them, `flax.linen.pool`, is therefore replaced by one that does
what it did, and besides shows its input to the calls under way. Subsampling by slices
or reshapes stays unseen.
"""

import contextlib
import contextvars
import fnmatch
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Where = str | Sequence[str] | Callable[[str, nn.Module], bool]
SUBSAMPLING = "subsampling"
_CONVOLUTIONS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose)
_log = logging.getLogger(__name__)


class Insertion(Protocol):
    """What is inserted, and where; hashable.

    Attributes:
      name: For messages.
      where: As `normalise_where` returns it.
      after: Whether it acts on the result of the modules chosen by path or function,
        or on their input. On the subsampling layers it always acts before.
      min_ndim: The least rank of an array that it can act on.
      draws: Whether it draws from the rng "dropout".
    """

    name: str
    where: Where
    after: bool
    min_ndim: int
    draws: bool

    def __call__(self, x: jax.Array, module: nn.Module) -> jax.Array:
        """Returns what takes the place of `x`; rngs are those of `module`."""


def normalise_where(where: Where) -> Where:
    """Returns "subsampling", a function, or a tuple of patterns; else ValueError."""
    if callable(where) or where == SUBSAMPLING:
        return where
    patterns = (where,) if isinstance(where, str) else tuple(where)
    if not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ValueError(
            f"where must be {SUBSAMPLING!r}, paths of modules or a function, "
            f"got {where!r}"
        )
    return patterns


class Call:
    """One call of a wrapped model.

    Args:
      wrapper: A module, bound, with the attributes `wrapped_model`, whose scope it
        shares, and `insertions`, in the order in which they act on one array.
      inputs: All arguments of the call.
    """

    def __init__(self, wrapper: nn.Module, inputs: Iterable):
        self._wrapper = type(wrapper)
        self._insertions: Sequence[Insertion] = wrapper.insertions
        self._depth = len(_names(wrapper))
        self._live = wrapper.has_rng("dropout")
        self._under_way = [wrapper]  # modules, innermost last
        self._inputs = list(inputs)  # and what is derived from them
        self._convolved = False  # whether the first convolution is done
        self._paths: dict[str, None] = {}  # of all modules called; an ordered set
        self._used: set[tuple[Insertion, str | None]] = set()
        self.pooled_shape: tuple[int, ...] = ()  # of the last map that was pooled

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inserts in what is called inside the context; then checks `where`.

        Raises:
          ValueError: for an insertion that found no place.
        """
        _watch_pools()
        token = _calls.set((*_calls.get(), self))
        try:
            with nn.intercept_methods(self._intercept):
                yield
        finally:
            _calls.reset(token)
        self._check_used()

    def pooled(self, x: jax.Array) -> jax.Array:
        """Returns what a pool is to act on in place of `x`."""
        module = self._under_way[-1]
        place = f"a pool in {self._path(module) or 'the model'}"
        return self._subsampled(x, module, place)

    def _path(self, module: nn.Module) -> str:
        return "/".join(_names(module)[self._depth :])

    def _intercept(self, call: Callable, args: tuple, kwargs: dict, context) -> Any:
        """Stands in for a method of any module; see `nn.intercept_methods`."""
        module = context.module
        path = self._path(module)
        wrapper = isinstance(module, self._wrapper)  # has the path of what it wraps
        if context.method_name != "__call__" or wrapper or not path:
            return call(*args, **kwargs)
        self._paths[path] = None
        chosen = [i for i in self._insertions if self._chooses(i, path, module)]

        def before(x: Any) -> Any:
            for insertion in chosen:
                if not insertion.after:
                    x = self._insert(insertion, x, module, f"before {path}")
            return self._subsampled(x, module, path) if _is_strided(module) else x

        args, kwargs = _with_first(before, args, kwargs)
        self._under_way.append(module)
        try:
            result = call(*args, **kwargs)
        finally:
            self._under_way.pop()
        self._convolved |= isinstance(module, _CONVOLUTIONS)
        for insertion in chosen:
            if insertion.after:
                result = self._insert(insertion, result, module, f"after {path}")
        return result

    def _subsampled(self, x: jax.Array, module: nn.Module, place: str) -> jax.Array:
        """Returns what a subsampling layer is to act on in place of `x`."""
        if not self._convolved:
            self._inputs.append(x)
        # By identity: a shortcut beside the first convolution sees the same array.
        if any(x is known for known in self._inputs):
            return x
        for insertion in self._insertions:
            if insertion.where == SUBSAMPLING:
                self._used.add((insertion, None))
                x = self._insert(insertion, x, module, f"before {place}")
        return x

    def _chooses(self, insertion: Insertion, path: str, module: nn.Module) -> bool:
        """Whether the insertion asks for this module by path or function."""
        where = insertion.where
        if callable(where):
            matches = [None] if where(path, module) else []
        elif where == SUBSAMPLING:
            matches = []
        else:
            matches = [pattern for pattern in where if _matches(path, pattern)]
        self._used.update((insertion, match) for match in matches)
        return bool(matches)

    def _insert(
        self, insertion: Insertion, x: Any, module: nn.Module, place: str
    ) -> jax.Array:
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
        if insertion.draws and self._live and not module.has_rng("dropout"):
            raise ValueError(
                f"{insertion.name} {place} lies inside a transformation that hides "
                "the rng 'dropout'; give that split_rngs={'dropout': True}"
            )
        _log.info("%s %s", insertion.name, place)
        return insertion(x, module)

    def _check_used(self) -> None:
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


_calls: contextvars.ContextVar[tuple[Call, ...]] = contextvars.ContextVar(
    "calls of wrapped models under way, outermost first", default=()
)


@functools.cache
def _watch_pools() -> None:
    """Makes the function behind `nn.max_pool` and `nn.avg_pool` show its input."""
    pool, averaging = nn.pooling.pool, nn.avg_pool.__code__

    @functools.wraps(pool)
    def watched(inputs, init, reduce_fn, window_shape, strides, padding):
        calls = _calls.get()
        if calls and len(window_shape) == 2 and any(s > 1 for s in strides or ()):
            caller = sys._getframe(1)
            if caller.f_code is averaging and "y" in caller.f_locals:
                # Not a map, but ones, to count what the windows of the last map held.
                inputs = jnp.ones((1, *calls[0].pooled_shape[-3:-1], 1))
            else:
                for call in calls:
                    inputs = call.pooled(inputs)
                calls[0].pooled_shape = inputs.shape
        return pool(inputs, init, reduce_fn, window_shape, strides, padding)

    nn.pool = nn.pooling.pool = watched


def _names(module: nn.Module) -> list[str]:
    """Returns the path of a module as it is without any wrapper.

    A module given to the model as an attribute was named before the model shared the
    scope of its wrapper.
    """
    return [name for name in module.path if name != "wrapped_model"]


def _matches(path: str, pattern: str) -> bool:
    """Whether each name of a path matches that of a pattern."""
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatch.fnmatchcase, names, wanted))


def _is_strided(module: nn.Module) -> bool:
    """Whether it is a two-dimensional convolution that subsamples."""
    return (
        isinstance(module, nn.Conv | nn.ConvLocal)
        and np.size(module.kernel_size) == 2
        and np.max(module.strides or 1) > 1
    )


def _with_first(function: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Applies a function to the first argument, given by position or by name."""
    if args:
        return (function(args[0]), *args[1:]), kwargs
    if kwargs:
        name, value = next(iter(kwargs.items()))
        return args, {**kwargs, name: function(value)}
    return args, kwargs
