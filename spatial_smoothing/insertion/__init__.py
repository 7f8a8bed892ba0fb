"""Smoothing and MC dropout in models that exist already.

Contract of this package: importing and using it replaces nothing in Flax for the
process. `inserted` says what is inserted and where, `subsampling` which places count,
`pools` how pools are seen; `linen` and `nnx` do it for the two kinds of models. The two
functions here take either.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import flax.linen as nn

from spatial_smoothing.insertion import linen
from spatial_smoothing.insertion.inserted import SUBSAMPLING, Where

if TYPE_CHECKING:
    from flax import nnx

Model = TypeVar("Model", nn.Module, "nnx.Module")

__all__ = ["SUBSAMPLING", "Where", "add_mc_dropout", "add_smoothing"]


def add_smoothing(
    model: Model,
    *,
    where: Where = SUBSAMPLING,
    temperature: float | None = None,
    squash: str = "tanh",
    taps: Sequence[float] | None = (1, 1),
    padding: str = "full",
) -> Model:
    """Inserts spatial smoothing into a Linen or an NNX model.

    By default before every subsampling layer: strided two-dimensional convolutions, and
    the pools of Flax with strides. The input of the model, that is whatever comes
    before its first convolution, is not smoothed.

    Args:
      model: A `flax.linen.Module` or a `flax.nnx.Module` whose feature maps are
        `[..., H, W, C]`.
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
      A model of the same kind, to use in place of `model`, with the same parameters and
      methods; `model` is unchanged.

    Raises:
      TypeError: for a model of neither kind.
      ValueError: for unusable options, and for places that are not there; Linen models
        are looked at when they are called.

    Example:
      >>> smoothed = add_smoothing(model)
    """
    return _library(model).add_smoothing(
        model,
        where=where,
        temperature=temperature,
        squash=squash,
        taps=taps,
        padding=padding,
    )


def add_mc_dropout(model: Model, rate: float, *, where: Where = SUBSAMPLING) -> Model:
    """Inserts element-wise dropout into a Linen or an NNX model.

    In a Linen model it is live exactly when `apply` is given an rng named "dropout"; in
    an NNX model until `model.eval()` switches it off. It is always live while
    `ensembles.mc_dropout` draws samples. It comes before smoothing of the same array,
    whichever was added first, so that smoothing averages its noise.

    Args:
      model: A `flax.linen.Module` or a `flax.nnx.Module`, with insertions or without.
      rate: Probability to drop a value, in [0, 1).
      where: "subsampling" as in `add_smoothing`; or the modules whose input is to be
        dropped, as patterns of paths or a function of path and module.

    Returns:
      A model of the same kind, to use in place of `model`, with the same parameters and
      methods; `model` is unchanged.

    Raises:
      TypeError: for a model of neither kind.
      ValueError: for an unusable rate, and for places that are not there.

    Example:
      >>> stochastic = add_mc_dropout(add_smoothing(model), 0.1)
    """
    return _library(model).add_mc_dropout(model, rate, where=where)


def _library(model: object):
    """Returns the module of this package that is for a model."""
    if isinstance(model, nn.Module):
        return linen
    # Imported only where it is needed: NNX takes a quarter of a second.
    from flax import nnx as flax_nnx

    from spatial_smoothing.insertion import nnx

    if isinstance(model, flax_nnx.Module):
        return nnx
    raise TypeError(
        "model must be a flax.linen.Module or a flax.nnx.Module, "
        f"got {type(model).__name__}"
    )
