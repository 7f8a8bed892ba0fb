"""What the ensembles of some networks predict: all of them from one pass, by name.

Contract of this file: M networks with S increasing numbers of dropout samples make
many ensembles. A `Lineup` holds a value for each of them, whatever the value is: a
`Mixture`, a tally, scores. Which value belongs to which ensemble is told by an
`Ensemble`, never by a position.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.ensembles.apply import Variables, as_apply
from spatial_smoothing.ensembles.members import map_members
from spatial_smoothing.ensembles.mixtures import Mixture, mc_mixtures, of_pass, single


class Ensemble(NamedTuple):
    """Names one of the ensembles that M networks make.

    Attributes:
      members: Numbers of the networks that take part, in [0, M).
      num_samples: Number of predictions of each of them that are averaged.
      together: Whether the ensemble is a deep one, even if it has one member so far.
      temporal: Whether the predictions are smoothed over frames.
    """

    members: tuple[int, ...]
    num_samples: int
    together: bool = False
    temporal: bool = False


@flax.struct.dataclass
class Lineup:
    """A value for each of the ensembles that M networks make.

    Attributes:
      each: Values of every network alone, at every size: leading axes [M, S].
      deep: Values of all M networks together, at every size: leading axis [S]. None
        where there is one network.
      growing: Values of one sample of each of the first 1, ..., M - 1 networks
        together: leading axis [M - 1]. None where there is one network.
      sizes: Increasing numbers of samples N, S of them.
      temporal: Whether the predictions are smoothed over frames.
    """

    each: Any
    deep: Any
    growing: Any
    sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)
    temporal: bool = flax.struct.field(pytree_node=False, default=False)

    def items(self) -> Iterator[tuple[Ensemble, Any]]:
        """Yields the name and the value of each ensemble, deep ensembles first."""
        everybody = tuple(range(jax.tree.leaves(self.each)[0].shape[0]))
        name = functools.partial(Ensemble, temporal=self.temporal)
        if len(everybody) > 1:
            for index in everybody[:-1]:
                members = everybody[: index + 1]
                yield name(members, 1, together=True), _at(self.growing, index)
            for index, size in enumerate(self.sizes):
                yield name(everybody, size, together=True), _at(self.deep, index)
        for member in everybody:
            for index, size in enumerate(self.sizes):
                yield name((member,), size), _at(self.each, member, index)

    def at_sizes(self, sizes: Sequence[int]) -> "Lineup":
        """Returns the line-up of some of the sizes only.

        Args:
          sizes: Increasing numbers of samples, each one of `self.sizes`.
        """
        chosen = jnp.asarray([self.sizes.index(size) for size in sizes])
        take = lambda tree, axis: jax.tree.map(
            lambda leaf: jnp.take(leaf, chosen, axis), tree
        )
        return self.replace(
            each=take(self.each, 1), deep=take(self.deep, 0), sizes=tuple(sizes)
        )


class Predictions(NamedTuple):
    """What is predicted for a batch of B images.

    Attributes:
      mixtures: A pytree of `Mixture`s, such as a `Lineup`. Each may have leading axes.
      extra: Name -> extra scores of each image: a pytree like `mixtures`, or like a
        part of it, of f32[..., B].
    """

    mixtures: Any
    extra: Mapping[str, Any] = {}


# (variables, key, u8[B, H, W, C]) -> Predictions. This is what passes over data take.
Predict = Callable[[Any, jax.Array, jax.Array], Predictions]


def predictor(
    model: Any,
    *,
    prepare: Callable[[jax.Array], jax.Array] = lambda images: images,
    sizes: Sequence[int] = (1,),
    num_members: int = 1,
    dropout: bool = True,
    chunk: int | None = None,
    of_sample: Callable[[jax.Array], Mixture] = single,
) -> Predict:
    """Returns the function that predicts by all ensembles of M networks at once.

    Args:
      model: The network that all members share; see `as_apply`.
      prepare: Raw images to those that the network takes.
      sizes: Numbers of samples N of each member, increasing from 1.
      num_members: Number of networks M; if more than one, the variables given to the
        result are stacked along a leading axis of M.
      dropout: Whether to draw samples; if not, `sizes` must be (1,), and a prediction
        is one pass without dropout.
      chunk: Number of samples computed at once; see `mc_logits`.
      of_sample: `mixtures.single`, or `mixtures.single_with_logits` to sum up logits,
        too.

    Returns:
      A function to `Predictions`, whose `mixtures` are a `Lineup`. Member number m
      draws from `fold_in(key, m)`.
    """
    network = as_apply(model)
    sizes = tuple(sizes)

    def of_member(
        variables: Variables, key: jax.Array, index: jax.Array, images: jax.Array
    ) -> Mixture:
        """Mixtures of one member, with a leading axis of sizes."""
        if not dropout:
            logits = network.apply(variables, images, None)
            mixture = of_pass(network, of_sample=of_sample)(logits)
            return jax.tree.map(lambda leaf: leaf[None], mixture)
        key = jax.random.fold_in(key, index)
        return mc_mixtures(
            key,
            network,
            variables,
            images,
            sizes=sizes,
            chunk=chunk,
            of_sample=of_sample,
        )

    def predict(variables: Variables, key: jax.Array, images: jax.Array) -> Predictions:
        prepared = prepare(images)
        if num_members == 1:
            alone = of_member(variables, key, 0, prepared)
            each = jax.tree.map(lambda leaf: leaf[None], alone)
            return Predictions(Lineup(each, None, None, sizes))
        each = map_members(
            lambda variables, index: of_member(variables, key, index, prepared),
            variables,
        )
        return Predictions(Lineup(each, each.sum(), _growing(each), sizes))

    return predict


def _growing(each: Mixture) -> Mixture:
    """Mixtures of one sample of the first 1, ..., M - 1 members, given [M, S]."""
    first = [
        jax.tree.map(lambda leaf, m=count: leaf[:m, 0], each).sum()
        for count in range(1, len(each.size))
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *first)


def map_mixtures(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Applies a function to every `Mixture` of a pytree.

    Args:
      function: Takes a mixture without leading axes, and what `others` have for it. It
        is vectorised over the axes that a mixture has, so that its results have them
        too.
      tree: A pytree of `Mixture`s.
      *others: Pytrees like it, with a pytree in the place of each mixture, whose arrays
        have the leading axes of the mixture.
    """

    def of_mixture(mixture: Mixture, *rest: Any) -> Any:
        mapped = function
        for _ in range(mixture.size.ndim):
            mapped = jax.vmap(mapped)
        return mapped(mixture, *rest)

    is_leaf = lambda x: isinstance(x, Mixture)
    return jax.tree.map(of_mixture, tree, *others, is_leaf=is_leaf)


def named(tree: Any) -> dict[Ensemble, Any]:
    """Returns the values of all `Lineup`s of a pytree, by the name of the ensemble."""
    lineups = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Lineup))
    return {name: value for lineup in lineups for name, value in lineup.items()}


def names_of(
    sizes: Sequence[int], *, num_members: int = 1, temporal: bool = False
) -> list[Ensemble]:
    """Returns the names of the ensembles of a `Lineup`, in its order.

    Args:
      sizes: Increasing numbers of samples N.
      num_members: Number of networks M.
      temporal: Whether the predictions are smoothed over frames.
    """
    blank = functools.partial(np.zeros, dtype=bool)
    lineup = Lineup(
        each=blank((num_members, len(sizes))),
        deep=blank(len(sizes)),
        growing=blank(num_members - 1),
        sizes=tuple(sizes),
        temporal=temporal,
    )
    return [name for name, _ in lineup.items()]


def _at(tree: Any, *index: int) -> Any:
    """Takes one entry of the leading axes of every array."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
