"""Trains a network: `python train.py --config=shapes --workdir=DIR`.

The same command continues an interrupted training from its last checkpoint. With
`--compile_for=v5e:16x16` in place of a workdir, the training step is compiled for
accelerators that need not be here, and nothing is trained.
"""

import functools
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags
from etils import epath

from spatial_smoothing import evaluation
from spatial_smoothing.cli import (
    compile_for,
    config_fields,
    devices,
    help_texts,
    output,
    start,
)
from spatial_smoothing.cli.training_job import (
    Job,
    assemble,
    describe,
    hyperparameters,
    load,
    resolve,
)
from spatial_smoothing.runs import labels, locks, recipes, workdirs
from spatial_smoothing.runtime import processes, sharding
from spatial_smoothing.runtime.interrupts import Interrupts
from spatial_smoothing.training import logs, profiling
from spatial_smoothing.training.checkpoints import Checkpoints
from spatial_smoothing.training.costing import trace_step
from spatial_smoothing.training.loop import fit
from spatial_smoothing.training.options import Log, Monitoring, Placement, Saving
from spatial_smoothing.training.state import Streams, TrainState, steps_made

FLAGS = start.new_flags()
_PROFILE = flags.DEFINE_integer(
    "profile",
    0,
    "Number of training steps to trace; the trace is written to profile/ in the "
    "workdir. 0 traces none.",
    lower_bound=0,
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, local or in a bucket: checkpoints, logs and evaluations. It is "
    "made if it is not there.",
    flag_values=FLAGS,
)
compile_for.define(FLAGS, what="the training step")
flags.DEFINE_string("output", None, compile_for.OUTPUT_HELP, flag_values=FLAGS)


def main() -> int:
    """Trains by the config in the workdir; returns the exit code."""
    config = config_fields.read(FLAGS["config"].value.to_dict())
    if compile_for.is_asked(FLAGS):
        compile_step(config)
        return 0
    if FLAGS["output"].value:
        raise ValueError("--output is for --compile_for; a run is kept in its workdir")
    config, pretrained = resolve(config, _WORKDIR.value)
    job = load(config, pretrained=pretrained)
    # The workdir is made last, so that bad input leaves nothing behind.
    path = workdirs.claim(_WORKDIR.value, config)
    if processes.is_first():
        print(describe(job))
        if job.initial is not None:
            print(job.initial.text)
    devices.announce()
    with (
        locks.locked(path),
        Interrupts() as interrupts,
        Checkpoints(
            path / "checkpoints", max_to_keep=config["max_to_keep"]
        ) as checkpoints,
    ):
        workdirs.sign(path, initial_weights=job.initial and job.initial.about)
        log = Log()  # of several processes, the first one logs
        if processes.is_first():
            name = labels.label(job.model, num_members=config["members"])
            log = logs.RunLog(path, name=name, hyperparameters=config)

        def should_stop() -> bool:
            return bool(interrupts) or output.is_unread()

        state = train(job, path, checkpoints, log=log, should_stop=should_stop)
    step = steps_made(state)
    if step == job.num_steps and not interrupts:
        if processes.is_first():
            print(f"finished: {job.epochs} epochs, {step} steps, in {path}")
        return 0
    if output.is_unread():
        # stderr may still be read where stdout is not.
        sys.stderr.write(
            f"stopped at step {step}, because nobody reads the output any more; the "
            "same command continues\n"
        )
        return output.CLOSED
    if processes.is_first():
        print(f"stopped at step {step}; the same command continues")
    # Without a signal here, another process has received one.
    return interrupts.exit_code or 128 + signal.SIGTERM


def train(
    job: Job,
    workdir: epath.Path,
    checkpoints: Checkpoints,
    *,
    log: Log,
    should_stop: Callable[[], bool],
) -> TrainState:
    """Trains, or continues to, until the last epoch or until it is told to stop.

    Args:
      job: What to train.
      workdir: The folder of the run; a trace is written there.
      checkpoints: Where to continue from, and to save to.
      log: Where records and progress go.
      should_stop: Tells whether to save and return early.

    Returns:
      The last state; its `step` tells whether all epochs are over.
    """
    config = job.config
    profile = None
    if _PROFILE.value:
        profile = functools.partial(
            profiling.traced, directory=workdir / "profile", num_steps=_PROFILE.value
        )
    return fit(
        job.model,
        job.train,
        hyperparameters(job),
        placement=Placement(job.mesh, config["shard_state"]),
        saving=Saving(
            checkpoints,
            every_epochs=config["checkpoint_every"],
            every_minutes=config["checkpoint_minutes"],
        ),
        monitoring=Monitoring(
            evaluate=_monitor(job, should_stop),
            eval_every=config["eval_every"],
            log=log,
            profile=profile,
        ),
        should_stop=should_stop,
    )


def _monitor(job: Job, should_stop: Callable[[], bool]) -> Callable[..., Any]:
    """Returns what evaluates the splits after an epoch."""
    return evaluation.monitor(
        job.model,
        job.splits,
        prepare=job.normalize,
        key=Streams.of(job.config["seed"]).evaluate,
        batch_size=job.config["eval_batch_size"],
        mesh=job.mesh,
        members=job.config["members"],
        should_stop=should_stop,
    )


def compile_step(config: Mapping[str, Any]) -> None:
    """Compiles a step for the devices in `--compile_for`, and tells what it costs."""
    target = compile_for.target(FLAGS)
    mesh = sharding.mesh(members=config["members"], devices=target.devices)
    job = assemble(config, recipes.shapes(config), mesh)
    traced = trace_step(
        job.model,
        job.train,
        hyperparameters(job),
        Placement(mesh, config["shard_state"]),
    )
    variables = recipes.abstract_variables(
        job.model, image_size=job.train.image_shape[:2]
    )
    images = config["batch_size"] * config["members"]
    compile_for.report(
        FLAGS,
        compile_for.Work(
            what=f"{config['model']} on {config['dataset']}: a training step of "
            f"{images:,} images",
            traced=traced,
            mesh=mesh,
            config=config,
            images=images,
            parameters=config["members"] * compile_for.count(variables["params"]),
            # Where the data set is on the devices, the program is a loop over steps.
            in_loop=job.train.in_memory,
            remedies=compile_for.training_remedies(config, mesh),
        ),
        target,
    )


def fields_help() -> str:
    """Returns the part of `--help` that lists the fields of a config."""
    entries = (
        (f"--config.{name} (default: {default})", text)
        for name, default, text in config_fields.describe()
    )
    return (
        "\n\nFields of a config. The defaults are those of configs/common.py; the "
        "config\nthat --config names has others. None is the network's own value.\n\n"
        f"{help_texts.listing(entries)}"
    )


def run() -> None:
    """Runs the command with the arguments of the process."""
    command = start.Command(
        main,
        FLAGS,
        about=__doc__,
        more_help=fields_help,
        required=("config", "workdir"),
        has_config=True,
        several=True,
        alone_with=compile_for.FLAG,
        ends_unread=False,
    )
    start.run(command)
