"""What feature maps are like, as suites: their variance, and their frequencies."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.analysis import features
from spatial_smoothing.analysis import fourier as spectral
from spatial_smoothing.data import batches, datasets, streams
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import Setting
from spatial_smoothing.evaluation.suites.subjects import Subject, subject
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, sharding


def variance(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 512,
    num_frames: int = 8,
    blocks: bool = False,
    image: int = 0,
) -> list[Row]:
    """Variance of feature maps over dropout samples, over frames and over space.

    Args:
      runs: One run.
      setting: Its `num_samples` are those of the variance over samples.
      num_images: Of the split, drawn at random; 0 for all.
      num_frames: Of the moving crops (`streams.moving_crop`); all frames of a sequence
        share one dropout mask.
      blocks: Whether to look at every block in place of stages.
      image: Number of the image, in the split, whose maps are drawn.

    Returns:
      A row for each tap, in the order of the network: `tap`; `sample_variance` and
      `sample_deviation` of networks with dropout; `frame_variance`, `frame_deviation`,
      `space_variance`, `space_deviation`; `relative_variance`, over samples divided by
      over space. Of networks with dropout, "arrays" has maps
      of the image: `maps` f32[2, H, W], the channel of two samples that varies most
      over samples, and `map_variance` f32[H, W].

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    size = setting.dataset.num_examples
    if not 0 <= image < size:
        raise ValueError(f"image must be in [0, {size}), got {image}")
    network = subject(runs, setting, suite="variance")
    dataset = datasets.some(setting.dataset, num_images, seed=setting.seed)
    keys = jax.random.split(jax.random.key(setting.seed), 3)

    def rows(key: jax.Array, name: str, **options) -> dict[str, Row]:
        data = _tracked(dataset, setting, network, name)
        if options["over"] == "frames":
            data = (_sequences(batch, num_frames) for batch in data)
        found = features.variance(
            network.model,
            network.variables,
            data,
            key=key,
            prepare=network.normalize,
            blocks=blocks,
            **options,
        )
        return {row["tap"]: row for row in found}

    frames = rows(
        keys[0], "Variance over frames", over="frames", num_samples=network.stochastic
    )
    picture = next(setting.dataset.subset(np.array([image])).batches(1))["image"][0]
    samples, maps = {}, {}
    if network.stochastic:
        number = setting.num_samples
        samples = rows(
            keys[1], "Variance over samples", over="samples", num_samples=number
        )
        maps = features.sample_maps(
            keys[2],
            network.model,
            network.variables,
            network.normalize(jnp.asarray(picture[None])),
            num_samples=number,
            blocks=blocks,
        )
    about = {**network.about, "num_examples": dataset.num_examples}
    found = [
        {**about, "tap": tap, **_variances(frame, samples.get(tap))}
        for tap, frame in frames.items()
    ]
    for row in found:
        if row["tap"] in maps:
            row["arrays"] = _channel(jax.device_get(maps[row["tap"]]))
    if maps:
        found[0]["arrays"]["image"] = picture
    return found


def _variances(frame: Row, sample: Row | None) -> Row:
    """The scores of a tap: over frames, samples where there are any, and space."""
    space = frame if sample is None else sample
    row = {
        **_of("sample", sample or {}),
        **_of("frame", frame),
        **{s: space[s] for s in ("space_variance", "space_deviation")},
    }
    if sample is not None:
        row["relative_variance"] = (
            row["sample_variance"] / row["space_variance"]
            if row["space_variance"]
            else math.nan
        )
    return row


def _of(kind: str, row: Row) -> Row:
    return {f"{kind}_{s}": row[s] for s in ("variance", "deviation") if s in row}


def _sequences(batch: Batch, num_frames: int) -> Batch:
    frames = streams.moving_crop(batch["image"], num_frames=num_frames)
    return {**batch, "image": frames}


def _channel(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The channel of the one image that varies most over samples."""
    samples, variance = maps["samples"][:, 0], maps["variance"][0]
    channel = variance.mean((0, 1)).argmax()
    return {"maps": samples[..., channel], "map_variance": variance[..., channel]}


def fourier(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 512,
    blocks: bool = False,
    clip: bool = False,
) -> list[Row]:
    """Log amplitudes of the frequencies of feature maps.

    Args:
      runs: One run.
      setting: See there.
      num_images: Of the split, drawn at random; 0 for all.
      blocks: Whether to look at every block in place of stages.
      clip: Whether amplitudes below one count as one, as the paper's figure appears to.

    Returns:
      A row for each tap, in the order of the network: of one dropout sample of each
      image and then without dropout. `tap`, `network` ("sample" or "mean"), `low` and
      `high`, the log amplitudes at frequency zero and at the highest on the diagonal,
      and `high_delta`, their difference; in "arrays" those of `analysis.fourier`.

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    network = subject(runs, setting, suite="fourier")
    dataset = datasets.some(setting.dataset, num_images, seed=setting.seed)
    key = jax.random.key(setting.seed)
    found = []
    for live in [key, None] if network.stochastic else [None]:
        spectra = spectral.spectra(
            network.model,
            network.variables,
            _tracked(dataset, setting, network, "Spectra of feature maps"),
            prepare=network.normalize,
            key=live,
            clip=clip,
            blocks=blocks,
        )
        for tap, spectrum in spectra.items():
            arrays = {
                name.removeprefix(f"{tap}/"): value
                for name, value in spectral.arrays({tap: spectrum}).items()
            }
            low, *_, high = arrays["diagonal"][1]
            found.append(
                {
                    **network.about,
                    "num_examples": dataset.num_examples,
                    "tap": tap,
                    "network": "mean" if live is None else "sample",
                    "low": float(low),
                    "high": float(high),
                    "high_delta": float(high - low),
                    "arrays": arrays,
                }
            )
    return found


def _tracked(
    dataset: AnyDataset, setting: Setting, network: Subject, name: str
) -> Iterator[Any]:
    """Batches of a data set under a progress bar."""
    return progress.track(
        sharding.load_batches(dataset, setting.batch_size, network.mesh),
        total=batches.num_batches(dataset.num_examples, setting.batch_size),
        name=name,
    )
