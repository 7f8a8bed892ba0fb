"""The suites that analyse a network, on a network that was never trained."""

import dataclasses
import functools
import json
import math

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import models, report
from spatial_smoothing.data import datasets
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.evaluation import suites
from spatial_smoothing.evaluation.suites import partial, subjects
from spatial_smoothing.runs import workdirs

RNG = np.random.default_rng(0)


def dataset(count):
    images = RNG.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return Dataset(images, RNG.integers(0, 10, count).astype(np.int32))


TEST, TRAIN = dataset(20), dataset(30)


@functools.cache
def run(name="resnet_mcdo_smoothing_18", **options):
    model = models.build(name, num_classes=10, width=4, stages=(1,), **options)
    variables = golden.variables(model, jnp.zeros((1, 8, 8, 3)))
    config = {"model": name, "dataset": "shapes", "weight_decay": 5e-4}
    config["val_fraction"] = 0.2
    path = workdirs.epath.Path("runs/a")
    return workdirs.Run(path, config, model, variables, 3)


@pytest.fixture
def setting(tmp_path):
    load = lambda name, split: {"train": TRAIN}[split]
    return suites.Setting(TEST, load=load, output=tmp_path, num_samples=3, batch_size=8)


def check(rows, setting, suite):
    """A report can be made of them."""
    rows = [{"suite": suite, "split": "test", **row} for row in rows]
    page = report.write(setting.output, rows, provenance={}, title="A title")
    assert page.exists()
    assert len({row["label"] for row in rows}) == 1


def forge(setting, suite, row):
    """Writes a row as if an evaluation that was killed had left it."""
    path = setting.output / f"{suite}.partial.jsonl"
    about = path.read_text().splitlines()[0]
    path.write_text(about + "\n")
    partial.Partial(setting.output, suite, json.loads(about)).append(row)


def test_landscape_continues_and_sums_up(setting):
    landscape = functools.partial(
        suites.landscape, [run()], setting, num_images=9, grid_size=3, extent=0.5
    )
    (row,) = landscape()
    arrays = row["arrays"]
    np.testing.assert_allclose(arrays["a"], [-0.5, 0, 0.5])
    assert row["nll"] == arrays["nll"][1, 1]
    others = np.delete(arrays["nll"].ravel(), 4)
    assert row["border_nll"] == pytest.approx(others.mean())
    assert (row["split"], row["num_examples"]) == ("train", 9)
    assert row["augmented"] is True
    check([row], setting, "landscape")
    point = {"a": 0.5, "b": -0.5} | {
        name: 7.0 for name in arrays if name not in ("a", "b")
    }
    forge(setting, "landscape", point)
    (again,) = landscape()
    changed = again["arrays"]["nll"] != arrays["nll"]
    np.testing.assert_array_equal(np.argwhere(changed), [[0, 2]])
    assert again["arrays"]["nll"][0, 2] == 7


def test_points_of_another_evaluation_are_not_taken_over(setting):
    about = lambda setting, run: setting.partial("landscape", [run], {}).rows
    first = setting.partial("landscape", [run()], {})
    first.append({"nll": 7.0})
    assert about(setting, run()) == [{"nll": 7.0}]
    moved = run()._replace(config={**run().config, "data_dir": "elsewhere"})
    assert about(setting, moved) == [{"nll": 7.0}]
    other = run()._replace(config={**run().config, "seed": 1})
    weights = jax.tree.map(lambda leaf: leaf + 1, run().variables)
    again = run()._replace(variables=weights)
    images = dataclasses.replace(setting, dataset=dataset(20))
    split = dataclasses.replace(setting, split="train")
    for now, network in (
        *((setting, network) for network in (other, again)),
        *((other_setting, run()) for other_setting in (images, split)),
    ):
        setting.partial("landscape", [run()], {}).append({"nll": 7.0})
        assert about(now, network) == []


def test_images_are_augmented_where_training_did(setting):
    plain = run()._replace(config={**run().config, "augment": False})
    for one, expected in ((run(), True), (plain, False)):
        subject = subjects.subject([one], setting, suite="x")
        assert subject.augments is expected
        images = jnp.arange(8 * 8 * 8 * 3, dtype=jnp.uint8).reshape(8, 8, 8, 3)
        prepared = subject.prepare(jax.random.key(0), images)
        normalised = subject.normalize(images)
        assert bool((prepared == normalised).all()) is not expected


def test_landscape_can_estimate_statistics_anew(setting):
    rows = [
        suites.landscape([run()], setting, num_images=8, grid_size=3, recalibration=n)
        for n in (0, 16)
    ]
    assert rows[0][0]["nll"] != pytest.approx(rows[1][0]["nll"], rel=1e-3)


def test_hessian_continues_and_sums_up(setting):
    hessian = functools.partial(
        suites.hessian,
        [run()],
        setting,
        num_batches=2,
        num_eigenvalues=2,
        density_batches=1,
        num_probes=2,
        num_steps=5,
    )
    (row,) = hessian()
    arrays = row["arrays"]
    assert row["augmented"] is True
    assert arrays["eigenvalues"].shape == (2, 2)
    assert arrays["nodes"].shape == arrays["weights"].shape == (10,)
    assert arrays["weights"].sum() == pytest.approx(1)
    assert row["top_mean"] == pytest.approx(arrays["eigenvalues"][:, 0].mean())
    assert row["trace"] == pytest.approx(
        row["num_parameters"] * (arrays["nodes"] * arrays["weights"]).sum()
    )
    for name in ("top_", "density_"):
        points = arrays[f"{name}points"]
        values = arrays["density" if name == "density_" else "top_density"]
        assert np.trapezoid(values, points) == pytest.approx(1, rel=1e-2)
    check([row], setting, "hessian")
    forge(setting, "hessian", {"batch": 1, "eigenvalues": [7.0, 6.0], "products": 9})
    (again,) = hessian()
    found = again["arrays"]["eigenvalues"]
    np.testing.assert_array_equal(found[0], arrays["eigenvalues"][0])
    np.testing.assert_array_equal(found[1], [7, 6])
    np.testing.assert_array_equal(again["arrays"]["nodes"], arrays["nodes"])


def test_networks_that_diverged_have_no_hessian(setting):
    lost = jax.tree.map(lambda leaf: leaf * np.nan, run().variables)
    lost = run()._replace(variables=lost)
    message = "suite hessian cannot evaluate runs/a: product 1 of .* may have diverged"
    with pytest.raises(ValueError, match=message):
        suites.hessian([lost], setting, num_batches=1, density_batches=0)


def test_rows_of_the_hessian_count_the_batches_that_there_are(setting):
    (row,) = suites.hessian(
        [run()], setting, num_batches=5, density_batches=9, num_steps=2
    )
    assert len(row["arrays"]["eigenvalues"]) == row["num_batches"] == 3
    assert row["density_batches"] == 3


def test_variance_of_each_part(setting):
    rows = suites.variance([run()], setting, num_images=10, num_frames=3, image=2)
    assert [row["tap"] for row in rows] == ["stem", "stage1", "smooth1"]
    assert rows[0]["sample_variance"] == 0
    assert 0 < rows[2]["sample_variance"] < rows[1]["sample_variance"]
    for row in rows:
        assert row["frame_variance"] > 0
        assert row["relative_variance"] == pytest.approx(
            row["sample_variance"] / row["space_variance"]
        )
        maps = row["arrays"]["maps"]
        assert maps.shape == (2, *row["arrays"]["map_variance"].shape)
    np.testing.assert_array_equal(rows[0]["arrays"]["image"], TEST.images[2])
    check(rows, setting, "variance")


def test_networks_without_dropout_vary_over_frames_and_space(setting):
    deterministic = run("resnet_dnn_18")
    rows = suites.variance([deterministic], setting, num_images=8, num_frames=2)
    assert all("sample_variance" not in row for row in rows)
    assert all(row["space_variance"] > 0 for row in rows)
    check(rows, setting, "variance")


def test_frequencies_of_a_sample_and_of_the_mean_network(setting):
    rows = suites.fourier([run()], setting, num_images=10)
    names = [(row["network"], row["tap"]) for row in rows]
    taps = ("stem", "stage1", "smooth1")
    assert names == [(n, tap) for n in ("sample", "mean") for tap in taps]
    for row in rows:
        values = row["arrays"]["diagonal"][1]
        assert row["high_delta"] == pytest.approx(values[-1] - values[0])
    by_name = {name: row["high_delta"] for name, row in zip(names, rows, strict=True)}
    assert by_name["sample", "smooth1"] < by_name["sample", "stage1"]
    check(rows, setting, "fourier")


def test_noise_of_one_frequency_continues(setting):
    frequency = functools.partial(
        suites.frequency,
        [run()],
        setting,
        num_images=0,
        frequencies=(0.25, 0.5),
        half_width=0.6,
    )
    rows = frequency()
    assert [row["frequency"] for row in rows] == [None, 0.25, 0.5]
    assert {row["num_examples"] for row in rows} == {20}
    assert {row["num_samples"] for row in rows} == {3}
    np.testing.assert_allclose(rows[0]["arrays"]["frequency"], [0.25, 0.5])
    assert "epsilon" not in rows[0]["arrays"]
    assert {(row["epsilon"], row["half_width"]) for row in rows} == {(0.7, 0.6)}
    check(rows, setting, "frequency")
    done = {**rows[0], "frequency": 0.25 * math.pi, "nll": 7.0}
    done = {key: value for key, value in done.items() if key != "arrays"}
    forge(setting, "frequency", done)
    again = {row["frequency"]: row["nll"] for row in frequency()}
    assert again == {row["frequency"]: row["nll"] for row in rows} | {0.25: 7.0}
    several = run("resnet_dnn_18", ensemble="mimo", ensemble_size=2)
    rows = suites.frequency([several], setting, frequencies=(0.5,), half_width=0.6)
    assert {row["num_samples"] for row in rows} == {2}


def test_images_are_those_trained_on_in_random_order(setting):
    kept, _ = datasets.hold_out(TRAIN, fraction=0.2)
    draw = lambda count, seed: subjects.training_images(
        [run()], setting, count, seed=seed
    )
    for count in (5, 0):
        images, labels = draw(count, 1)
        np.testing.assert_array_equal(images, draw(count, 1).images)
        index = [int(np.argmax((kept.images == i).all((1, 2, 3)))) for i in images]
        np.testing.assert_array_equal(kept.images[index], images)
        np.testing.assert_array_equal(kept.labels[index], labels)
        assert len(set(index)) == (count or 24)
        assert index != sorted(index)
        assert not np.array_equal(images, draw(count, 2).images)


def test_analyses_compute_in_float32(setting):
    narrow = run(dtype=jnp.bfloat16)
    assert subjects.subject([narrow], setting, suite="x").model.dtype is None


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        ("landscape", {"grid_size": 4}, "grid_size must be odd and at least 3, got 4"),
        ("landscape", {"extent": 0.0}, r"extent must be positive and finite, got 0\.0"),
        (
            "landscape",
            {"num_images": -1},
            r"num_images must be at least 0 \(all\), got",
        ),
        ("landscape", {"normalization": "filtre"}, "did you mean 'filter'"),
        ("landscape", {"recalibration": -1}, "recalibration must be at least 0, got"),
        ("hessian", {"num_batches": 0}, "num_batches must be at least 1, got 0"),
        ("hessian", {"num_eigenvalues": 0}, r"num_eigenvalues must be in \[1, "),
        ("hessian", {"method": "lancsoz"}, "did you mean 'lanczos'"),
        ("variance", {"image": 20}, r"image must be in \[0, 20\), got 20"),
        ("variance", {"num_frames": 1}, "num_frames must be at least 2, got 1"),
        ("variance", {"num_images": -1}, r"num_images must be at least 0 \(all\), got"),
        ("fourier", {"num_images": -1}, r"num_images must be at least 0 \(all\), got"),
        (
            "frequency",
            {"frequencies": (1.5,)},
            r"in \(0, 1\], in units of pi, got 1\.5",
        ),
        ("frequency", {"frequencies": ()}, "frequencies must have at least one value"),
        ("frequency", {"frequencies": (0.5, 0.5)}, r"once, got 0\.5 more than once"),
        ("ensemble", {"temporal": (7,)}, "temporal must be some of the sizes 1,2,3"),
        ("ensemble", {"past": 3}, "are for temporal smoothing; give temporal=1 too"),
        ("ensemble", {"mc_stages": "9"}, "mc_stages"),
        ("corruption", {"corruptions": ("fgo",)}, "did you mean 'fog'"),
        ("corruption", {"severities": (6,)}, "unknown severity '6'; choices: 1"),
        ("corruption", {"normalizer": "alexnet"}, "no scores of AlexNet for shapes"),
        ("corruption", {"sizes": (9,)}, "sizes must be between 1 and num_samples, 3"),
        ("perturbation", {"perturbations": ("titl",)}, "did you mean 'tilt'"),
        ("perturbation", {"num_images": -1}, r"num_images must be at least 0 \(all\)"),
    ],
)
def test_unusable_numbers_are_refused(suite, options, message, setting):
    """By the suite, and by its check before any other suite computes."""
    for function in (suites.SUITES[suite].check, suites.SUITES[suite].function):
        with pytest.raises(ValueError, match=message):
            function([run()], setting, **options)


def test_one_sample_has_no_variance(setting):
    """`--suite=all` leaves the suite out then; a network without dropout has none."""
    one = dataclasses.replace(setting, num_samples=1)
    message = "the suite variance needs num_samples of at least 2 .*, got 1"
    with pytest.raises(suites.UnsuitableError, match=message):
        suites.SUITES["variance"].check([run()], one)
    suites.SUITES["variance"].check([run("resnet_dnn_18")], one)


@pytest.mark.parametrize(
    "suite", ["landscape", "hessian", "variance", "fourier", "frequency"]
)
def test_one_run_at_a_time(suite, setting):
    with pytest.raises(ValueError, match=f"the suite {suite} takes one run, got 2"):
        suites.SUITES[suite].function([run(), run()], setting)
    assert jax.device_count() == 8
    few = suites.Setting(TEST, batch_size=7)
    with pytest.raises(ValueError, match="cannot be divided by 8 devices"):
        suites.SUITES[suite].function([run()], few)
