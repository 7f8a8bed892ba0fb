"""The evaluation of temporal smoothing, on sequences made of a data set's images.

Contract of this file: a suite, as those of `suites`. The last frame of each sequence is
the image itself, so that its label holds. Each frame is predicted once, and all methods
share these predictions.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spatial_smoothing import distributed, ensembles, evaluation, logs, metrics
from spatial_smoothing.data import augment, batches, streams
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.evaluation import Row
from spatial_smoothing.metrics import Tally, consistency
from spatial_smoothing.models import zoo
from spatial_smoothing.suites.settings import Setting
from spatial_smoothing.temporal import temporal_log_smooth
from spatial_smoothing.workdirs import Run

METHODS = ("Single frame", "MC dropout", "Temporal smoothing")
# Method -> log-probabilities f32[T, B, K] of the last T frames, T = 1 at least.
Predictions = dict[str, jax.Array]
Predict = Callable[[dict[str, Any], jax.Array, jax.Array], Predictions]
_STEADINESS = {
    "consistency": consistency.consistency,
    "cec": consistency.cec,
    "cec_sum": consistency.cec_sum,
}


def temporal(
    runs: Sequence[Run],
    setting: Setting,
    *,
    past: int = 5,
    decay: float = 0.8,
    num_frames: int = 8,
) -> list[Row]:
    """Scores the last frames of sequences, each alone and with the frames before it.

    "Single frame" is one sample of the last frame, "MC dropout", of networks with
    dropout, the mean of `num_samples` of it, "Temporal smoothing" the weighted mean
    over past + 1 frames of one sample each.

    Args:
      runs: One run.
      setting: Its images are what `streams.moving_crop` makes sequences of.
      past: Frames before the present one that smoothing takes in.
      decay: A frame t frames away weighs exp(-decay |t|).
      num_frames: Length of the sequences, at least past + 1.

    Returns:
      A row for each method: the scores of `evaluation.rows`; `passes`, executions of
      the network for each frame of a stream; and, between the last num_frames - past
      frames, if these are two or more, `consistency`, `cec` and `cec_sum`, which MC
      dropout, evaluated on the last frame alone, has not.

    Raises:
      ValueError: for more than one run, or numbers out of range.
    """
    if len(runs) != 1:
        raise ValueError(
            f"temporal smoothing takes one run, got {len(runs)}; evaluate one by one"
        )
    for name, value, least in (
        ("past", past, 0),
        ("num_frames", num_frames, past + 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    (run,) = runs
    mesh = distributed.mesh()
    distributed.check_batch_size(setting.batch_size, mesh)
    samples = setting.num_samples if run.model.rate > 0 else 0
    predict = _predictor(
        run,
        num_samples=samples,
        chunk=setting.chunk,
        num_frames=num_frames,
        past=past,
        decay=decay,
    )
    data = logs.track(
        distributed.load_batches(setting.dataset, setting.batch_size, mesh),
        total=batches.num_batches(setting.dataset.num_examples, setting.batch_size),
        name="Temporal smoothing",
    )
    totals = _totals(predict, run.variables, jax.random.key(setting.seed), data)
    return [
        _row(run, method, *totals[method], passes=passes)
        for method, passes in zip(METHODS, (1, samples, 1), strict=True)
        if method in totals
    ]


def _predictor(
    run: Run,
    *,
    num_samples: int,
    chunk: int | None,
    num_frames: int,
    past: int,
    decay: float,
) -> Predict:
    """Returns a function of (variables, key, images) to the predictions of all methods.

    Frame t draws from fold_in(key, t); its first sample is the frame's own.
    """
    source = run.source

    def predict(variables, key, images):
        frames = streams.moving_crop(images, num_frames=num_frames)

        def log_probs(frame_number, frame, num_samples):
            logits = ensembles.mc_logits(
                jax.random.fold_in(key, frame_number),
                run.model,
                variables,
                augment.normalize(frame, mean=source.mean, std=source.std),
                num_samples=num_samples,
                chunk=chunk,
            )
            return jax.nn.log_softmax(logits)

        last = log_probs(num_frames - 1, frames[-1], max(num_samples, 1))
        before = jax.lax.map(
            lambda args: log_probs(*args, 1)[0],
            (jnp.arange(num_frames - 1), frames[:-1]),
        )
        single = jnp.concatenate([before, last[:1]])
        predictions = {
            "Single frame": single[past:],
            "Temporal smoothing": temporal_log_smooth(single, past=past, decay=decay),
        }
        if num_samples:
            mean = ensembles.prefix_log_means(last, sizes=(num_samples,))
            predictions["MC dropout"] = mean
        return predictions

    return predict


def _totals(
    predict: Predict, variables: dict[str, Any], key: jax.Array, data: Iterable[Batch]
) -> dict[str, tuple[Tally, dict[str, jax.Array]]]:
    """Returns method -> tally of the last frames, and sums of the steadiness."""

    @jax.jit
    def of_batch(variables, key, index, batch: Batch):
        mask = batch["mask"]

        def of_method(log_probs: jax.Array):
            last = log_probs[-1]
            tally = metrics.tally(jnp.exp(last), batch["label"], mask, log_probs=last)
            several = _STEADINESS if len(log_probs) > 1 else {}
            sums = {
                name: jnp.where(mask, function(log_probs), 0).sum()
                for name, function in several.items()
            }
            return tally, sums

        key = jax.random.fold_in(key, index)
        predictions = predict(variables, key, batch["image"])
        return {method: of_method(value) for method, value in predictions.items()}

    total = None
    for index, batch in enumerate(data):
        part = of_batch(variables, key, index, batch)
        # One batch computes while the next is fetched, and no more.
        total = (
            part
            if total is None
            else jax.tree.map(jnp.add, jax.block_until_ready(total), part)
        )
    if total is None:
        raise ValueError("there is nothing to evaluate: no images")
    return jax.device_get(total)


def _row(
    run: Run, method: str, tally: Tally, sums: dict[str, jax.Array], *, passes: int
) -> Row:
    smoothing = zoo.spec(run.config["model"]).arguments["smoothing"]
    (scores,) = evaluation.rows(
        jax.tree.map(lambda leaf: leaf[None], tally), sizes=(passes,)
    )
    return {
        "label": method + (" + smoothing" if any(smoothing) else ""),
        "model": run.config["model"],
        "run": str(run.path),
        "dataset": f"{run.config['dataset']} sequences",
        **scores,
        "passes": passes,
        **{name: float(value / tally.count) for name, value in sums.items()},
    }
