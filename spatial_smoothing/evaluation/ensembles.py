"""The scores of ensembles on a data set: every ensemble of some networks at once."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from spatial_smoothing.data import batches
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.ensembles import Ensemble, Predict, named
from spatial_smoothing.evaluation.held_out import compile_held_out
from spatial_smoothing.evaluation.rows import Row, scored_row
from spatial_smoothing.evaluation.scores import compile_scores
from spatial_smoothing.runtime import progress, sharding


def score_ensembles(
    predict: Predict,
    variables: Any,
    dataset: AnyDataset,
    *,
    key: jax.Array,
    num_classes: int,
    batch_size: int,
    mesh: Mesh,
    held_out: AnyDataset | None = None,
    label_sets: np.ndarray | None = None,
    ood: tuple[str, AnyDataset] | None = None,
    num_replicates: int = 1000,
    name: str = "Images",
) -> tuple[dict[Ensemble, Row], float | None]:
    """Scores all ensembles that a function predicts by, from one pass over the data.

    Args:
      predict: `(variables, key, u8[B, H, W, C]) -> Predictions`, whose mixtures are
        `Lineup`s.
      variables: Variables, as `predict` takes them.
      dataset: The images and labels to score.
      key: Key of dropout masks and the bootstrap.
      num_classes: Number of classes K.
      batch_size: Number of images at once, a multiple of the number of devices.
      mesh: The mesh of devices over which batches are split.
      held_out: Images to fit a temperature and prediction sets to for each ensemble;
        None for neither.
      label_sets: bool[R, K] where labels are rows of it, and each image has all labels
        of its row; the most probable of them counts. None for one label.
      ood: Name of another data set and its images, for out-of-distribution detection;
        None for no detection.
      num_replicates: Number of replicates of the bootstrap; 0 for no intervals.
      name: What is shown beside the progress bar.

    Returns:
      Name of each ensemble -> row of its scores; and the mean seconds of a batch, None
      where there was one.
    """
    data_key, held_out_key, ood_key, bootstrap_key = jax.random.split(key, 4)
    scores_of = compile_scores(predict)

    def tracked(dataset: AnyDataset, name: str) -> Iterator[Batch]:
        return progress.track(
            sharding.load_batches(dataset, batch_size, mesh),
            total=batches.num_batches(dataset.num_examples, batch_size),
            name=name,
        )

    temperatures = thresholds = None
    if held_out is not None:
        data = tracked(held_out, "Held-out images")
        fitted = compile_held_out(predict)(variables, held_out_key, data)
        temperatures, thresholds = fitted
    scores = scores_of(
        variables,
        data_key,
        tracked(dataset, name),
        temperatures,
        thresholds,
        label_sets=label_sets,
    )
    foreign = {}
    if ood is not None:
        found = scores_of(variables, ood_key, tracked(ood[1], ood[0]))
        foreign = named(found.ensembles)
    extra = {score: named(values) for score, values in scores.extra.items()}
    temperature_of = {} if temperatures is None else named(temperatures)
    rows = {
        ensemble: scored_row(
            scored,
            num_classes=num_classes,
            key=bootstrap_key,
            extra={
                score: values[ensemble]
                for score, values in extra.items()
                if ensemble in values
            },
            temperature=temperature_of.get(ensemble),
            ood=(ood[0], foreign[ensemble].examples) if foreign else None,
            num_replicates=num_replicates,
        )
        for ensemble, scored in named(scores.ensembles).items()
    }
    return rows, scores.seconds
