"""Smoothing and MC dropout in existing Flax Linen models, without editing them.

Contract of this file: a wrapped model is a Linen module with the variables of the model
it wraps, name by name and shape by shape, so that trained weights load as they are. The
insertions have no variables; how they get to their place is in `interception`.
"""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from spatial_smoothing import layers, ops
from spatial_smoothing.insertion.interception import (
    SUBSAMPLING,
    Call,
    Where,
    normalise_where,
)


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
      temperature: See `ops.smooth`, as for the options below.
      squash: All but "scale" and "none" first cut negative values off, as is right
        behind a ReLU; behind other activations take one of these two.
      taps: One-dimensional blur kernel; None for no blur.
      padding: "full", the paper's, grows a map by one row and one column; "same" keeps
        the size, for models that can do with no other.

    Returns:
      A module to use in place of `model`, with the same variables; it may be wrapped
      again.

    Raises:
      ValueError: for unusable options. When it is called: if a pattern matches no
        module, or nothing is found to be smoothed.

    Example:
      >>> smoothed = add_smoothing(model)
      >>> logits = smoothed.apply(pretrained_variables, images, train=False)
    """
    taps = None if taps is None else tuple(taps)
    smoothing = Smoothing(normalise_where(where), temperature, squash, taps, padding)
    jax.eval_shape(  # raises for unusable options here rather than in the first call
        lambda x: smoothing(x, model), jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    )
    model, others = _unwrapped(model)
    return WithInsertions(model, (*others, smoothing))


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
        dropped, given as there.

    Returns:
      A module to use in place of `model`, with the same variables. It takes `train`
      whether or not `model` does, because `ensembles.mc_dropout` passes it.

    Raises:
      ValueError: for an unusable rate. When it is called: as `add_smoothing` says, and
        if `train=True` comes without an rng.

    Example:
      >>> stochastic = add_mc_dropout(add_smoothing(model), 0.1)
      >>> probs = ss.mc_dropout(key, stochastic, pretrained_variables, images)
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    dropout = Dropout(normalise_where(where), float(rate))
    model, others = _unwrapped(model)
    return WithInsertions(model, (dropout, *others))


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """The insertion of `add_smoothing`."""

    where: Where
    temperature: float | None
    squash: str
    taps: tuple[float, ...] | None
    padding: str
    name: ClassVar[str] = "smoothing"
    after: ClassVar[bool] = True
    min_ndim: ClassVar[int] = 3
    draws: ClassVar[bool] = False

    def __call__(self, x: jax.Array, module: nn.Module) -> jax.Array:
        """Smooths a feature map."""
        return ops.smooth(
            x,
            self.temperature,
            squash=self.squash,
            taps=self.taps,
            padding=self.padding,
        )


@dataclasses.dataclass(frozen=True)
class Dropout:
    """The insertion of `add_mc_dropout`."""

    where: Where
    rate: float
    name: ClassVar[str] = "dropout"
    after: ClassVar[bool] = False
    min_ndim: ClassVar[int] = 1
    draws: ClassVar[bool] = True

    def __call__(self, x: jax.Array, module: nn.Module) -> jax.Array:
        """Drops values of any array, if the module has an rng "dropout"."""
        if not module.has_rng("dropout"):
            return x
        # Applied as a function: a submodule would take a name from the model's own.
        rngs = {"dropout": module.make_rng("dropout")}
        return nn.Dropout(self.rate, deterministic=False).apply({}, x, rngs=rngs)


class WithInsertions(nn.Module):
    """A model with layers inserted while it is called; see `add_smoothing`.

    Attributes:
      wrapped_model: The model, whose scope and hence variables this module shares.
      insertions: In the order in which they act on one array.
    """

    wrapped_model: nn.Module
    insertions: tuple[Smoothing | Dropout, ...]

    def setup(self) -> None:
        """Shares the scope of the model."""
        nn.share_scope(self, self.wrapped_model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; arguments and result are the model's.

        `train` is left out where the model has no such argument.
        """
        if kwargs.get("train"):
            self._check_rng()
        if not _takes_train(self.wrapped_model):
            kwargs.pop("train", None)
        try:
            with Call(self, [*args, *kwargs.values()]).watching():
                return self.wrapped_model(*args, **kwargs)
        except flax.errors.ScopeParamShapeError as error:
            raise ValueError(
                "the variables do not fit; if they fit the model alone, an insertion "
                "changed the size of a map that a layer depends on, and padding='same' "
                f"keeps it: {error}"
            ) from error

    def _check_rng(self) -> None:
        rate = max(getattr(insertion, "rate", 0) for insertion in self.insertions)
        if rate and not self.has_rng("dropout") and not self.is_initializing():
            raise layers.without_key(rate)


def _unwrapped(model: nn.Module) -> tuple[nn.Module, tuple[Smoothing | Dropout, ...]]:
    if isinstance(model, WithInsertions):
        return model.wrapped_model, model.insertions
    return model, ()


def _takes_train(model: nn.Module) -> bool:
    parameters = inspect.signature(type(model).__call__).parameters
    return "train" in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
