"""Smoothing and MC dropout in existing Flax Linen models, without editing them.

Contract of this file: a wrapped model is a Linen module with the variables of the model
it wraps, name by name, shape by shape and value by value when initialised, so that
trained weights load as they are. The insertions have no variables; how they get to
their place is in `interception`.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
from flax.core.scope import Scope

from spatial_smoothing import layers
from spatial_smoothing.insertion.inserted import (
    SUBSAMPLING,
    Dropout,
    Insertion,
    Where,
    normalise_where,
    ordered,
    smoothing,
)
from spatial_smoothing.insertion.interception import Call


def add_smoothing(
    model: nn.Module,
    *,
    where: Where = SUBSAMPLING,
    temperature: float | None = None,
    squash: str = "tanh",
    taps: Sequence[float] | None = (1, 1),
    padding: str = "full",
) -> nn.Module:
    """Inserts spatial smoothing into a Linen model.

    By default before every subsampling layer: strided two-dimensional convolutions,
    `nn.max_pool` and `nn.avg_pool` with strides. The input of the model, that is
    whatever comes before its first convolution, is not smoothed.

    Args:
      model: A module whose feature maps are `[..., H, W, C]`.
      where: "subsampling"; or the modules to smooth after, as paths with wildcards
        such as "layer2/*" (* stands for any part of one name), or as a function of path
        and module.
      temperature: Scale t > 0 of the squashing function; None for its own default.
      squash: "tanh", "sigmoid", "softmax" or "clip", which first cut negative values
        off, as is right behind a ReLU; behind other activations "scale" or "none".
      taps: One-dimensional blur kernel; None for no blur.
      padding: "full", the paper's, grows a map by one row and one column; "same" keeps
        the size, for models that can do with no other.

    Returns:
      A module to use in place of `model`, with the same variables and methods; it may
      be wrapped again.

    Raises:
      ValueError: for unusable options. When it is called: if a pattern matches no
        module, if nothing is found to be smoothed, or if a transformation hides what
        would have to be known.

    Example:
      >>> smoothed = add_smoothing(model)
      >>> logits = smoothed.apply(pretrained_variables, images, train=False)
    """
    return _wrapped(model, smoothing(where, temperature, squash, taps, padding))


def add_mc_dropout(
    model: nn.Module, rate: float, *, where: Where = SUBSAMPLING
) -> nn.Module:
    """Inserts element-wise dropout into a Linen model, for Monte Carlo samples.

    Dropout is live exactly when `apply` is given an rng named "dropout", in training
    and evaluation alike. It comes before smoothing of the same array, whichever was
    added first, so that smoothing averages its noise.

    Args:
      model: A module, wrapped already or not.
      rate: Probability to drop a value, in [0, 1).
      where: "subsampling" as in `add_smoothing`; or the modules whose input is to be
        dropped, as patterns of paths or a function of path and module.

    Returns:
      A module to use in place of `model`, with the same variables and methods. It takes
      `train` whether or not `model` does, because `ensembles.mc_dropout` passes it.

    Raises:
      ValueError: for an unusable rate. When it is called: for the reasons that
        `add_smoothing` names, and if `train=True` comes without an rng.

    Example:
      >>> stochastic = add_mc_dropout(add_smoothing(model), 0.1)
      >>> probs = ss.mc_dropout(key, stochastic, pretrained_variables, images)
    """
    return _wrapped(model, Dropout(normalise_where(where), float(rate)))


def _wrapped(model: nn.Module, insertion: Insertion) -> "WithInsertions":
    insertion.check()
    if isinstance(model, WithInsertions):
        insertions = ordered((*model.insertions, insertion))
        return model.clone(insertions=insertions)
    if model.scope is None:
        return WithInsertions(Unbound(model), (insertion,))
    if isinstance(model.parent, Scope):  # by `bind`, and so is the result
        unbound = Unbound(model.unbind()[0])
        return WithInsertions(unbound, (insertion,), parent=model.scope)
    return WithInsertions(model, (insertion,))


@dataclasses.dataclass(frozen=True)
class Unbound:
    """Keeps a module out of the sight of Flax until it is called.

    Flax makes a field that is a module a submodule, and initial values depend on its
    name. Kept here, the model takes the place of its wrapper instead.
    """

    module: nn.Module


class WithInsertions(nn.Module):
    """A model with layers inserted while it is called; see `add_smoothing`.

    It has the methods of the model, and those of its attributes that are no modules.
    Its own methods are hidden from Flax by `nn.nowrap`, so that what Flax knows of a
    call (names, captured intermediates, rows of a table) is that of the model.

    Attributes:
      holder: The model; a bare one if another module has given it a scope already.
      insertions: In the order in which they act on one array.
    """

    holder: nn.Module | Unbound
    insertions: tuple[Insertion, ...]

    @property
    def wrapped_model(self) -> nn.Module:
        """The model without insertions, whose `__call__` tells what a call takes."""
        return _bare(self)

    @nn.nowrap
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; arguments and result are the model's.

        `train` is left out where the model has no such argument.
        """
        return self._run("__call__", args, kwargs)

    @nn.nowrap
    def apply(self, variables, *args, method=None, **kwargs) -> Any:
        """Calls a method with variables; see `nn.Module.apply`."""
        return super().apply(variables, *args, method=_of_wrapper(method), **kwargs)

    @nn.nowrap
    def init_with_output(self, rngs, *args, method=None, **kwargs) -> Any:
        """Initialises variables, for `init` and `lazy_init` too; see `nn.Module`."""
        method = _of_wrapper(method)
        return super().init_with_output(rngs, *args, method=method, **kwargs)

    @nn.nowrap
    def __getattr__(self, name: str) -> Any:
        """Returns a method of the model, with insertions, or a plain attribute."""
        if name.startswith("_") or "holder" not in vars(self):
            return super().__getattr__(name)
        model = _bare(self)
        static = inspect.getattr_static(model, name, self)
        # Functions in fields, such as activations, are not called with the model, nor
        # are static methods.
        if name not in vars(model) and inspect.isroutine(static):
            is_method = not isinstance(static, staticmethod | classmethod)
            return _Method(self, name) if is_method else getattr(model, name)
        value = self if static is self else getattr(model, name)
        leaves = jax.tree.leaves(value)
        if any(leaf is self or isinstance(leaf, nn.Module) for leaf in leaves):
            raise AttributeError(
                f"{name!r} is no method of the wrapped {type(model).__name__}, nor an "
                "attribute without modules. Modules inside a wrapped model would be "
                "called without insertions: pass method=lambda model, x: ... to apply"
            )
        return value

    @nn.nowrap
    def _run(self, method: str | Callable, args: tuple, kwargs: dict) -> Any:
        """Calls a method of the model, or a function of the model, with insertions."""
        is_named = isinstance(method, str)
        function = getattr(type(_bare(self)), method) if is_named else method
        scope = self.scope if isinstance(self.holder, Unbound) else self.holder.scope
        if scope is None:
            raise flax.errors.CallCompactUnboundModuleError()
        if _trains(function, args, kwargs):
            _check_rng(self.insertions, scope)
        if is_named and not _takes_train(function):
            kwargs = {name: v for name, v in kwargs.items() if name != "train"}
        call = Call(self.insertions, scope)
        try:
            inputs = (*args, *kwargs.values())
            with _marked(self, call) as model, call.watching(model, inputs):
                return function(model, *args, **kwargs)
        except flax.errors.ScopeParamShapeError as error:
            raise ValueError(
                "the variables do not fit; if they fit the model alone, an insertion "
                "changed the size of a map that a layer depends on, and padding='same' "
                f"keeps it: {error}"
            ) from error
        except TypeError as error:
            if "carry" not in str(error):
                raise
            raise ValueError(
                "the carry of a loop (nn.scan, nn.while_loop) changes its size; if it "
                "does not in the model alone, an insertion changed it, and "
                f"padding='same' keeps it: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Method:
    """A method of a model, to be called with insertions.

    Attributes:
      wrapper: The wrapped model.
      name: Name of the method.
    """

    wrapper: WithInsertions
    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapper._run(self.name, args, kwargs)


def _bare(wrapper: WithInsertions) -> nn.Module:
    """Returns the model without insertions."""
    holder = wrapper.holder
    return holder.module if isinstance(holder, Unbound) else holder


def _of_wrapper(method: Any) -> Any:
    """Makes a method of the model, as `apply` takes them, one of its wrapper."""
    if isinstance(method, _Method):
        method = method.name
    if inspect.ismethod(method) and isinstance(method.__self__, nn.Module):
        method = method.__func__
    if method in (None, "__call__", WithInsertions.__call__):
        return None
    return lambda wrapper, *args, **kwargs: wrapper._run(method, args, kwargs)


@contextlib.contextmanager
def _marked(wrapper: WithInsertions, call: Call) -> Iterator[nn.Module]:
    """Gives the model, bound to scopes that are marked as part of a call."""
    if isinstance(wrapper.holder, Unbound):
        # A scope of the same variables and names, whose children inherit its flags.
        scope = wrapper.scope.rewound()
        scope.flags = call.flags(scope)
        yield wrapper.holder.module.clone(parent=scope, _deep_clone=True)
        return
    # The modules of the model that are bound already have scopes of their own.
    modules = list(_bound_modules(wrapper.holder, {}))
    before = [module.scope.flags for module in modules]
    for module in modules:
        module.scope.flags = call.flags(module.scope)
    try:
        yield wrapper.holder
    finally:
        for module, flags in zip(modules, before, strict=True):
            module.scope.flags = flags


def _bound_modules(module: nn.Module, seen: dict[int, None]) -> Iterator[nn.Module]:
    """Yields a module and those in its fields and attributes that are bound."""
    if module.scope is None or id(module) in seen:
        return
    seen[id(module)] = None
    yield module
    attributes = {k: v for k, v in vars(module).items() if k not in ("parent", "scope")}
    for leaf in jax.tree.leaves(attributes):
        if isinstance(leaf, nn.Module):
            yield from _bound_modules(leaf, seen)


def _check_rng(insertions: Sequence[Insertion], scope: Scope) -> None:
    """Raises ValueError if training has dropout to do and no rng to do it with."""
    rate = max((i.rate for i in insertions if isinstance(i, Dropout)), default=0)
    initializing = scope.get_flag("initializing", False)
    if rate and not scope.has_rng("dropout") and not initializing:
        raise layers.without_key(rate)


def _trains(function: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether a call of a method has `train=True`, by name or by position."""
    if "train" in kwargs:
        return bool(kwargs["train"])
    try:
        # The first argument is the model.
        bound = inspect.signature(function).bind_partial(None, *args, **kwargs)
    except (TypeError, ValueError):  # the call itself tells of its arguments
        return False
    return bool(bound.arguments.get("train"))


def _takes_train(function: Callable) -> bool:
    parameters = inspect.signature(function).parameters
    return "train" in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
