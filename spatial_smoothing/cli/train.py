"""Trains a network: `python train.py --config=configs/shapes.py --workdir=DIR`.

Called again with the same workdir, continues from the last checkpoint.
"""

import functools
import signal

from absl import flags

from spatial_smoothing import evaluation
from spatial_smoothing.cli import config_files, start
from spatial_smoothing.data import augment, batches, datasets
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import locks, recipes, workdirs
from spatial_smoothing.runtime import processes, sharding
from spatial_smoothing.runtime.interrupts import Interrupts
from spatial_smoothing.training import logs, optim, profiling
from spatial_smoothing.training.checkpoints import Checkpoints
from spatial_smoothing.training.loop import check_batch_size, fit
from spatial_smoothing.training.steps import Streams, steps_made

FLAGS = start.new_flags()
_CONFIG = config_files.define(FLAGS)
_PROFILE = flags.DEFINE_integer(
    "profile",
    0,
    "Trace so many steps, into profile/ of the workdir.",
    lower_bound=0,
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run lives.", required=True, flag_values=FLAGS
)
flags.mark_flag_as_required("config", flag_values=FLAGS)


def main() -> int:
    """Trains by the config in the workdir; returns the exit code."""
    config = _CONFIG.value.to_dict()
    members = config["members"]
    with processes.together():
        model, source = recipes.build_model(config), recipes.source(config)
        mesh = sharding.mesh(members=members)
        sharding.check_batch_size(
            config["eval_batch_size"], mesh, name="eval_batch_size"
        )
        load = recipes.loader(config, download=config["download"])
        data, held_out = datasets.hold_out(
            load(source.name, "train"), fraction=config["val_fraction"]
        )
        check_batch_size(config["batch_size"], data, mesh)
        splits = {"test": load(source.name, "test")}
        if config["val_fraction"]:
            splits = {"val": held_out, **splits}
    everything = {"train": data, **splits}
    processes.check_same({name: d.checksum for name, d in everything.items()})
    normalize = functools.partial(augment.normalize, mean=source.mean, std=source.std)
    prepare = augment.preparation(
        normalize, augment=config["augment"] and not source.augments_on_host
    )
    steps_per_epoch = batches.num_batches(data.num_examples, config["batch_size"])
    schedule = optim.warmup_multistep(
        config["learning_rate"],
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=config["warmup_epochs"],
        milestones=config["milestones"],
        factor=config["factor"],
    )
    epochs = config["warmup_epochs"] + config["epochs"]
    # Last: bad input leaves nothing behind.
    path = workdirs.claim(_WORKDIR.value, config)
    profile = functools.partial(
        profiling.traced, directory=path / "profile", num_steps=_PROFILE.value
    )
    with (
        locks.locked(path),
        Interrupts() as interrupts,
        Checkpoints(
            path / "checkpoints", max_to_keep=config["max_to_keep"]
        ) as checkpoints,
    ):
        workdirs.sign(path)
        state = fit(
            model,
            data,
            prepare=prepare,
            schedule=schedule,
            optimizer=optim.sgd(
                schedule,
                momentum=config["momentum"],
                weight_decay=config["weight_decay"],
            ),
            epochs=epochs,
            batch_size=config["batch_size"],
            seed=config["seed"],
            members=members,
            mesh=mesh,
            shard_state=config["shard_state"],
            checkpoints=checkpoints,
            checkpoint_every=config["checkpoint_every"],
            checkpoint_minutes=config["checkpoint_minutes"],
            evaluate=evaluation.monitor(
                model,
                splits,
                prepare=normalize,
                key=Streams.of(config["seed"]).evaluate,
                batch_size=config["eval_batch_size"],
                mesh=mesh,
                members=members,
                should_stop=lambda: bool(interrupts),
            ),
            eval_every=config["eval_every"],
            log=logs.RunLog(path, name=suites.label(model, num_members=members))
            if processes.is_first()
            else None,
            profile=profile if _PROFILE.value else None,
            should_stop=lambda: bool(interrupts),
        )
    step = steps_made(state)
    if interrupts or step < epochs * steps_per_epoch:
        if processes.is_first():
            print(f"stopped at step {step}; the same command continues")
        return interrupts.exit_code or 128 + signal.SIGTERM  # another process got it
    if processes.is_first():
        print(f"finished: {epochs} epochs, {step} steps, in {path}")
    return 0


def run() -> None:
    """Runs the command with the arguments of the process."""
    start.run(main, FLAGS, about=__doc__, several=True)
