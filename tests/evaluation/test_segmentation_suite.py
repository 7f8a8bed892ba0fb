import jax
import numpy as np
import pytest

from spatial_smoothing import models, report
from spatial_smoothing.data.segmentation import sets
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import workdirs

RNG = np.random.default_rng(0)
SHAPE = (3, 4, 12, 16)  # videos, frames, height, width
LABELS = RNG.integers(0, 6, SHAPE).astype(np.uint8)
LABELS[:, :, :2] = 255
IMAGES = RNG.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
DATASET = sets.videos(IMAGES, LABELS)
STILLS = sets.single_images(IMAGES[:, 0], LABELS[:, 0])


def build(name, *, seed=1):
    """A run with random variables that was never trained."""
    model = models.build(name, num_classes=6, width=4, stages=(1, 1))
    images = np.zeros((1, 12, 16, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda leaf: np.float32(np.abs(rng.normal(0, 0.5, leaf.shape))), shapes
    )
    variables["params"] = jax.tree.map(
        lambda leaf: np.float32(rng.normal(0, 0.5, leaf.shape)), variables["params"]
    )
    config = {"model": name, "dataset": "moving_shapes"}
    return workdirs.Run(f"run{seed}", config, model, variables, 0)


def evaluate(run, *, dataset=DATASET, num_replicates=4, **options):
    setting = suites.Setting(
        dataset, num_samples=3, batch_size=8, num_replicates=num_replicates
    )
    given = {"sizes": (1, 3), "speed": False, "num_pictures": 0, **options}
    rows = suites.segmentation([run], setting, **given)
    return {(row["label"], row["num_samples"]): row for row in rows}


@pytest.fixture(scope="module")
def plain():
    return evaluate(build("unet_mcdo"), speed=True, num_pictures=2)


def test_rows_are_the_methods_at_every_number_of_samples(plain):
    names = [(name, n) for name, n in plain if not name.endswith("+ temporal")]
    assert names == [("Mean network", 1), ("MC dropout", 1), ("MC dropout", 3)]
    assert [(f"{name} + temporal", n) for name, n in names] == list(plain)[3:]
    for (name, _), row in plain.items():
        assert row["temporal"] == name.endswith("+ temporal")
        assert (row["num_examples"], row["num_pixels"]) == (12, 12 * 10 * 16)
        assert len(row["class_iou"]) == len(row["class_names"]) == 6
        np.testing.assert_allclose(np.mean(row["class_iou"]), row["iou"])
        low, high = row["intervals"]["nll"]
        assert low <= high
        assert row["frames_per_second"] > 0
        assert {"pavpu", "consistency", "aurc", "adaptive_ece"} <= set(row)
    # An average of predictions is no worse than they are: the NLL is convex.
    single, several = (plain["MC dropout", n] for n in (1, 3))
    assert several["nll"] < single["nll"]


def test_pictures_are_of_the_method_with_most_samples(plain):
    drawn = {key for key, row in plain.items() if "arrays" in row}
    assert drawn == {("MC dropout", 3), ("MC dropout + temporal", 3)}
    arrays = plain["MC dropout", 3]["arrays"]
    assert arrays["images"].shape == (2, 12, 16, 3)
    at = (4, 10)  # of the 12 examples
    flat = IMAGES.reshape(-1, *IMAGES.shape[2:])
    np.testing.assert_array_equal(arrays["images"], flat[list(at)])
    np.testing.assert_array_equal(
        arrays["labels"], LABELS.reshape(-1, 12, 16)[list(at)]
    )
    # The video of the first one has one frame before it.
    np.testing.assert_array_equal(arrays["strip_images"], IMAGES[1, :1])
    assert arrays["strip_classes"].shape == (1, 12, 16)
    assert np.isfinite(arrays["entropy"]).all()
    assert arrays["entropy"].max() <= np.log(6)


def test_windows_of_all_frames_are_the_stream():
    run = build("unet_dnn_smoothing")
    options = {"num_replicates": 0}
    stream = evaluate(run, **options)
    window = evaluate(run, form="window", past=3, **options)
    assert list(stream) == [
        ("Deterministic + smoothing", 1),
        ("Deterministic + smoothing + temporal", 1),
    ]
    for key, row in stream.items():
        for score in ("nll", "accuracy", "consistency", "ece"):
            np.testing.assert_allclose(row[score], window[key][score], rtol=1e-4)
    short = evaluate(run, form="window", past=0, **options)
    both = [short[key]["nll"] for key in stream]
    np.testing.assert_allclose(*both, rtol=1e-6)  # no frames to smooth over


def test_single_images_have_no_temporal_smoothing():
    found = evaluate(build("unet_dnn"), dataset=STILLS, num_replicates=0)
    assert list(found) == [("Deterministic", 1)]
    assert np.isnan(found["Deterministic", 1]["consistency"])


def test_the_report_shows_methods_classes_and_pictures(plain, tmp_path):
    smoothed = {
        (key[0].replace("dropout", "dropout + smoothing"), key[1]): {
            **row,
            "label": row["label"].replace("dropout", "dropout + smoothing"),
        }
        for key, row in plain.items()
        if key[0].startswith("MC")
    }
    rows = [*plain.values(), *smoothed.values()]
    rows = [{"suite": "segmentation", "split": "test", **row} for row in rows]
    page = report.write(tmp_path, rows).read_text()
    for words in (
        "PAvPU",
        "IoU of classes",
        "triangle",
        "MC dropout + smoothing",
        "frames/s",
    ):
        assert words in page
    assert (tmp_path / "segmentation.csv").read_text().count("\n") == 1 + len(rows)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"segmentation.png", "segmentation_frames.png"} <= names
    again, _ = report.read(tmp_path / "metrics.json")
    arrays = plain["MC dropout", 3]["arrays"]
    np.testing.assert_array_equal(again[2]["arrays"]["classes"], arrays["classes"])
    report.print_rows(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "sream"}, "unknown form 'sream'; did you mean 'stream'"),
        ({"past": -1}, "past must be at least 0"),
        ({"past": 3}, "past 3 is for form=window; a stream smooths over all frames"),
        ({"num_pictures": -1}, "num_pictures must be at least 0"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(build("unet_dnn"), **options)


def test_other_networks_and_ensembles_are_refused():
    run = build("unet_dnn")
    setting = suites.Setting(DATASET)
    with pytest.raises(ValueError, match="takes one run, got 2"):
        suites.segmentation([run, run], setting)
    other = run._replace(model=models.build("vgg_dnn_11", num_classes=6))
    with pytest.raises(ValueError, match="needs a network for segmentation"):
        suites.segmentation([other], setting)
