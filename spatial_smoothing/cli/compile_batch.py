"""`evaluate.py --compile_for=...`: what the evaluation of a batch costs."""

from spatial_smoothing.cli import compile_for, evaluate_flags, folders
from spatial_smoothing.cli.evaluate_flags import FLAGS
from spatial_smoothing.ensembles.sampling import CHUNK
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runtime import sharding


def compile_batch() -> None:
    """Compiles the evaluation of a batch, and tells what it costs.

    Raises:
      ValueError: for a flag that changes nothing of it, a network for another task, or
        a program that does not fit into the memory of the accelerators.
    """
    useless = {"compare", *evaluate_flags.OF_EVALUATION} - evaluate_flags.OF_COMPILING
    compile_for.check_useless(FLAGS, useless)
    folder_names = folders.split("workdir", evaluate_flags.WORKDIR.value)
    if (task := workdirs.task(folder_names[0])) != "classification":
        raise ValueError(
            f"--{compile_for.FLAG} compiles --suite=ensemble, which is for "
            f"classification; the network is for {task}"
        )
    target = compile_for.target(FLAGS)
    runs = [run for path in folder_names for run in workdirs.describe_members(path)]
    model, config = runs[0].model, runs[0].config
    numbers = evaluate_flags.numbers(task=model.task)
    samples = numbers["num_samples"] if model.has_dropout else 1
    # A chunk has to be given: its default is that of the devices that are here.
    numbers["chunk"] = min(numbers["chunk"] or CHUNK, samples)
    setting = suites.Setting(
        recipes.shapes(config)(config["dataset"], "test"), **numbers
    )
    mesh = sharding.mesh(devices=target.devices)
    traced = suites.trace_batch(runs, setting, mesh=mesh)
    several = f"{len(runs)} members x " if len(runs) > 1 else ""
    parameters = compile_for.count(runs[0].variables["params"])
    remedies = ["a smaller batch_size"]
    if setting.chunk > 1:
        remedies.append(f"a smaller chunk than {setting.chunk}")
    compile_for.report(
        FLAGS,
        compile_for.Work(
            what=f"{config['model']} on {config['dataset']}: {several}{samples} "
            f"samples of {setting.batch_size:,} images",
            traced=traced,
            mesh=mesh,
            config={**config, "num_samples": samples, "chunk": setting.chunk},
            images=setting.batch_size,
            parameters=len(runs) * parameters,
            in_loop=False,
            remedies=remedies,
        ),
        target,
    )
