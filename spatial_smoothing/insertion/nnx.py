"""Smoothing and MC dropout in existing Flax NNX models, without editing them.

Contract of this file: the functions return a copy of the model, and leave the model as
it is. Modules of the copy get a class derived from their own; paths of parameters and
statistics are unchanged, so that trained weights load as they are. Only dropout adds
state: random streams under the name `inserted_dropout`.

Places chosen by path or function are part of the graph definition, and hence of what
`nnx.jit` and the like cache on. "subsampling" is found while the model is called, by
its convolutions and its pools (see `pools`), and therefore not inside transformations
that the model applies to itself: there it is refused.
"""

import contextlib
import contextvars
import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.core.tracers import current_trace

from spatial_smoothing.insertion import pools
from spatial_smoothing.insertion.inserted import (
    SUBSAMPLING,
    Dropout,
    Insertion,
    Used,
    Where,
    check_feature_map,
    normalise_where,
    ordered,
    smoothing,
    with_first,
)
from spatial_smoothing.insertion.subsampling import Subsampling

_CONVOLUTIONS = (nnx.Conv, nnx.ConvTranspose)
_DROPOUT = "inserted_dropout"
_log = logging.getLogger(__name__)


def add_smoothing(
    model: nnx.Module,
    *,
    where: Where = SUBSAMPLING,
    temperature: float | None = None,
    squash: str = "tanh",
    taps: Sequence[float] | None = (1, 1),
    padding: str = "full",
) -> nnx.Module:
    """Inserts spatial smoothing into a copy of an NNX model.

    By default before every subsampling layer: strided two-dimensional `nnx.Conv`,
    `nnx.max_pool` and `nnx.avg_pool` with strides. The input of the model, that is
    whatever comes before its first convolution, is not smoothed.

    Args:
      model: A module whose feature maps are `[..., H, W, C]`.
      where: "subsampling"; or the modules to smooth after, as paths with wildcards
        such as "layers/*" (* stands for any part of one name), or as a function of path
        and module.
      temperature: Scale t > 0 of the squashing function; None for its own default.
      squash: "tanh", "sigmoid", "softmax" or "clip", which first cut negative values
        off, as is right behind a ReLU; behind other activations "scale" or "none".
      taps: One-dimensional blur kernel; None for no blur.
      padding: "full", the paper's, grows a map by one row and one column; "same" keeps
        the size, for models that can do with no other.

    Returns:
      A copy with the same parameters and methods; it may be given to this function or
      to `add_mc_dropout` again.

    Raises:
      ValueError: for unusable options, and for a pattern or a function that chooses no
        module. When the copy is called: if nothing is subsampled, or inside a
        transformation that hides it.

    Example:
      >>> smoothed = add_smoothing(model)
      >>> logits = smoothed(images)
    """
    return _inserted(model, smoothing(where, temperature, squash, taps, padding))


def add_mc_dropout(
    model: nnx.Module,
    rate: float,
    *,
    where: Where = SUBSAMPLING,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """Inserts element-wise dropout into a copy of an NNX model.

    The layers are `nnx.Dropout`: live unless `model.eval()` has switched them off, and
    always while `ss.mc_dropout` draws samples. They come before smoothing of the same
    array, whichever was added first, so that smoothing averages their noise.

    Args:
      model: A module, with insertions already or not.
      rate: Probability to drop a value, in [0, 1).
      where: "subsampling" as in `add_smoothing`; or the modules whose input is to be
        dropped, as patterns of paths or a function of path and module.
      rngs: Has the stream "dropout" that the layers draw from; None for one of seed 0.

    Returns:
      A copy with the same parameters and methods, and with random streams.

    Raises:
      ValueError: for an unusable rate, and for the reasons that `add_smoothing` names.

    Example:
      >>> stochastic = add_mc_dropout(add_smoothing(model), 0.1)
      >>> probs = ss.mc_dropout(key, stochastic, None, images)
    """
    insertion = Dropout(normalise_where(where), float(rate))
    return _inserted(model, insertion, nnx.Rngs(dropout=0) if rngs is None else rngs)


def _inserted(
    model: nnx.Module, insertion: Insertion, rngs: nnx.Rngs | None = None
) -> nnx.Module:
    insertion.check()
    model = nnx.clone(model)
    modules = _modules(model)
    if insertion.where == SUBSAMPLING:
        for path, module in modules.items():
            if isinstance(module, _CONVOLUTIONS) and path:
                _change_class(module, _with_insertions)
                here = dataclasses.replace(module.inserted_here, path=path, tells=True)
                module.inserted_here = here
        _change_class(model, _with_watched_methods)
        before = model.inserted_before_subsampling
        model.inserted_before_subsampling = _added(model, before, insertion, rngs)
        return model
    used = Used([insertion])
    for path, module in modules.items():
        if not path:
            continue
        used.saw(path)
        if used.chose(insertion, path, module):
            _change_class(module, _with_insertions)
            here = module.inserted_here
            insertions = _added(module, here.insertions, insertion, rngs)
            here = dataclasses.replace(here, path=path, insertions=insertions)
            module.inserted_here = here
    used.check()
    return model


def _modules(model: nnx.Module) -> dict[str, nnx.Module]:
    """Returns the modules of a model by their paths, such as "layers/0"."""
    modules = {}
    for names, module in nnx.iter_modules(model):
        if _DROPOUT not in names:
            modules["/".join(map(str, names))] = module
    return modules


def _added(
    module: nnx.Module,
    insertions: tuple[Insertion, ...],
    insertion: Insertion,
    rngs: nnx.Rngs | None,
) -> tuple[Insertion, ...]:
    """Returns insertions with one more, and gives the module its dropout layer."""
    if isinstance(insertion, Dropout):
        # The n-th dropout among the insertions draws from the n-th of these layers.
        layers = [*getattr(module, _DROPOUT, [])]
        layers.append(nnx.Dropout(insertion.rate, rngs=rngs))
        setattr(module, _DROPOUT, nnx.List(layers))
    return ordered((*insertions, insertion))


@dataclasses.dataclass(frozen=True)
class _Here:
    """What happens at a module; the attribute `inserted_here` of the module.

    Attributes:
      path: Its path in the model.
      insertions: Those chosen by path or function, in the order in which they act.
      tells: Whether it tells the calls under way that it convolves.
    """

    path: str = ""
    insertions: tuple[Insertion, ...] = ()
    tells: bool = False


def _change_class(module: nnx.Module, derive: Callable[[type], type]) -> None:
    """Gives a module a class derived from its own."""
    # The assignment of NNX would make it an attribute of the graph definition.
    object.__setattr__(module, "__class__", derive(type(module)))


# The classes below are made by `type` with one base, because Python changes the class
# of an object to no other kind. They are cached: equal models have equal types, and
# what JAX has compiled for one serves the other.


@functools.cache
def _with_insertions(cls: type[nnx.Module]) -> type[nnx.Module]:
    """Returns a class of modules that something is inserted at."""
    if hasattr(cls, "inserted_here"):
        return cls

    @functools.wraps(cls.__call__)
    def call(self, *args: Any, **kwargs: Any) -> Any:
        return _called(self, cls.__call__, args, kwargs)

    methods = {"__call__": call, "inserted_here": _Here()}
    return type(cls)(f"{cls.__name__}WithInsertions", (cls,), methods)


@functools.cache
def _with_watched_methods(cls: type[nnx.Module]) -> type[nnx.Module]:
    """Returns a class of models whose public methods insert before subsampling."""
    if hasattr(cls, "inserted_before_subsampling"):
        return cls
    methods = {"inserted_before_subsampling": ()}
    for name in {*dir(cls)} - {*dir(nnx.Module)} | {"__call__"}:
        method = inspect.getattr_static(cls, name, None)
        is_public = name == "__call__" or not name.startswith("_")
        is_method = callable(method) and not isinstance(method, type | staticmethod)
        if is_public and is_method:
            methods[name] = _watched(method, check=name == "__call__")
    return type(cls)(f"{cls.__name__}WithInsertions", (cls,), methods)


def _called(module: Any, method: Callable, args: tuple, kwargs: dict) -> Any:
    """Calls a module, and inserts before and after it."""
    here: _Here = module.inserted_here
    calls = _calls.get() if here.tells else ()
    if here.tells and not calls and _is_strided(module):
        raise ValueError(
            f"the convolution {here.path} is called without the model that was given "
            f"to add_smoothing or add_mc_dropout with where={SUBSAMPLING!r}; call a "
            "method of that model, or choose modules by where="
        )

    def before(x: Any) -> Any:
        x = _insert(module, here.insertions, x, f"before {here.path}", after=False)
        for call in calls:
            x = call.before_convolution(module, x)
        return x

    args, kwargs = with_first(before, args, kwargs)
    result = method(module, *args, **kwargs)
    for call in calls:
        call.subsampling.convolved()
    return _insert(module, here.insertions, result, f"after {here.path}", after=True)


def _watched(method: Callable, *, check: bool) -> Callable:
    """Makes a method insert before the subsampling layers that it calls.

    Args:
      method: A method of the class of the model.
      check: Whether it is an error if nothing is subsampled.
    """

    @functools.wraps(method)
    def watched(self, *args: Any, **kwargs: Any) -> Any:
        if any(call.model is self for call in _calls.get()):
            return method(self, *args, **kwargs)
        call = _Call(self, (args, kwargs))
        with call.watching():
            result = method(self, *args, **kwargs)
        if check:
            call.used.check()
        return result

    return watched


class _Call:
    """One call of a model with insertions before its subsampling layers.

    Args:
      model: The model.
      inputs: All arguments of the call.
    """

    def __init__(self, model: nnx.Module, inputs: Any):
        self.model = model
        self.subsampling = Subsampling(inputs)
        self.used = Used(model.inserted_before_subsampling)
        for path in filter(None, _modules(model)):
            self.used.saw(path)
        self._trace = current_trace()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inserts before what is called inside the context."""
        token = _calls.set((*_calls.get(), self))
        try:
            with pools.watched(self._before_pool):
                yield
        finally:
            _calls.reset(token)

    def before_convolution(self, module: Any, x: Any) -> Any:
        """Returns what a convolution is to act on in place of `x`."""
        is_strided = _is_strided(module)
        is_told_late = is_strided or not self.subsampling.has_convolved
        if is_told_late and current_trace() != self._trace:
            path = module.inserted_here.path
            raise ValueError(
                f"the convolution {path} lies inside a JAX transformation of the model "
                "(nnx.jit, nnx.remat, nnx.scan, ...), where insertions "
                "before subsampling would be cached; choose modules by where="
            )
        self.subsampling.module_reads(x, other_trace=False)
        return self._subsampled(x, module.inserted_here.path) if is_strided else x

    def _before_pool(self, x: jax.Array) -> jax.Array:
        pools.check_same_trace(self._trace, "the model")
        return self._subsampled(x, "a pool in the model")

    def _subsampled(self, x: jax.Array, place: str) -> jax.Array:
        if not self.subsampling.is_feature_map(x, place):
            return x
        insertions = self.model.inserted_before_subsampling
        for insertion in insertions:
            self.used.subsampled(insertion)
        x = _insert(self.model, insertions, x, f"before {place}", after=False)
        return _insert(self.model, insertions, x, f"before {place}", after=True)


_calls: contextvars.ContextVar[tuple[_Call, ...]] = contextvars.ContextVar(
    "calls of NNX models with insertions, outermost first", default=()
)


def _insert(
    module: Any, insertions: Sequence[Insertion], x: Any, place: str, *, after: bool
) -> Any:
    """Applies the insertions that act after, or before, a chosen module."""
    layers = iter(getattr(module, _DROPOUT, ()))
    for insertion in insertions:
        if insertion.after != after:
            continue
        check_feature_map(insertion, x, place)
        _log.info("%s %s", insertion.name, place)
        is_dropout = isinstance(insertion, Dropout)
        x = next(layers)(x) if is_dropout else insertion.smooth(x)
    return x


def _is_strided(module: Any) -> bool:
    """Whether it is a two-dimensional convolution that subsamples."""
    return (
        isinstance(module, nnx.Conv)
        and np.size(module.kernel_size) == 2
        and np.max(module.strides or 1) > 1
    )
