"""Insertions into a Flax Linen model while it is being called.

Contract of this file: a `Call` lasts as long as one call of a wrapped model. It sees
the modules of the model through `nn.intercept_methods`, and its pools through `pools`
where an insertion asks for "subsampling"; it decides by path, by function or by kind of
layer where each insertion belongs. It has no effect outside its thread, nor on modules
that are no part of the model, such as another network that the model applies.

Traces are part of it. Flax's lifted transformations (`nn.remat`, `nn.scan`, `nn.vmap`,
...) trace their modules in each call, but `nn.jit` keeps its traces, for other modules
of equal fields too. The fingerprint by which it finds them contains the flags of the
module's scope. A `Call` therefore adds a flag to the scopes of the model, of which
every hash is another: no trace that `nn.jit` made outside of a call is used inside, nor
the other way round, nor that of one module for another. Under `jax.jit` this costs
nothing; without it, blocks in `nn.jit` are compiled in each call.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core import freeze
from flax.core.scope import Scope
from flax.core.tracers import current_trace

from spatial_smoothing.insertion import pools
from spatial_smoothing.insertion.inserted import (
    SUBSAMPLING,
    Dropout,
    Insertion,
    Used,
    check_feature_map,
    with_first,
)
from spatial_smoothing.insertion.subsampling import Subsampling

_CONVOLUTIONS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose)
_FLAG = "spatial_smoothing.insertion"
_hashes = itertools.count()
_log = logging.getLogger(__name__)


class _Mark:
    """The flag of a scope: the calls that it belongs to.

    Attributes:
      calls: Calls of wrapped models under way, the outermost first.
    """

    def __init__(self, calls: tuple["Call", ...]):
        self.calls = calls

    def __hash__(self) -> int:
        """Returns another number each time; see the top of this file."""
        return next(_hashes)

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclasses.dataclass(frozen=True)
class _Place:
    """A method under way.

    Attributes:
      module: The module; None if it is no part of the model.
      path: Its path in the model, such as "layer1/conv".
      trace: What `current_trace` returned when the method was called.
    """

    module: nn.Module | None
    path: str
    trace: Any


class Call:
    """One call of a wrapped model.

    Args:
      insertions: In the order in which they act on one array.
      scope: The scope of the model.
    """

    def __init__(self, insertions: Sequence[Insertion], scope: Scope):
        self._insertions = insertions
        self._depth = len(scope.path)
        self._has_rng = scope.has_rng("dropout")
        self._used = Used(insertions)
        self._places: list[_Place] = []

    def flags(self, scope: Scope) -> Any:
        """Returns the flags of a scope with the mark of this call added."""
        mark = scope.flags.get(_FLAG)
        calls = mark.calls if mark else ()
        return freeze({**scope.flags, _FLAG: _Mark((*calls, self))})

    @contextlib.contextmanager
    def watching(self, model: nn.Module, inputs: Sequence[Any]) -> Iterator[None]:
        """Inserts in what is called inside the context; then checks `where`.

        Args:
          model: The model, bound to a scope with the flags of this call.
          inputs: All arguments of the call.

        Raises:
          ValueError: for an insertion that found no place.
        """
        self._subsampling = Subsampling(inputs)
        self._places = [_Place(model, self._path(model), current_trace())]
        arrays = jax.tree.leaves((inputs, model.variables))
        self._is_eager = not any(isinstance(x, jax.core.Tracer) for x in arrays)
        with contextlib.ExitStack() as stack:
            stack.enter_context(nn.intercept_methods(self._intercept))
            if any(i.where == SUBSAMPLING for i in self._insertions):
                stack.enter_context(pools.watched(self._before_pool))
            yield
        self._used.check()

    def _path(self, module: nn.Module) -> str:
        return "/".join(module.path[self._depth :])

    def _intercept(self, method: Callable, args: tuple, kwargs: dict, context) -> Any:
        """Stands in for a method of any module; see `nn.intercept_methods`."""
        module, trace = context.module, current_trace()
        if not self._is_part(module):
            with self._under_way(_Place(None, "", trace)):
                return method(*args, **kwargs)
        path = self._path(module)
        other_trace = trace != self._places[-1].trace
        if other_trace and self._is_eager:
            _tell_of_compilation(module)
        marks = self._subsampling.marks()
        with self._under_way(_Place(module, path, trace)):
            self._subsampling.module_reads((args, kwargs), other_trace=other_trace)
            if context.method_name == "__call__" and path:
                result = self._called(method, args, kwargs)
            else:
                result = method(*args, **kwargs)
        if other_trace:
            self._subsampling.forget(marks)
        return result

    def _is_part(self, module: nn.Module) -> bool:
        mark = module.scope.flags.get(_FLAG) if module.scope else None
        return mark is not None and self in mark.calls

    @contextlib.contextmanager
    def _under_way(self, place: _Place) -> Iterator[None]:
        self._places.append(place)
        try:
            yield
        finally:
            self._places.pop()

    def _called(self, method: Callable, args: tuple, kwargs: dict) -> Any:
        """Calls the module that is under way, and inserts before and after it."""
        module, path = self._places[-1].module, self._places[-1].path
        self._used.saw(path)
        chosen = [i for i in self._insertions if self._used.chose(i, path, module)]

        def before(x: Any) -> Any:
            for insertion in chosen:
                if not insertion.after:
                    x = self._insert(insertion, x, module, f"before {path}")
            return self._subsampled(x, module, path) if _is_strided(module) else x

        args, kwargs = with_first(before, args, kwargs)
        result = method(*args, **kwargs)
        if isinstance(module, _CONVOLUTIONS):
            self._subsampling.convolved()
        for insertion in chosen:
            if insertion.after:
                result = self._insert(insertion, result, module, f"after {path}")
        return result

    def _before_pool(self, x: jax.Array) -> jax.Array:
        """Returns what a pool is to act on in place of `x`."""
        place = self._places[-1]
        if place.module is None:
            return x
        name = place.path or "the model"
        pools.check_same_trace(place.trace, name)
        return self._subsampled(x, place.module, f"a pool in {name}")

    def _subsampled(self, x: jax.Array, module: nn.Module, place: str) -> jax.Array:
        """Returns what a subsampling layer is to act on in place of `x`."""
        before = [i for i in self._insertions if i.where == SUBSAMPLING]
        if before and self._subsampling.is_feature_map(x, place):
            for insertion in before:
                self._used.subsampled(insertion)
                x = self._insert(insertion, x, module, f"before {place}")
        return x

    def _insert(
        self, insertion: Insertion, x: Any, module: nn.Module, place: str
    ) -> jax.Array:
        check_feature_map(insertion, x, place)
        _log.info("%s %s", insertion.name, place)
        if not isinstance(insertion, Dropout):
            return insertion.smooth(x)
        if not module.has_rng("dropout"):
            if self._has_rng:
                raise ValueError(
                    f"{insertion.name} {place} lies inside a transformation that hides "
                    "the rng 'dropout'; give that split_rngs={'dropout': True}"
                )
            return x
        # Applied as a function: a submodule would take a name from the model's own.
        rngs = {"dropout": module.make_rng("dropout")}
        dropout = nn.Dropout(insertion.rate, deterministic=False)
        return dropout.apply({}, x, rngs=rngs)


def _is_strided(module: nn.Module) -> bool:
    """Whether it is a two-dimensional convolution that subsamples."""
    return (
        isinstance(module, nn.Conv | nn.ConvLocal)
        and np.size(module.kernel_size) == 2
        and np.max(module.strides or 1) > 1
    )


def _tell_of_compilation(module: nn.Module) -> None:
    """Warns once if blocks in `nn.jit` are compiled in each call."""
    if any(name.startswith("jit(") for name in module.scope.debug_path):
        _warn_of_compilation()


@functools.cache
def _warn_of_compilation() -> None:
    _log.warning(
        "modules in nn.jit are compiled in each call of a wrapped model; "
        "call it under jax.jit to compile them once"
    )
