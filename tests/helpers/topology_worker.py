"""What must not depend on the topology: a small run, its evaluation, its members.

As a script it is one of several processes, with two devices each, and leaves its
results in a folder: `topology_worker.py ADDRESS NUM_PROCESSES PROCESS_ID FOLDER`.
"""

import functools
import json
import os
import pathlib
import sys

import compiler_flags

if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = compiler_flags.flags(num_devices=2)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ensembles, evaluation, layers, ops
from spatial_smoothing.data import augment
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.runtime import processes, sharding
from spatial_smoothing.training import input_pipeline, optim, steps
from spatial_smoothing.training.checkpoints import Checkpoints, abstract, fingerprint

SEED, BATCH, STEPS = 1, 8, 10


class Net(nn.Module):
    """What the networks are made of, once each."""

    rate: float = 0.3

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        of = layers.bind(self, train=train, mask=mask, rate=self.rate, dtype=None)
        x = nn.relu(of.norm()(of.conv(8, 3)(images)))
        return layers.Dense(3)(of.dropout()(ops.smooth(x)).mean((1, 2)))


MODEL = Net()
normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)


def dataset():
    """Two batches, the second of which is short."""
    rng = np.random.default_rng(0)
    labels = np.arange(14, dtype=np.int32) % 3
    return Dataset(rng.integers(0, 256, (14, 8, 8, 3)).astype(np.uint8), labels)


def optimizer():
    return optim.sgd(optim.warmup_multistep(0.05, steps_per_epoch=2, milestones=(3,)))


def first_state(mesh, dtype="float32", *, seed=SEED, members=1, sharded=False):
    def init():
        state = steps.init_state(
            MODEL, optimizer(), (8, 8, 3), seed=seed, members=members
        )
        is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
        return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, state)

    return steps.place_state(init, mesh, sharded=sharded)


def train(mesh, dtype="float32", *, seed=SEED, on_device=None, **options):
    """Returns the loss of each step, of each member if several, and the last state."""
    with jax.enable_x64(dtype == "float64"):
        state = first_state(mesh, dtype, seed=seed, **options)
        pipeline = input_pipeline.create(
            dataset(),
            order_keys=steps.Streams.of(seed, members=state.step.size).order,
            seed=seed,
            total_steps=STEPS,
            batch_size=BATCH,
            mesh=mesh,
        )
        advance = steps.compile_steps(
            MODEL,
            optimizer(),
            state,
            pipeline,
            prepare=augment.preparation(normalize, augment=True),
            seed=seed,
            mesh=mesh,
            on_device=on_device,
        )
        sums = []
        for step in range(STEPS):
            state = advance(state, step + 1)
            sums.append(sharding.gather(state.sums.loss))
        sums = np.array(sums)
        sums[1::2] -= sums[::2]  # sums are those of an epoch, of two steps
        return sums, state


def evaluate(mesh):
    """Returns the tally of two ensemble sizes of the first state."""
    predict = ensembles.predictor(MODEL, prepare=normalize, sizes=(1, 2))
    tallies = evaluation.compile_tallies(predict)
    variables = first_state(mesh).variables
    data = sharding.load_batches(dataset(), BATCH, mesh)
    return tallies(variables, jax.random.key(0), data)


def leaves(tree):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def saved_and_restored(folder, state):
    """Whether sharded members come back from disk as they were, where they were."""
    items = {"variables": state.variables}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(STEPS, items, {})
    with Checkpoints(folder / "checkpoints") as checkpoints:
        found = checkpoints.restore(**abstract(items)).items
    return fingerprint(found) == fingerprint(items) and all(
        a.sharding == b.sharding
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(items), strict=True)
    )


def restored_step(folder, state, number):
    """The step that is restored where only the first process sees the last one yet."""
    items = {"variables": state.variables}
    found = []
    for seen in ([1], []):
        with Checkpoints(folder / "seen") as checkpoints:
            if not found:
                checkpoints.save(1, items, {})
                checkpoints.save(2, items, {})
        with Checkpoints(folder / "seen") as checkpoints:
            manager = checkpoints._open()
            if number > 0:
                manager.all_steps = lambda seen=seen: seen
            found.append(checkpoints.restore(**abstract(items)).step)
    return found


def disagreements(number):
    """What processes say of mistakes that one of them makes."""
    found, data = [], dataset() if number == 0 else dataset().subset(np.arange(9))
    for mistake in (
        lambda: processes.check_same({"seed": number, "epochs": 2}),
        lambda: processes.check_same({"train": data.checksum}),
        lambda: float("nan") if number == 0 else float("many"),
    ):
        try:
            with processes.together():
                mistake()
            found.append(None)
        except ValueError as error:
            found.append(str(error))
    return found


def main(address, num_processes, number, folder):
    processes.start(
        coordinator=address, num_processes=int(num_processes), process_id=int(number)
    )
    folder = pathlib.Path(folder)
    sharding._SHARDED_SIZE = 16
    mesh = sharding.mesh()
    losses = {dtype: train(mesh, dtype)[0] for dtype in ("float32", "float64")}
    members, state = train(sharding.mesh(members=2), members=2, sharded=True)
    tally = leaves(evaluate(mesh))
    says = {
        "mistakes": disagreements(int(number)),
        "restored": saved_and_restored(folder, state),
        "restored_step": restored_step(folder, state, int(number)),
        "max": processes.max_over_processes(int(number), 3),
        "any": [processes.any_process(number == "1"), processes.any_process(False)],
        "first": processes.is_first(),
        "shards": sorted(
            {str(x.sharding.spec) for x in jax.tree.leaves(state.variables)}
        ),
    }
    (folder / f"{number}.json").write_text(json.dumps(says))
    np.savez(folder / f"{number}.npz", members=members, **losses, **tally)


if __name__ == "__main__":
    main(*sys.argv[1:])
