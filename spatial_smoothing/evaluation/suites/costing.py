"""The evaluation of a batch, traced for devices that need not be here."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from spatial_smoothing.evaluation.scores import batch_scores
from spatial_smoothing.evaluation.suites.lineup import SIZES, predictor, sizes_for
from spatial_smoothing.evaluation.suites.settings import Setting, check_members
from spatial_smoothing.runs.workdirs import Run, stacked_shapes
from spatial_smoothing.runtime import random_bits, sharding


def trace_batch(
    runs: Sequence[Run], setting: Setting, *, mesh: Mesh
) -> jax.stages.Traced:
    """Traces what the suite of ensembles compiles for a batch, and computes nothing.

    Args:
      runs: One run, or the members of a deep ensemble, with the shapes of variables.
      setting: Settings of the evaluation, for `num_samples`, `batch_size` and `chunk`,
        which must be given: its default is that of the devices that are here.
      mesh: Devices that the batch is split over. They need not be here.

    Returns:
      The traced function: all samples of all runs for the images of a batch, and their
      scores.

    Raises:
      ValueError: if the runs are not of one network and data set, or the devices cannot
        divide a batch.
    """
    check_members(runs)
    sharding.check_batch_size(setting.batch_size, mesh)
    predict = predictor(runs, setting, sizes_for(runs, setting, SIZES))
    size, batch_size = runs[0].source.image_size, setting.batch_size
    everywhere = sharding.replicated(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((batch_size,), bool),
    }
    key = jax.eval_shape(lambda: random_bits.key(setting.seed))
    return jax.jit(batch_scores(predict)).trace(
        sharding.placed(stacked_shapes(runs), everywhere),
        sharding.placed(key, everywhere),
        0,  # the number of the batch
        sharding.placed(batch, sharding.split(mesh)),
        *(None, None, None),  # no temperatures, thresholds, nor sets of labels
    )
