import pathlib
import re

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spatial_smoothing.data.sources import Dataset
from spatial_smoothing.ensembles import Ensemble
from spatial_smoothing.evaluation import suites
from spatial_smoothing.evaluation.suites import ood_sets
from spatial_smoothing.evaluation.suites.ood_sets import OodSet, OodSets
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runtime import random_bits

CONFIG = {
    "model": "resnet_mcdo_smoothing_18",
    "dataset": "shapes",
    "width": 4,
    "stages": (1,),
    "seed": 0,
    "val_fraction": 0.0,
}
FEW = ("msp", "mutual_information", "gen", "knn", "ddu", "react")
LABELS = {"suite": "ood", "split": "test"}


def run(path, **changes):
    """A run of initial values."""
    config = {**CONFIG, **changes}
    model = recipes.build_model(config)
    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(config["seed"]), images)
    return workdirs.Run(workdirs.epath.Path(path), config, model, variables, 0)


def dataset(seed=0, count=12, *, scale=256):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, scale, (count, 32, 32, 3)).astype(np.uint8)
    return Dataset(images, rng.integers(0, 10, count).astype(np.int32))


TESTED = (
    OodSet("noise", "near", dataset(1, 9)),
    OodSet("dark", "far", dataset(2, 10, scale=64)),
    OodSet("black", "far", dataset(3, 7, scale=2)),
)
loads = []


def load(name, split):
    loads.append((name, split))
    return dataset(5, 70)


def setting(*, validation=None, **options):
    defaults = {"num_samples": 2, "batch_size": 8, "num_replicates": 0, "load": load}
    sets = OodSets(TESTED, validation)
    return suites.Setting(dataset(), ood_sets=sets, **{**defaults, **options})


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def rows(one):
    return suites.ood([one], setting(num_replicates=20), confidences=FEW)


def kind(row):
    return row["num_samples"], row["confidence"], row["average"]


def test_every_confidence_has_rows_for_sets_and_means(rows):
    kinds = list(dict.fromkeys(kind(row) for row in rows))
    predictions = [
        ("msp", "probabilities"),
        ("mutual_information", "probabilities"),
        ("gen", "probabilities"),
        ("msp", "logits"),
        ("gen", "logits"),
    ]
    features = [("knn", "features"), ("react", "features"), ("ddu", "features")]
    assert kinds == [
        *((1, *each) for each in (*predictions, *features)),
        *((2, *each) for each in predictions),
    ]
    for each in kinds:
        group = [row for row in rows if kind(row) == each]
        places = [(row["ood"], row["distance"]) for row in group]
        assert places == [
            *((s.name, s.distance) for s in TESTED),
            (None, "near"),
            (None, "far"),
        ]
        assert [row.get("num_sets") for row in group] == [None, None, None, 1, 2]
        assert [row.get("num_ood") for row in group] == [9, 10, 7, None, None]
        near, *far, mean_near, mean_far = (row["auroc"] for row in group)
        assert mean_near == pytest.approx(near, nan_ok=True)
        assert mean_far == pytest.approx(np.mean(far), nan_ok=True)
        assert all(
            row["intervals"].keys() == rows[0]["intervals"].keys() for row in group
        )
    constants = {row["confidence"]: row["constant"] for row in rows}
    assert constants == {
        "msp": None,
        "mutual_information": None,
        "gen": "gamma = 0.1",
        "knn": "k = 50",
        "react": "percentile 90",
        "ddu": None,
    }
    # A single prediction has no mutual information.
    undefined = {kind(row) for row in rows if np.isnan(row["auroc"])}
    assert undefined == {(1, "mutual_information", "probabilities")}


def test_test_images_get_the_dropout_masks_of_the_suite_of_ensembles(one):
    passes = suites.ood_passes.of_predictions(
        [one], setting(), ("msp",), sizes=(1, 2), key=random_bits.key(0)
    )
    for row in suites.ensemble([one], setting()):
        values = passes[Ensemble((0,), row["num_samples"])]["msp", "probabilities"]
        examples = row["examples"]
        np.testing.assert_allclose(values.inside, examples.confidence, rtol=1e-6)
        wrong = np.asarray(examples.prediction != examples.label)
        np.testing.assert_array_equal(values.wrong, wrong)


def test_constants_are_chosen_on_the_validation_set(one):
    validation = OodSet("grey", "validation", dataset(6, 8, scale=100))
    options = {"validation": validation, "held_out": dataset(4, 9)}
    found = suites.ood([one], setting(**options), confidences=("gen", "knn"))
    constants = {(row["confidence"], row["constant"]) for row in found}
    choices = {"gamma = 0.01", "gamma = 0.1", "gamma = 0.5", "gamma = 1", "gamma = 2"}
    choices |= {"gamma = 5", "gamma = 10", "k = 50"}  # of 70 training images
    assert {constant for _, constant in constants} <= choices
    assert ("knn", "k = 50") in constants


def test_training_features_are_read_again(one, rows):
    """From the workdir: the images are loaded, but no pass is made."""
    file = pathlib.Path(one.path) / "features.npz"
    before = file.stat().st_mtime_ns
    found = suites.ood([one], setting(), confidences=("react",))
    assert file.stat().st_mtime_ns == before
    (first, *_) = (row for row in rows if row["confidence"] == "react")
    assert found[0]["auroc"] == first["auroc"]
    suites.ood([one], setting(), confidences=("react",), num_images=60)
    assert file.stat().st_mtime_ns != before


def test_members_of_a_deep_ensemble_are_averaged(one, tmp_path):
    runs = [one, run(tmp_path, seed=1)]
    found = suites.ood(runs, setting(num_samples=1), confidences=("msp", "react"))
    lines = [
        (row["label"], row["num_samples"], row["confidence"], row["average"])
        for row in found
        if row["ood"] == "noise"
    ]
    deep, alone = "Deep ensemble of MC dropout + smoothing", "MC dropout + smoothing"
    each = [("msp", "probabilities"), ("msp", "logits"), ("react", "features")]
    assert lines == [
        (label, size, *names)
        for label, size in ((deep, 1), (deep, 2), (alone, 1), (alone, 1))
        for names in each
    ]


def test_a_network_without_dropout_makes_one_prediction(tmp_path):
    found = suites.ood(
        [run(tmp_path, model="resnet_dnn_18")], setting(), confidences=("msp",)
    )
    assert {row["num_samples"] for row in found} == {1}
    assert {row["label"] for row in found} == {"Deterministic"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidences": ("msp", "kn")}, "unknown confidence 'kn'; did you mean 'knn'"),
        ({"confidences": ()}, "--confidences must have at least one value, got none"),
        ({"sizes": (3,)}, "sizes must be between 1 and num_samples, 2, got 3"),
        ({"num_images": 20, "confidences": ("knn",)}, "there are 20 training images"),
        ({"num_images": -1}, "num_images must be at least 0 (all), got -1"),
    ],
)
def test_unusable_options_are_refused(one, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        suites.ood([one], setting(), **options)


def test_unusable_settings_are_refused(one):
    with pytest.raises(ValueError, match="needs sets of images: --ood=near:NAME"):
        suites.ood([one], suites.Setting(dataset(), batch_size=8))
    validation = OodSet("grey", "validation", dataset(6))
    with pytest.raises(ValueError, match="chooses constants on held-out images"):
        suites.ood([one], setting(validation=validation))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--ood names none; give --ood=near:NAME,far:NAME"),
        (" , ", "--ood names none"),
        ("cifar10", "must say of each data set whether it is near or far, got cifar10"),
        ("close:cifar10", "near or far, got close:cifar10"),
        ("far:", "--ood has no data set after far:; give far:NAME"),
        ("near:a,far:tfds:a[:5]", "must name each data set once, got tfds:a[:5] twice"),
    ],
)
def test_lists_of_sets_are_checked(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as found:
        ood_sets.parse(text)
    assert "\n" not in str(found.value)


def test_sets_are_read():
    found = ood_sets.parse("near:cifar10[:10%], far:list:/a/b.txt,")
    assert found == [("near", "cifar10[:10%]"), ("far", "list:/a/b.txt")]
    assert ood_sets.has_distances("near:a")
    assert not ood_sets.has_distances("cifar10")
    assert not ood_sets.has_distances(None)


@pytest.mark.parametrize(
    ("names", "validation", "message"),
    [
        (
            ["cifar10", "shapes[:5]"],
            None,
            "names shapes[:5], which is what the network",
        ),
        (["cifar10"], "shapes", "names shapes, which is what the network"),
        (
            ["cifar10"],
            "tfds:cifar10[:9]",
            "--ood_validation=tfds:cifar10[:9] is tested",
        ),
        (["cifar10"], "", "--ood_validation names no data set"),
    ],
)
def test_sets_are_others_than_what_is_tested(names, validation, message):
    pairs = [("near", name) for name in names]
    with pytest.raises(ValueError, match=re.escape(message)):
        ood_sets.check_names(pairs, validation, "shapes")


def test_images_are_others_than_those_that_are_tested():
    own, other = dataset(), dataset(1)
    relabelled = Dataset(own.images, 0 * own.labels)
    small = Dataset(own.images[:, :8], own.labels)

    def check(first, second):
        given = {"a": first, "b": second}
        return ood_sets.load(
            [("near", "a")], "b", own=own, load=lambda name, split: given[name]
        )

    assert check(other, dataset(2)).validation.name == "b"
    with pytest.raises(ValueError, match="the images of a are those of the split that"):
        check(relabelled, other)
    with pytest.raises(ValueError, match="the images of b are those of a; choose"):
        check(other, dataset(1))
    with pytest.raises(ValueError, match=r"images of a are \[8, 32, 3\], those tested"):
        check(small, other)


def test_auroc_is_that_of_the_confidences(one):
    """From the confidences of a pass, by scikit-learn."""
    passes = suites.ood_passes.of_features([one], setting(), ("react",), num_images=0)
    (values,) = passes.values()
    ((_, found),) = values.items()
    scores = np.concatenate([found.inside, found.outside[2]])
    out = np.arange(len(scores)) >= 12
    (row,) = (
        row
        for row in suites.ood([one], setting(), confidences=("react",))
        if row["ood"] == "black"
    )
    assert row["auroc"] == pytest.approx(roc_auc_score(out, -scores), abs=1e-6)
