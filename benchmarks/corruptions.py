"""Times the corruptions: `python -m benchmarks.corruptions [--num_images=1000]`.

For each corruption: seconds to compile its five severities, and the median, lowest and
highest time of an image over repeated passes through all of them; then the time of all
sets of 10,000 images at this speed.
"""

import argparse
import statistics
import time

import jax

from spatial_smoothing.data import corruptions, shapes

_SETS = 10_000  # images of a set of CIFAR-10-C


def main() -> None:
    """Prints a line for each corruption and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_images", type=int, default=1000, help="of each set")
    parser.add_argument("--batch_size", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--extra", action="store_true", help="also those not in mCE")
    options = parser.parse_args()
    images, _ = shapes.generate("test", size=options.num_images)
    key = jax.random.key(corruptions.SEED)

    def make(name: str, stop: int) -> None:
        for severity in corruptions.SEVERITIES:
            for start in range(0, stop, options.batch_size):
                batch = images[start : start + options.batch_size]
                jax.block_until_ready(corruptions.corrupt(key, batch, name, severity))

    names = corruptions.CORRUPTIONS if options.extra else corruptions.NAMES
    print(
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, microseconds an image"
    )
    print(f"{'':20}{'compile s':>10}{'median':>9}{'lowest':>9}{'highest':>9}")
    compiling = total = 0.0
    for name in names:
        begin = time.perf_counter()
        make(name, options.batch_size)
        compiled = time.perf_counter() - begin
        times = []
        for _ in range(options.repeats):
            begin = time.perf_counter()
            make(name, options.num_images)
            taken = time.perf_counter() - begin
            times.append(taken / options.num_images / len(corruptions.SEVERITIES))
        middle = statistics.median(times)
        compiling += compiled
        total += middle
        shown = "".join(f"{1e6 * t:9.1f}" for t in (middle, min(times), max(times)))
        print(f"{name:20}{compiled:10.1f}{shown}", flush=True)
    sets = len(names) * len(corruptions.SEVERITIES)
    seconds = total * _SETS * len(corruptions.SEVERITIES)
    print(
        f"{sets} sets of {_SETS:,} images: {compiling:.0f} s to compile, "
        f"{seconds:.0f} s to make"
    )


if __name__ == "__main__":
    main()
