"""Measures the time and peak memory of scores, and of the pass that they need.

    python -m benchmarks.scoring [--num_samples=50 --num_images=512 --width=16]

Compares a pass that draws all samples and takes their softmax with one that also scores
the ensembles of every size N = 1, 2, ..., in turns. Then prints the peak memory of
processes that score more samples, and more images.
"""

import argparse
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import memory, timing
from spatial_smoothing import ensembles, evaluation, models
from spatial_smoothing.data import augment, batches

_KEY = jax.random.key(0)


def passes(num_samples: int, num_images: int, *, width: int, batch_size: int):
    """Returns two functions: the pass alone, and the pass with all scores."""
    model = models.build(
        "resnet_mcdo_smoothing_18", num_classes=100, stem="cifar", width=width
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 32, 32, 3)).astype(np.uint8)
    labels = rng.integers(0, 100, num_images).astype(np.int32)
    variables = jax.jit(model.init)(_KEY, jnp.zeros((1, 32, 32, 3)))
    prepare = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
    data = functools.partial(batches.sequential, images, labels, batch_size=batch_size)

    @jax.jit
    def probs(variables, index, images):
        key = jax.random.fold_in(_KEY, index)
        logits = ensembles.mc_logits(
            key, model, variables, prepare(images), num_samples=num_samples
        )
        return jax.nn.softmax(logits)

    def alone() -> None:
        for index, batch in enumerate(data()):
            jax.block_until_ready(probs(variables, index, batch["image"]))

    compiled = evaluation.compile_scores(
        ensembles.predictor(model, prepare=prepare, sizes=range(1, num_samples + 1))
    )

    def scored() -> None:
        scores = compiled(variables, _KEY, data())
        for each in ensembles.named(scores.ensembles).values():
            evaluation.scored_row(each, num_classes=100, key=_KEY, num_replicates=0)

    return alone, scored


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("num_samples", 50),
        ("num_images", 512),
        ("batch_size", 128),
        ("width", 16),
        ("rounds", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory_only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = {"width": args.width, "batch_size": args.batch_size}
    alone, scored = passes(args.num_samples, args.num_images, **size)
    if args.memory_only:
        scored()
        print(memory.peak_bytes() // 2**20)
        return
    (row,) = timing.compare(
        "scoring", "all sizes", {"": scored, "pass": alone}, rounds=args.rounds
    )
    costs = sorted(1 / row["ratio"][key] for key in ("median", "least", "largest"))
    print(
        f"{args.num_images} images, N = 1 to {args.num_samples}, {args.rounds} rounds: "
        f"pass {row['peer_seconds']['median']:.2f} s, with all scores "
        f"{costs[1]:.3f} times that ({costs[0]:.3f} to {costs[2]:.3f})"
    )
    for num_samples, num_images in ((10, 1024), (50, 1024), (10, 4096)):
        command = [sys.executable, "-m", "benchmarks.scoring", "--memory_only"]
        command += [f"--num_samples={num_samples}", f"--num_images={num_images}"]
        command += [f"--width={args.width}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(
            f"peak, N = {num_samples}, {num_images} images: {done.stdout.strip()} MiB"
        )


if __name__ == "__main__":
    main()
