"""The time that a prediction takes, from the time of a pass that makes many at once."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from spatial_smoothing.ensembles import ApplyFunction, Ensemble, Variables

_REPEATS = 3


class Work(NamedTuple):
    """What a pass does for an image.

    Attributes:
      members: Number of networks.
      samples: Number of samples that each of them draws, over all frames.
      frames: Number of frames that each of them sees.
    """

    members: int
    samples: int
    frames: int = 1


def shared_seconds(
    network: ApplyFunction,
    variables: Variables,
    images: jax.Array,
    *,
    prepare: Callable[[jax.Array], jax.Array] = lambda images: images,
) -> float:
    """Seconds for what all samples of a batch share: the median of some calls.

    Args:
      network: The network.
      variables: Variables of one member.
      images: Raw images of a batch, split over the devices as those of the pass are.
      prepare: Raw images to those that the network takes.
    """
    if network.deterministic_part is None:
        return 0.0
    compiled = jax.jit(
        lambda variables, x: network.deterministic_part(variables, prepare(x))
    )
    jax.block_until_ready(compiled(variables, images))
    taken = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(variables, images))
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def milliseconds(
    name: Ensemble,
    work: Work,
    seconds: float,
    *,
    shared: float,
    batch_size: int,
) -> float:
    """Milliseconds of an image or, in a stream, of a frame, for one ensemble.

    A frame takes `shared` seconds for what its samples share, and the same time for
    every sample.

    Args:
      name: The ensemble.
      work: What the pass did for an image.
      seconds: Seconds of a batch of the pass.
      shared: Seconds of a batch for what all samples of a member share.
      batch_size: Number of images of a batch.
    """
    in_samples = max(seconds / work.members - work.frames * shared, 0.0)
    of_sample = in_samples / work.samples
    batch = len(name.members) * (shared + name.num_samples * of_sample)
    return 1000 * batch / batch_size
