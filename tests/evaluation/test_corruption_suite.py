import json

import jax
import numpy as np
import pytest

from spatial_smoothing import ensembles, evaluation, report
from spatial_smoothing.data import datasets, shapes
from spatial_smoothing.data.corruption import transforms, writer
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.evaluation import suites
from spatial_smoothing.evaluation.suites import normalizers
from spatial_smoothing.evaluation.suites.corruption import corruption
from spatial_smoothing.runs import recipes, workdirs

CLEAN = Dataset(*shapes.generate("test", size=20))
CONFIG = {
    "model": "resnet_mcdo_smoothing_18",
    "dataset": "shapes",
    "width": 4,
    "stages": (1,),
    "seed": 0,
}
ASKED = {"corruptions": ("contrast", "brightness", "saturate"), "severities": (1, 5)}
PAIRS = [("clean", 0), *((c, s) for c in ASKED["corruptions"] for s in (1, 5))]


@pytest.fixture(scope="module")
def run():
    model = recipes.build_model(CONFIG)
    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    return workdirs.Run(workdirs.epath.Path("a"), CONFIG, model, variables, 0)


def setting(output, **options):
    return suites.Setting(
        CLEAN, **{"num_samples": 2, "batch_size": 8, "output": output, **options}
    )


@pytest.fixture
def traces(monkeypatch):
    """Counts how often a prediction is traced."""
    found = []
    real = ensembles.predictor

    def counting(*args, **options):
        predict = real(*args, **options)

        def counted(*inputs):
            found.append(inputs[-1].shape)
            return predict(*inputs)

        return counted

    monkeypatch.setattr(ensembles, "predictor", counting)
    return found


@pytest.fixture(scope="module")
def rows(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    return corruption([run], setting(output), **ASKED)


def scores(rows):
    """Rows of images, without arrays."""
    return {
        (row["corruption"], row["severity"], row["num_samples"]): {
            key: value for key, value in row.items() if key != "arrays"
        }
        for row in rows
        if "severity" in row
    }


def test_one_compiled_step_serves_all_sets_and_sizes(run, tmp_path, traces):
    found = corruption([run], setting(tmp_path), **ASKED)
    assert traces == [(8, 32, 32, 3)]
    assert [*scores(found)] == [(*pair, size) for pair in PAIRS for size in (1, 2)]


def test_rows_are_those_of_an_evaluation_of_the_corrupted_images(run, rows):
    key = jax.random.key(transforms.SEED)
    images = np.asarray(transforms.corrupt(key, CLEAN.images, "contrast", 5))
    source = run.source
    predict = ensembles.predictor(
        run.model,
        prepare=lambda x: (
            (x / 255.0 - np.array([[[source.mean]]], np.float32))
            / np.array([[[source.std]]], np.float32)
        ),
        sizes=(1, 2),
    )
    tallies = evaluation.compile_tallies(predict)(
        run.variables, jax.random.key(0), Dataset(images, CLEAN.labels).batches(8)
    )
    expected = [
        {"num_samples": name.num_samples, **evaluation.tally_row(tally)}
        for name, tally in ensembles.named(tallies).items()
    ]
    for row in expected:
        found = scores(rows)["contrast", 5, row["num_samples"]]
        for name in ("nll", "accuracy", "ece", "brier"):
            assert found[name] == pytest.approx(row[name], rel=1e-4)
        assert found["num_examples"] == 20
        assert found["data"] == "corrupted (generated)"
    assert scores(rows)["clean", 0, 1]["nll"] != expected[0]["nll"]


def test_means_leave_out_extra_corruptions(rows):
    found = [row for row in rows if "normalizer" in row]
    assert [row["num_samples"] for row in found] == [1, 2]
    for row in found:
        assert (row["normalizer"], row["num_corruptions"]) == ("none", 2)
        each = [
            scores(rows)[name, severity, row["num_samples"]]
            for name in ("contrast", "brightness")
            for severity in (1, 5)
        ]
        clean = scores(rows)["clean", 0, row["num_samples"]]
        errors = [1 - one["accuracy"] for one in each]
        assert row["mean_error"] == pytest.approx(np.mean(errors))
        assert row["mean_nll"] == pytest.approx(np.mean([one["nll"] for one in each]))
        added = np.mean(errors) - (1 - clean["accuracy"])
        assert row["mean_added_error"] == pytest.approx(added)
        assert "mean_ce" not in row


def test_the_sheet_has_the_first_image_under_everything(rows):
    key = jax.random.key(transforms.SEED)
    sheet = rows[0]["arrays"]
    assert [*sheet] == ["clean", *ASKED["corruptions"]]
    np.testing.assert_array_equal(sheet["clean"], CLEAN.images[:1])
    expected = transforms.corrupt(key, CLEAN.images, "saturate", 5)[0]
    np.testing.assert_array_equal(sheet["saturate"][1], expected)


def test_a_killed_evaluation_continues(run, rows, tmp_path, monkeypatch):
    real = transforms.corrupt

    def killed(key, images, name, severity, **options):
        if (name, severity) == ("brightness", 1):
            raise KeyboardInterrupt
        return real(key, images, name, severity, **options)

    with monkeypatch.context() as patch:
        patch.setattr(transforms, "corrupt", killed)
        with pytest.raises(KeyboardInterrupt):
            corruption([run], setting(tmp_path), **ASKED)
    _, *done = (tmp_path / "corruption.partial.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in done]
    assert [(row["corruption"], row["severity"]) for row in found] == PAIRS[:3]
    again = corruption([run], setting(tmp_path), **ASKED)
    np.testing.assert_equal(scores(again), scores(rows))


def test_a_written_folder_gives_the_same(run, rows, tmp_path):
    folder = tmp_path / "folder"
    numbers = datasets.choose(20, 12)
    key = jax.random.key(transforms.SEED)
    some = CLEAN.subset(numbers)
    writer.write_cifar_c(
        key, folder, some, names=["contrast"], numbers=numbers, batch_size=8
    )
    options = {"corruptions": ("contrast",), "severities": (1, 5)}
    made = corruption([run], setting(tmp_path / "a"), num_images=12, **options)
    read = corruption(
        [run], setting(tmp_path / "b"), corrupted_dir=str(folder), **options
    )
    for size in (1, 2):
        one, other = (scores(found)["contrast", 5, size] for found in (made, read))
        np.testing.assert_equal(one, other)
        assert one["num_examples"] == 12
        one, other = (scores(found)["clean", 0, size] for found in (made, read))
        np.testing.assert_equal(one, other)

    for name, message in (
        ("contrast", r"cannot read .*contrast.npy: .*truncated"),
        ("labels", r"cannot read .*labels.npy"),
    ):
        path = folder / f"{name}.npy"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=message):
            corruption(
                [run], setting(tmp_path / "c"), corrupted_dir=str(folder), **options
            )
        path.write_bytes(whole)
    np.save(folder / "labels.npy", np.zeros(55, np.int32))
    with pytest.raises(
        ValueError, match=r"has 60 images, but labels.npy has 55 labels"
    ):
        corruption([run], setting(tmp_path / "c"), corrupted_dir=str(folder), **options)


def write_folder(path, images, *, official=False):
    """A folder of one corruption; an official one does not say of which images."""
    key = jax.random.key(transforms.SEED)
    writer.write_cifar_c(key, path, images, names=["fog"], batch_size=8)
    if official:
        (path / "generated.json").unlink()
    return {"corruptions": ("fog",), "severities": (1,), "corrupted_dir": str(path)}


def test_clean_images_are_those_that_were_corrupted(run, tmp_path):
    ordered = CLEAN.subset(np.argsort(CLEAN.labels, kind="stable"))
    assert not np.array_equal(ordered.labels, CLEAN.labels)
    options = write_folder(tmp_path / "ordered", ordered, official=True)
    rows = corruption([run], setting(tmp_path / "a"), **options)
    assert {row["num_examples"] for row in rows} == {20}
    others = Dataset(CLEAN.images, np.zeros_like(CLEAN.labels))
    for name, images, more, message in (
        ("ordered", ordered, {"num_images": 5}, "another order than the split test, "),
        (
            "few",
            CLEAN.subset(np.arange(9)),
            {},
            "9 images .* the split test has 20; give",
        ),
        ("others", others, {}, "of other classes than the split test; give the --spl"),
    ):
        if name != "ordered":
            options = write_folder(tmp_path / name, images, official=True)
        with pytest.raises(ValueError, match=f"{name} has .*{message}"):
            corruption([run], setting(tmp_path / "b"), **options, **more)
    assert not (tmp_path / "b").exists()


def test_a_folder_of_another_split_is_refused(run, tmp_path):
    some = datasets.choose(20, 12)
    key = jax.random.key(transforms.SEED)
    writer.write_cifar_c(
        key, tmp_path / "c", CLEAN.subset(some), names=["fog"], numbers=some
    )
    train = suites.Setting(
        CLEAN.subset(np.arange(11)), split="train", batch_size=8, output=tmp_path
    )
    with pytest.raises(ValueError, match=r"12 images .* the split train has 11; give"):
        corruption([run], train, corruptions=("fog",), corrupted_dir=tmp_path / "c")


@pytest.fixture
def evaluated(run, rows, tmp_path):
    """A workdir with an evaluation of corruptions."""
    (tmp_path / "config.json").write_text("{}")
    named = [{"suite": "corruption", "split": "test", **row} for row in rows]
    report.write(tmp_path / "evaluation", named, provenance={}, title="Test")
    return tmp_path


SCOPE = normalizers.Scope(
    "shapes", "corrupted (generated)", ["contrast", "brightness"], (1, 5), 20
)


def test_another_run_normalizes(rows, evaluated):
    baseline = normalizers.load(str(evaluated), SCOPE)
    assert baseline.name == f"MC dropout + smoothing of {evaluated.name}, N = 1"
    own = {pair: scores(rows)[(*pair, 1)] for pair in PAIRS}
    found = normalizers.aggregate(own, SCOPE, baseline)
    for name in ("mean_ce", "mean_cnll", "mean_cece"):
        assert found[name] == pytest.approx(1)
    first, *_ = baseline.scores
    infinite = {**baseline.scores, first: {**baseline.scores[first], "nll": None}}
    found = normalizers.aggregate(own, SCOPE, baseline._replace(scores=infinite))
    assert "mean_cnll" not in found
    assert found["mean_ce"] == pytest.approx(1)
    half = {pair: {**row, "nll": row["nll"] / 2} for pair, row in own.items()}
    assert normalizers.aggregate(half, SCOPE, baseline)["mean_cnll"] == pytest.approx(
        0.5
    )


def test_normalizers_must_fit(evaluated):
    for name, scope, message in (
        ("alexnet", SCOPE, "no scores of AlexNet for shapes; pass --normalizer=none"),
        ("imagenet", SCOPE, "--normalizer=imagenet is for imagenet, not shapes"),
        ("alexnets", SCOPE, "no normaliser 'alexnets'; choices: none, alexnet, imag"),
        (
            str(evaluated),
            SCOPE._replace(num_examples=9),
            "num_examples is 20 there and",
        ),
        (
            str(evaluated),
            SCOPE._replace(split="train"),
            "split is test there and train",
        ),
        (
            str(evaluated),
            SCOPE._replace(severities=(1, 2, 5)),
            "has no scores for cont",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            normalizers.load(name, scope)
    file = evaluated / "evaluation" / "metrics.json"
    file.write_text(file.read_text().replace('"split"', '"older"'))
    with pytest.raises(ValueError, match="split is not named there and test here"):
        normalizers.load(str(evaluated), SCOPE)
    file.unlink()
    with pytest.raises(ValueError, match="is not evaluated yet"):
        normalizers.load(str(evaluated), SCOPE)


def test_normalizers_are_checked_by_their_corrupted_images(rows, tmp_path):
    """The clean images of an evaluation may be more than the corrupted ones."""
    named = [{"suite": "corruption", "split": "test", **row} for row in rows]
    for row in named:
        if row.get("severity"):
            row["num_examples"] = 9
    (tmp_path / "config.json").write_text("{}")
    report.write(tmp_path / "evaluation", named, provenance={}, title="Test")
    with pytest.raises(ValueError, match="num_examples is 9 there and 20 here"):
        normalizers.load(str(tmp_path), SCOPE)


def test_official_constants_know_the_error_alone():
    scope = SCOPE._replace(dataset="imagenet", severities=transforms.SEVERITIES)
    baseline = normalizers.load("imagenet", scope)
    found = normalizers.aggregate(
        {
            pair: {"accuracy": row["accuracy"], "nll": 1.0, "ece": 0.1}
            for pair, row in baseline.scores.items()
        },
        scope,
        baseline,
    )
    assert found["mean_ce"] == pytest.approx(1)
    assert found["relative_mean_ce"] == pytest.approx(1)
    assert "mean_cnll" not in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": ("fogg",)}, "unknown corruption 'fogg'; did you mean 'fog'"),
        ({"corruptions": ()}, "corruptions must have at least one value, got none"),
        ({"corruptions": ("fog",) * 2}, "each value once, got fog more than once"),
        ({"severities": ()}, "severities must have at least one value, got none"),
        ({"severities": (1, 1)}, "each value once, got 1 more than once"),
        ({"severities": (6,)}, "unknown severity '6'; choices: 1, 2, 3, 4, 5"),
        ({"num_images": -1}, "num_images must be at least 0"),
        ({"corrupted_dir": "nowhere"}, r"no folder .*nowhere with corrupted images"),
        ({"normalizer": "alexnet"}, "no scores of AlexNet for shapes"),
    ],
)
def test_bad_options_are_refused_at_once(run, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        corruption([run], setting(tmp_path), **{**ASKED, **options})
    assert not list(tmp_path.iterdir())
