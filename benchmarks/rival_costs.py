"""What a prediction by each rival costs: operations, parameters and memory.

    python -m benchmarks.rival_costs --scale=full

Nothing is trained. The operations of the forward pass of one image are those that the
compiler counts before it optimises; memory is that of a compiled pass of a batch on
this device, without its arguments. MC dropout needs its passes N times, a deep ensemble
those of a single network as often as it has members.
"""

from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks.rival_methods import METHODS, SCALES, Job, Scale
from spatial_smoothing import ensembles
from spatial_smoothing.cli import config_fields, config_files, start
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.evaluation.flops import gflops, pass_flops
from spatial_smoothing.runs import recipes

FLAGS = start.new_flags()
_SCALE = flags.DEFINE_enum(
    "scale", "small", list(SCALES), "Size of the networks.", flag_values=FLAGS
)
_BATCH = flags.DEFINE_integer(
    "batch_size", 128, "Images of a pass.", lower_bound=1, flag_values=FLAGS
)


def costs(job: Job, scale: Scale, *, batch_size: int) -> dict[str, Any]:
    """Returns what a pass of a method costs.

    Args:
      job: A run of the method.
      scale: The size of the comparison.
      batch_size: Number of images of the pass whose memory is told.

    Returns:
      `parameters`, of one network; `gflops` of a prediction, by all members of a deep
      ensemble and by one sample of MC dropout; `megabytes`, 10^6 bytes, that one pass
      needs for its intermediate results; and `predictions` that are averaged.
    """
    fields = job.fields(scale)
    config = config_files.load(scale.config)
    config.update(fields)
    config = config_fields.read(config.to_dict())
    model, size = recipes.build_model(config), recipes.source(config).image_size
    variables = recipes.abstract_variables(model, image_size=size)
    network, members = ensembles.as_apply(model), fields.get("members", 1)
    flops = pass_flops(network, variables, image_shape=(size, size, 3))
    images = jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32)
    function = jax.jit(lambda variables, images: network(variables, images))
    memory = function.lower(variables, images).compile().memory_analysis()
    everybody = Ensemble(tuple(range(members)), 1)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "gflops": None if flops is None else gflops(everybody, flops),
        "megabytes": memory.temp_size_in_bytes / 1e6,
        "predictions": members * (1 if model.ensemble is None else model.ensemble_size),
    }


def table(scale: Scale, *, batch_size: int) -> str:
    """Returns the costs of all methods, as a table in Markdown.

    Args:
      scale: The size of the comparison.
      batch_size: Number of images of a pass.
    """
    lines = [
        "| method | predictions | parameters | GFLOPs, one image | "
        f"MB, {batch_size} images |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        for smoothed in (False, True):
            found = costs(Job(method, smoothed, 0), scale, batch_size=batch_size)
            name = method.replace("_", " ") + (" + smoothing" if smoothed else "")
            operations = found["gflops"]
            lines.append(
                f"| {name} | {found['predictions']} | {found['parameters']:,} | "
                f"{'' if operations is None else f'{operations:.4g}'} | "
                f"{found['megabytes']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    print(table(SCALES[_SCALE.value], batch_size=_BATCH.value))


COMMAND = start.Command(main, FLAGS, about=__doc__)

if __name__ == "__main__":
    start.run(COMMAND)
