"""Times the corruptions: `python -m benchmarks.corruptions [--num_images=1000]`.

This prints for each corruption the seconds to compile its five severities, and the
median, lowest and highest time of an image over repeated passes through all of them.
The last line has the time that all sets of 10,000 images take at this speed, and the
processor time of all cores for the same, because other programs may run as well.
"""

import argparse
import statistics
import time

import jax

from spatial_smoothing.data import shapes
from spatial_smoothing.data.corruption import transforms

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
    key = jax.random.key(transforms.SEED)

    def make(name: str, stop: int) -> tuple[float, float]:
        """Makes images of all severities; returns seconds of clock and processor."""
        begin = time.perf_counter(), time.process_time()
        for severity in transforms.SEVERITIES:
            for start in range(0, stop, options.batch_size):
                batch = images[start : start + options.batch_size]
                jax.block_until_ready(transforms.corrupt(key, batch, name, severity))
        return time.perf_counter() - begin[0], time.process_time() - begin[1]

    names = transforms.CORRUPTIONS if options.extra else transforms.NAMES
    print(
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, microseconds an image"
    )
    print(f"{'':20}{'compile s':>10}{'median':>9}{'lowest':>9}{'highest':>9}")
    per_set = 1 / (options.num_images * len(transforms.SEVERITIES))
    compiling, making = [], []
    for name in names:
        compiling.append(make(name, options.batch_size))
        passes = [make(name, options.num_images) for _ in range(options.repeats)]
        times = [seconds * per_set for seconds, _ in passes]
        middle = statistics.median(times)
        making.append((middle, min(used for _, used in passes) * per_set))
        shown = "".join(f"{1e6 * t:9.1f}" for t in (middle, min(times), max(times)))
        print(f"{name:20}{compiling[-1][0]:10.1f}{shown}", flush=True)
    sets = len(names) * len(transforms.SEVERITIES)
    each = _SETS * len(transforms.SEVERITIES)
    for index, clock in enumerate(("by the clock", "of the processor")):
        compiled = sum(times[index] for times in compiling)
        made = each * sum(times[index] for times in making)
        print(
            f"{sets} sets of {_SETS:,} images: {compiled:.0f} s to compile, "
            f"{made:.0f} s to make, {clock}"
        )


if __name__ == "__main__":
    main()
