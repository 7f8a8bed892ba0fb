"""What feature maps are like, as suites: their variance, and their frequencies.

Contract of this file: `variance` and `fourier` are suites, as `suites.settings`
describes them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spatial_smoothing.analysis import features
from spatial_smoothing.analysis import fourier as spectral
from spatial_smoothing.data import batches, datasets, streams
from spatial_smoothing.data.batches import Batch
from spatial_smoothing.data.datasets import AnyDataset
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import Setting, UnsuitableError
from spatial_smoothing.evaluation.suites.subjects import Subject, subject
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import progress, random_bits, sharding


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
      runs: One run; the suite refuses several.
      setting: Settings of the evaluation. The variance over samples is that over its
        `num_samples`.
      num_images: Number of images of the split, drawn at random; 0 for all.
      num_frames: Number of frames of the moving crops that `streams.moving_crop` makes
        of each image, at least 2; all frames of a sequence share one dropout mask.
      blocks: Whether to analyse every block in place of every stage.
      image: Number of the image, in the split, whose maps are drawn.

    Returns:
      A row for each tap, in the order of the network: `tap`; `sample_variance` and
      `sample_deviation` of networks with dropout; `frame_variance`, `frame_deviation`,
      `space_variance`, `space_deviation`; `relative_variance`, over samples divided by
      over space. Of networks with dropout, "arrays" has maps of the image: `maps`
      f32[2, H, W], the channel of two samples that varies most over samples, and
      `map_variance` f32[H, W].

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    check_variance(
        runs, setting, num_images=num_images, num_frames=num_frames, image=image
    )
    network = subject(runs, setting, suite="variance")
    dataset = datasets.some(setting.dataset, num_images, seed=setting.seed)
    frame_key, sample_key, map_key = jax.random.split(random_bits.key(setting.seed), 3)

    def images(name: str) -> Iterator[Batch]:
        return _tracked(dataset, setting, network, name)

    over_frames = _by_tap(
        network,
        (_sequences(batch, num_frames) for batch in images("Variance over frames")),
        key=frame_key,
        over="frames",
        num_samples=1 if network.stochastic else 0,
        blocks=blocks,
    )
    over_samples = {}
    if network.stochastic:
        over_samples = _by_tap(
            network,
            images("Variance over samples"),
            key=sample_key,
            over="samples",
            num_samples=setting.num_samples,
            blocks=blocks,
        )
    about = {**network.about, "num_examples": dataset.num_examples}
    rows = [
        {**about, "tap": tap, **_variances(frames, over_samples.get(tap))}
        for tap, frames in over_frames.items()
    ]
    if network.stochastic:
        _add_maps(rows, map_key, network, setting, image=image, blocks=blocks)
    return rows


def check_variance(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 512,
    num_frames: int = 8,
    blocks: bool = False,
    image: int = 0,
) -> None:
    """Raises ValueError for arguments that `variance` cannot use.

    Args:
      runs: The run, as the only element.
      setting: Settings of the evaluation.
      num_images: Number of images; 0 for all.
      num_frames: Number of frames of a sequence.
      blocks: Whether to analyse every block, which is always possible.
      image: Number of the image whose maps are drawn.

    Raises:
      UnsuitableError: if a variance over `setting.num_samples` is not defined.
    """
    network = subject(runs, setting, suite="variance")
    _check_num_images(num_images)
    if num_frames < 2:
        raise ValueError(f"num_frames must be at least 2, got {num_frames}")
    size = setting.dataset.num_examples
    if not 0 <= image < size:
        raise ValueError(f"image must be in [0, {size}), got {image}")
    if network.stochastic and setting.num_samples < 2:
        raise UnsuitableError(
            "the suite variance needs num_samples of at least 2 for a network with "
            f"dropout, got {setting.num_samples}"
        )


def _check_num_images(count: int) -> None:
    """Raises ValueError for a number of images that is negative."""
    if count < 0:
        raise ValueError(f"num_images must be at least 0 (all), got {count}")


def _by_tap(
    network: Subject, data: Iterable[Batch], *, key: jax.Array, **options
) -> dict[str, Row]:
    """Returns name of the tap -> row of `features.variance`.

    Args:
      network: The network.
      data: Batches, as `features.variance` takes them.
      key: PRNG key of the dropout masks.
      **options: Options of `features.variance`.
    """
    rows = features.variance(
        network.model,
        network.variables,
        data,
        key=key,
        prepare=network.normalize,
        **options,
    )
    return {row["tap"]: row for row in rows}


def _add_maps(
    rows: Sequence[Row],
    key: jax.Array,
    network: Subject,
    setting: Setting,
    *,
    image: int,
    blocks: bool,
) -> None:
    """Adds to the row of each tap its maps of one image; to the first, the image.

    Args:
      rows: Rows of the taps; "arrays" is added to them.
      key: PRNG key of the dropout masks.
      network: The network, which has dropout.
      setting: Settings of the evaluation, for the images and `num_samples`.
      image: Number of the image in the split.
      blocks: Whether to analyse every block in place of every stage.
    """
    one = setting.dataset.subset(np.array([image]))
    picture = next(one.batches(1))["image"][0]
    with progress.status("Feature maps to draw"):
        maps = features.sample_maps(
            key,
            network.model,
            network.variables,
            network.normalize(jnp.asarray(picture[None])),
            num_samples=setting.num_samples,
            blocks=blocks,
        )
    for row in rows:
        row["arrays"] = _channel(jax.device_get(maps[row["tap"]]))
    rows[0]["arrays"]["image"] = picture


def _variances(frames: Row, samples: Row | None) -> Row:
    """Returns the scores of a tap.

    Args:
      frames: The row of its variance over frames.
      samples: The row of its variance over samples; None without dropout.
    """
    space = frames if samples is None else samples
    row = {
        **_prefixed("sample", samples or {}),
        **_prefixed("frame", frames),
        **{name: space[name] for name in ("space_variance", "space_deviation")},
    }
    if samples is not None:
        # Maps of one position, or that are all zero, have no variance over space.
        row["relative_variance"] = (
            row["sample_variance"] / row["space_variance"]
            if row["space_variance"]
            else math.nan
        )
    return row


def _prefixed(prefix: str, row: Row) -> Row:
    """Returns variance and deviation, where a row has them, under longer names."""
    names = [name for name in ("variance", "deviation") if name in row]
    return {f"{prefix}_{name}": row[name] for name in names}


def _sequences(batch: Batch, num_frames: int) -> Batch:
    """Makes a moving crop of each image of a batch, u8[T, B, H, W, C]."""
    frames = streams.moving_crop(batch["image"], num_frames=num_frames)
    return {**batch, "image": frames}


def _channel(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the channel of the one image that varies most over samples."""
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
      runs: One run; the suite refuses several.
      setting: Settings of the evaluation.
      num_images: Number of images of the split, drawn at random; 0 for all.
      blocks: Whether to analyse every block in place of every stage.
      clip: Whether amplitudes below one count as one, as the paper's figure appears to.

    Returns:
      A row for each tap, in the order of the network: of one dropout sample of each
      image, if the network has dropout, and then without dropout. `tap`, `network`
      ("sample" or "mean"), `low` and `high`, the log amplitudes at frequency zero and
      at the highest on the diagonal, and `high_delta`, their difference; in "arrays"
      those of `analysis.fourier`.

    Raises:
      ValueError: for more than one run, or unusable numbers.
    """
    check_fourier(runs, setting, num_images=num_images)
    network = subject(runs, setting, suite="fourier")
    dataset = datasets.some(setting.dataset, num_images, seed=setting.seed)
    keys = {"mean": None}  # what the rows call a pass -> key of its dropout
    if network.stochastic:
        keys = {"sample": random_bits.key(setting.seed), "mean": None}
    rows = []
    for name, key in keys.items():
        spectra = spectral.spectra(
            network.model,
            network.variables,
            _tracked(dataset, setting, network, "Spectra of feature maps"),
            prepare=network.normalize,
            key=key,
            clip=clip,
            blocks=blocks,
        )
        about = {**network.about, "num_examples": dataset.num_examples}
        rows += [
            {**about, "tap": tap, "network": name, **_of_spectrum(spectrum)}
            for tap, spectrum in spectra.items()
        ]
    return rows


def check_fourier(
    runs: Sequence[Run],
    setting: Setting,
    *,
    num_images: int = 512,
    blocks: bool = False,
    clip: bool = False,
) -> None:
    """Raises ValueError for arguments that `fourier` cannot use.

    Args:
      runs: The run, as the only element.
      setting: Settings of the evaluation.
      num_images: Number of images; 0 for all.
      blocks: Whether to analyse every block, which is always possible.
      clip: Whether amplitudes below one count as one, which is always possible.
    """
    subject(runs, setting, suite="fourier")
    _check_num_images(num_images)


def _of_spectrum(spectrum: np.ndarray) -> Row:
    """Returns the scores of the spectrum of a tap, f[H, H], and its curves."""
    arrays = {
        name.removeprefix("tap/"): value
        for name, value in spectral.arrays({"tap": spectrum}).items()
    }
    _, log_amplitudes = arrays["diagonal"]
    low, high = log_amplitudes[0], log_amplitudes[-1]
    return {
        "low": float(low),
        "high": float(high),
        "high_delta": float(high - low),
        "arrays": arrays,
    }


def _tracked(
    dataset: AnyDataset, setting: Setting, network: Subject, name: str
) -> Iterator[Batch]:
    """Yields the batches of a data set under a progress bar of that name."""
    return progress.track(
        sharding.load_batches(dataset, setting.batch_size, network.mesh),
        total=batches.num_batches(dataset.num_examples, setting.batch_size),
        name=name,
    )
