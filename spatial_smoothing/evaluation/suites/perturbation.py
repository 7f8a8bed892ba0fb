"""Robustness to perturbations: how steady predictions are while an image changes.

Contract of this file: a suite, as those of `suites`. Frames are predicted one after the
other by one compiled step, whatever the length of a sequence.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing import ensembles
from spatial_smoothing.data import datasets
from spatial_smoothing.data.corruption import perturbed_sets
from spatial_smoothing.data.corruption.perturbations import NAMES, PERTURBATIONS
from spatial_smoothing.data.corruption.perturbed_sets import PerturbedSet, Sequences
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.lineup import SIZES, Contest, contest
from spatial_smoothing.evaluation.suites.settings import Setting, check_list
from spatial_smoothing.metrics import consistency
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, sharding

_SCORES = ("consistency", "flip_rate", "cec", "cec_sum")


def perturbation(
    runs: Sequence[Run],
    setting: Setting,
    *,
    perturbations: tuple[str, ...] = NAMES,
    perturbed_dir: str | None = None,
    sizes: tuple[int, ...] = SIZES,
    num_images: int = 1000,
) -> list[Row]:
    """Scores how steady predictions are on sequences as those of CIFAR-10-P.

    Args:
      runs: One run, or the members of a deep ensemble of one network and data set.
      setting: Its images are perturbed, where there is no folder.
      perturbations: Names in `data.perturbations`.
      perturbed_dir: Folder in the layout of CIFAR-10-P; None to make the sequences.
      sizes: Samples N of dropout, as for `ensemble`.
      num_images: Sequences of each perturbation, chosen at random; 0 for all.

    Returns:
      For each ensemble a row for each perturbation and one, without `perturbation`, of
      their mean, with `flip_rate`, to the frame before or, in sequences of noise, to
      the first, clean one, as Hendrycks & Dietterich define it; and as the paper's code
      has them, between consecutive frames always, `consistency`, `cec` and `cec_sum`.

    Raises:
      ValueError: Unknown names, or data that are absent or damaged.
    """
    check_list("perturbations", perturbations)
    sequences = _sequences(runs, setting, perturbed_dir)
    for name in perturbations:
        sequences.check(name)
    numbers = datasets.choose(sequences.num_examples, num_images)
    members = contest(runs, setting, sizes=sizes)
    partial = setting.partial(
        "perturbation",
        runs,
        {
            "images": sequences.data,
            "folder": perturbed_dir,
            "num_images": num_images,
            "sizes": sizes,
        },
    )
    done = {found["perturbation"] for found in partial.rows}
    left = [name for name in perturbations if name not in done]
    scores_of = _compiled(members, setting)
    for name in progress.track(left, total=len(left), name="Perturbations"):
        data = sequences.batches(name, numbers, batch_size=setting.batch_size)
        rows = scores_of(data, against_first=PERTURBATIONS[name].is_noise)
        partial.append({"perturbation": name, "rows": rows})
    scores = {found["perturbation"]: found["rows"] for found in partial.rows}
    about = [
        {**row, "data": sequences.data, "num_examples": len(numbers)}
        for row in members.about.values()
    ]
    rows = [
        {**about[i], **_named(sequences, name), **scores[name][i]}
        for name in perturbations
        for i in range(len(about))
    ]
    means = [
        {
            score: float(np.mean([scores[name][i][score] for name in perturbations]))
            for score in _SCORES
        }
        for i in range(len(about))
    ]
    return rows + [{**a, **mean} for a, mean in zip(about, means, strict=True)]


def _sequences(
    runs: Sequence[Run], setting: Setting, folder: str | None
) -> PerturbedSet:
    if folder is None:
        return perturbed_sets.generated(setting.dataset)
    return perturbed_sets.read(folder, image_size=runs[0].source.image_size)


def _named(sequences: PerturbedSet, name: str) -> Row:
    deviation = sequences.deviations.get(name)
    return {"perturbation": name, **({"deviation": deviation} if deviation else {})}


def _compiled(members: Contest, setting: Setting) -> Callable[..., list[Row]]:
    """Returns `scores(data, against_first=...)`, to those of each ensemble."""

    @jax.jit
    def predict(variables, key, images) -> jax.Array:
        """Log-probabilities f32[R, B, K] of R ensembles, in the order of `about`."""
        mixtures = ensembles.named(members.predict(variables, key, images).mixtures)
        return jnp.stack([mixtures[name].log_probs() for name in members.about])

    @jax.jit
    def compare(reference, previous, current, mask) -> dict[str, jax.Array]:
        """Sums over the sequences, f32[R]."""
        pair = jnp.stack([previous, current], axis=1)
        flips = jax.vmap(consistency.flip_rate)
        values = {
            "flip_rate": flips(jnp.stack([reference, current], axis=1)),
            "consistency": 1 - flips(pair),
            "cec": jax.vmap(consistency.cec)(pair),
            "cec_sum": jax.vmap(consistency.cec_sum)(pair),
        }
        return {
            name: jnp.where(mask[None], value, 0).sum(-1)
            for name, value in values.items()
        }

    def of_batch(key, frames, mask, *, against_first: bool):
        total = first = previous = None
        (mask,) = sharding.split_batches([mask], members.mesh)
        split = sharding.split_batches(frames, members.mesh)
        for number, frame in enumerate(split):
            frame_key = jax.random.fold_in(key, number)
            current = predict(members.variables, frame_key, frame)
            if number:
                reference = first if against_first else previous
                part = compare(reference, previous, current, mask)
                total = part if total is None else jax.tree.map(jnp.add, total, part)
            else:
                first = current
            previous = current
        return total

    def scores(data: Sequences, *, against_first: bool) -> list[Row]:
        key, totals, pairs = jax.random.key(setting.seed), None, 0
        for index, (frames, mask) in enumerate(data):
            part = of_batch(
                jax.random.fold_in(key, index),
                frames,
                mask,
                against_first=against_first,
            )
            # One batch computes while the next is fetched, and no more.
            totals = (
                part
                if totals is None
                else jax.tree.map(jnp.add, jax.block_until_ready(totals), part)
            )
            pairs += int(mask.sum()) * (len(frames) - 1)
        totals = sharding.gather(totals)
        return [
            {"num_frames": len(frames)}
            | {name: float(totals[name][i] / pairs) for name in _SCORES}
            for i in range(len(members.about))
        ]

    return scores
