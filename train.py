"""Trains a network: `python train.py --config=configs/shapes.py --workdir=DIR`.

Called again with the same workdir, continues from the last checkpoint.
"""

import functools
import signal

from absl import flags
from ml_collections import config_flags

from spatial_smoothing import (
    cli,
    distributed,
    evaluation,
    locks,
    logs,
    optim,
    processes,
    profiling,
    recipes,
    suites,
    workdirs,
)
from spatial_smoothing.checkpoints import Checkpoints
from spatial_smoothing.data import augment, batches, datasets
from spatial_smoothing.interrupts import Interrupts
from spatial_smoothing.steps import Streams, steps_made
from spatial_smoothing.training import check_batch_size, fit

_CONFIG = config_flags.DEFINE_config_file("config", None, "Such as configs/shapes.py.")
_PROFILE = flags.DEFINE_integer(
    "profile", 0, "Trace so many steps, into profile/ of the workdir.", lower_bound=0
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
flags.mark_flag_as_required("config")


def main() -> int:
    """Trains by the config in the workdir; returns the exit code."""
    config = _CONFIG.value.to_dict()
    members = config["members"]
    with processes.together():
        model, source = recipes.build_model(config), recipes.source(config)
        mesh = distributed.mesh(members=members)
        distributed.check_batch_size(
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


if __name__ == "__main__":
    cli.run(main, several=True)
