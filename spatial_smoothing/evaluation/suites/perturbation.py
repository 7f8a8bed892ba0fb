"""Robustness to perturbations: how steady predictions are while an image changes.

Contract of this file: `perturbation` is a suite, as `suites.settings` describes them.
Frames are predicted one after the other by one compiled step, whatever the length of a
sequence.
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
from spatial_smoothing.evaluation.suites.lineup import (
    SIZES,
    Contest,
    contest,
    sizes_for,
)
from spatial_smoothing.evaluation.suites.settings import (
    Setting,
    check_list,
    check_members,
)
from spatial_smoothing.metrics import consistency
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits, sharding

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
      setting: Settings of the evaluation. Its images are perturbed, where there is no
        folder.
      perturbations: Names of perturbations of `data.corruption.perturbations`.
      perturbed_dir: Folder in the layout of CIFAR-10-P; None to make the sequences.
      sizes: Numbers of dropout samples N to score; of the default, those above
        `setting.num_samples` are left out.
      num_images: Number of sequences of each perturbation, drawn at random; 0 for all.

    Returns:
      For each ensemble a row for each perturbation and one, without `perturbation`, of
      their mean. `flip_rate` compares a frame with the frame before or, in sequences of
      noise, with the first, clean one, as Hendrycks & Dietterich define it.
      `consistency`, `cec` and `cec_sum` always compare consecutive frames, as the
      paper's code does.

    Raises:
      ValueError: Unknown names, or data that are absent or damaged.
    """
    check(
        runs,
        setting,
        perturbations=perturbations,
        perturbed_dir=perturbed_dir,
        sizes=sizes,
        num_images=num_images,
    )
    sequences = _sequences(runs, setting, perturbed_dir)
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
    missing = [name for name in perturbations if name not in done]
    scores_of = _compiled(members, setting)
    for name in progress.track(missing, total=len(missing), name="Perturbations"):
        data = sequences.batches(name, numbers, batch_size=setting.batch_size)
        rows = scores_of(data, against_first=PERTURBATIONS[name].is_noise)
        partial.append({"perturbation": name, "rows": rows})
    # Name of the perturbation -> scores of each ensemble, in the order of `about`.
    scores = {found["perturbation"]: found["rows"] for found in partial.rows}
    about = [
        {**row, "data": sequences.data, "num_examples": len(numbers)}
        for row in members.about.values()
    ]
    rows = [
        {**of_ensemble, **_named(sequences, name), **found}
        for name in perturbations
        for of_ensemble, found in zip(about, scores[name], strict=True)
    ]
    for index, of_ensemble in enumerate(about):
        found = [scores[name][index] for name in perturbations]
        rows.append({**of_ensemble, **_means(found)})
    return rows


def check(
    runs: Sequence[Run],
    setting: Setting,
    *,
    perturbations: tuple[str, ...] = NAMES,
    perturbed_dir: str | None = None,
    sizes: tuple[int, ...] = SIZES,
    num_images: int = 1000,
) -> None:
    """Raises ValueError for arguments that `perturbation` cannot use.

    Args:
      runs: One run, or the members of a deep ensemble.
      setting: Settings of the evaluation.
      perturbations: Names of perturbations.
      perturbed_dir: Folder in the layout of CIFAR-10-P; None to make the sequences.
      sizes: Numbers of dropout samples N to score.
      num_images: Number of sequences of each perturbation; 0 for all.
    """
    check_members(runs)
    sizes_for(runs, setting, sizes)
    if num_images < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {num_images}")
    check_list("perturbations", perturbations)
    sequences = _sequences(runs, setting, perturbed_dir)
    for name in perturbations:
        sequences.check(name)


def _means(rows: Sequence[Row]) -> Row:
    """Returns the means of the scores of one ensemble over perturbations."""
    return {score: float(np.mean([row[score] for row in rows])) for score in _SCORES}


def _sequences(
    runs: Sequence[Run], setting: Setting, folder: str | None
) -> PerturbedSet:
    """Returns the sequences: those of a folder, or made of the images."""
    if folder is None:
        return perturbed_sets.generated(setting.dataset)
    return perturbed_sets.read(folder, image_size=runs[0].source.image_size)


def _named(sequences: PerturbedSet, name: str) -> Row:
    """Returns the fields of a row that say which sequences it is of."""
    deviation = sequences.deviations.get(name)
    return {"perturbation": name, **({"deviation": deviation} if deviation else {})}


def _compiled(members: Contest, setting: Setting) -> Callable[..., list[Row]]:
    """Returns a function of sequences to the scores of each ensemble.

    Args:
      members: The R ensembles.
      setting: Settings of the evaluation, for the seed.

    Returns:
      `scores(data, against_first=...)`, to a row for each ensemble, in the order of
      `members.about`. `against_first` is whether flips are counted against the first
      frame, in place of the frame before.
    """
    sums_of_batch = _sums_of_batch(members)

    def scores(data: Sequences, *, against_first: bool) -> list[Row]:
        key = random_bits.key(setting.seed)
        totals = None
        num_pairs = 0
        for index, (frames, mask) in enumerate(data):
            part = sums_of_batch(
                jax.random.fold_in(key, index),
                frames,
                mask,
                against_first=against_first,
            )
            if totals is None:
                totals = part
            else:
                # One batch computes while the next is fetched, and no more.
                totals = jax.tree.map(jnp.add, jax.block_until_ready(totals), part)
            num_pairs += int(mask.sum()) * (len(frames) - 1)
        totals = sharding.gather(totals)
        return [
            {"num_frames": len(frames)}
            | {name: float(totals[name][index] / num_pairs) for name in _SCORES}
            for index in range(len(members.about))
        ]

    return scores


def _sums_of_batch(members: Contest) -> Callable[..., dict[str, jax.Array]]:
    """Returns a function of a batch of sequences to sums over pairs of frames.

    Returns:
      `sums(key, frames, mask, against_first=...)`, to name of the score -> f32[R], the
      sum over sequences in the mask and over frames but the first.
    """

    @jax.jit
    def predict(variables, key, images) -> jax.Array:
        """Log-probabilities f32[R, B, K] of R ensembles, in the order of `about`."""
        mixtures = ensembles.named(members.predict(variables, key, images).mixtures)
        return jnp.stack([mixtures[name].log_probs() for name in members.about])

    def sums(
        key: jax.Array,
        frames: Sequence[np.ndarray],
        mask: np.ndarray,
        *,
        against_first: bool,
    ) -> dict[str, jax.Array]:
        total = first = previous = None
        (mask,) = sharding.split_batches([mask], members.mesh)
        for number, frame in enumerate(sharding.split_batches(frames, members.mesh)):
            frame_key = jax.random.fold_in(key, number)
            current = predict(members.variables, frame_key, frame)
            if number == 0:
                first = current
            else:
                reference = first if against_first else previous
                part = compare_frames(reference, previous, current, mask)
                total = part if total is None else jax.tree.map(jnp.add, total, part)
            previous = current
        return total

    return sums


@jax.jit
def compare_frames(
    reference: jax.Array, previous: jax.Array, current: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
    """Returns how predictions of a frame differ from those of others.

    Args:
      reference: f32[R, B, K], log-probabilities by R ensembles of the frame against
        which flips are counted.
      previous: f32[R, B, K], those of the frame before.
      current: f32[R, B, K], those of the frame.
      mask: bool[B], False for padding.

    Returns:
      Name of the score, one of `_SCORES` -> f32[R], the sum over images in the mask.
    """
    pair = jnp.stack([previous, current], axis=1)
    flips = jax.vmap(consistency.flip_rate)
    values = {
        "flip_rate": flips(jnp.stack([reference, current], axis=1)),
        "consistency": 1 - flips(pair),
        "cec": jax.vmap(consistency.cec)(pair),
        "cec_sum": jax.vmap(consistency.cec_sum)(pair),
    }
    return {
        name: jnp.where(mask[None], value, 0).sum(-1) for name, value in values.items()
    }
