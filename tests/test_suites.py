import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import metrics, recipes, report, suites, workdirs
from spatial_smoothing.data.sources import Dataset
from spatial_smoothing.suites.ensemble import ensemble_sizes

CONFIG = {
    "model": "resnet_mcdo_smoothing_18",
    "dataset": "shapes",
    "width": 4,
    "stages": (1,),
    "seed": 0,
    "val_fraction": 0.0,
}


def run(name, *, initial=True, **changes):
    """A run of initial values, if it is to have any."""
    config = {**CONFIG, **changes}
    model = recipes.build_model(config)
    images = np.zeros((1, 32, 32, 3), np.float32)
    init = jax.jit(model.init) if initial else lambda *_: None
    variables = init(jax.random.key(config["seed"]), images)
    return workdirs.Run(workdirs.epath.Path(name), config, model, variables, 0)


def dataset(seed=0, count=12):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return Dataset(images, rng.integers(0, 10, count).astype(np.int32))


def setting(**options):
    defaults = {"num_samples": 3, "batch_size": 8, "num_replicates": 0}
    return suites.Setting(dataset(), **{**defaults, **options})


def test_one_run_has_a_row_for_each_size():
    rows = suites.ensemble([run("a")], setting(num_replicates=20))
    assert [row["num_samples"] for row in rows] == [1, 2, 3]
    assert {row["label"] for row in rows} == {"MC dropout + smoothing"}
    times = [row["milliseconds"] for row in rows]
    assert 0 < times[0] <= times[1] <= times[2]
    assert all(row["intervals"] for row in rows)


def test_several_runs_are_a_deep_ensemble_and_themselves():
    runs = [run("a"), run("b", seed=1)]
    rows = suites.ensemble(runs, setting(num_samples=2))
    lines = [(row["label"], row["run"], row["num_samples"]) for row in rows]
    deep, alone = "Deep ensemble of MC dropout + smoothing", "MC dropout + smoothing"
    assert lines == [
        *((deep, "a, b", size) for size in (1, 2, 4)),
        *((alone, name, size) for name in "ab" for size in (1, 2)),
    ]
    (first, *_) = suites.ensemble(runs[:1], setting(num_samples=2))
    assert rows[0]["nll"] == pytest.approx(first["nll"], rel=1e-5)
    assert rows[3]["nll"] == pytest.approx(first["nll"], rel=1e-5)
    assert rows[5]["nll"] != pytest.approx(first["nll"], rel=1e-5)


def test_networks_without_dropout_make_one_prediction():
    (row,) = suites.ensemble([run("a", model="resnet_dnn_18")], setting())
    assert (row["label"], row["num_samples"]) == ("Deterministic", 1)
    assert row["mutual_information"] == pytest.approx(0, abs=1e-6)


def test_members_of_an_ensemble_are_of_one_network():
    message = r"a and b cannot be one ensemble: they differ in width \(4 and 8\)"
    with pytest.raises(ValueError, match=message):
        suites.ensemble(
            [run("a", initial=False), run("b", initial=False, width=8)], setting()
        )


def test_members_of_an_ensemble_are_of_one_data_set():
    runs = [run("a", initial=False), run("b", initial=False, dataset="cifar10")]
    with pytest.raises(ValueError, match=r"differ in dataset \('shapes' and 'cifar10'"):
        suites.ensemble(runs, setting())


def evaluated(path, rows, *, config=CONFIG):
    output = path / "evaluation"
    provenance = {"config": config} if config else {}
    report.write(
        output, suites.save_examples(output, rows), provenance=provenance, title="A"
    )
    return path


def test_evaluated_workdirs_are_read(tmp_path):
    rows = [row("A", 1, 0) | {"dataset": "shapes", "split": "test"}]
    ((found,), where) = suites.read(evaluated(tmp_path, rows))
    np.testing.assert_array_equal(found["examples"].nll, rows[0]["examples"].nll)
    assert where["config"] == report.plain(CONFIG)


def test_evaluations_of_an_older_version_are_refused(tmp_path):
    older = [row("A", 1, 0)]
    rows = [row("A", 1, 0) | {"dataset": "shapes", "split": "test"}]
    message = "metrics.json lacks what is compared; evaluate .* anew"
    for index, options in enumerate([(older, CONFIG), (rows, None)]):
        path = evaluated(tmp_path / str(index), options[0], config=options[1])
        with pytest.raises(ValueError, match=message):
            suites.read(path)
    path = evaluated(tmp_path / "cut", rows)
    file = path / "evaluation" / "examples.npz"
    whole = file.read_bytes()
    message = "npz is damaged or of an older version; evaluate anew"
    for damaged in (whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            suites.read(path)
        assert suites.earlier(file.parent, {}, without=()) == ([], {})
    np.savez(file, **{"0/label": np.zeros(2)})
    with pytest.raises(ValueError, match=message):
        suites.read(path)
    with pytest.raises(ValueError, match="is not evaluated yet"):
        suites.read(tmp_path)


@pytest.mark.parametrize("name", ["num_samples", "num_replicates", "seed"])
def test_numbers_too_small(name):
    with pytest.raises(ValueError, match=f"{name} must be at least [01], got -1"):
        setting(**{name: -1})


def test_images_of_another_size_cannot_be_told_apart():
    other = Dataset(np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, np.int32))
    message = r"images of mnist are \[28, 28, 1\], those tested on \[32, 32, 3\]"
    with pytest.raises(ValueError, match=message):
        setting(ood=("mnist", other))


def test_held_out_images_are_those_no_run_has_seen():
    data = dataset(count=20)
    load = lambda name, split: data if (name, split) == ("shapes", "train") else None
    held = [
        suites.held_out([run("a", initial=False, val_fraction=0.25, seed=seed)], load)
        for seed in (0, 1)
    ]
    assert held[0].labels.shape == (5,)
    np.testing.assert_array_equal(held[0].images, held[1].images)
    assert suites.held_out([run("a", initial=False)], load) is None
    mixed = [run("a", initial=False, val_fraction=0.25), run("b", initial=False)]
    assert suites.held_out(mixed, load) is None


def test_dropout_in_some_parts_is_a_second_pass_of_the_same_weights():
    two = run("a", stages=(1, 1))
    rows = suites.ensemble([two], setting(num_samples=2), mc_stages="2")
    labels = ["MC dropout + smoothing", "MC dropout in stage 2 + smoothing"]
    assert [(row["label"], row["num_samples"]) for row in rows] == [
        (label, size) for label in labels for size in (1, 2)
    ]
    config = {**two.config, "mc_stages": [2]}
    model = recipes.build_model(config)
    trained_so = two._replace(config=config, model=model)
    alone = suites.ensemble([trained_so], setting(num_samples=2))
    assert [row["nll"] for row in rows[2:]] == [row["nll"] for row in alone]
    assert rows[0]["nll"] != rows[2]["nll"]
    for given, message in (("5", "must name some of"), ("tail", "must name some of")):
        with pytest.raises(ValueError, match=message):
            suites.ensemble([two], setting(), mc_stages=given)
    plain = run("a", initial=False, model="resnet_dnn_18")
    with pytest.raises(ValueError, match="networks with dropout; a has none"):
        suites.ensemble([plain], setting(), mc_stages="1")


def test_sizes_of_ensembles():
    assert ensemble_sizes(50) == (1, 2, 3, 4, 5, 10, 20, 50)
    assert ensemble_sizes(7) == (1, 2, 3, 4, 5, 7)
    assert ensemble_sizes(1) == (1,)
    assert ensemble_sizes(4, sizes=(3, 2)) == (1, 2, 3, 4)
    for sizes in ((0, 1), (1, 5)):
        with pytest.raises(ValueError, match=r"between 1 and num_samples, 4, got"):
            ensemble_sizes(4, sizes=sizes)


@pytest.mark.parametrize(
    ("name", "members", "expected"),
    [
        ("resnet_dnn_18", 1, "Deterministic"),
        ("resnet_mcdo_smoothing_18", 1, "MC dropout + smoothing"),
        ("vgg_dnn_smoothing_16", 5, "Deep ensemble + smoothing"),
        ("vgg_mcdo_16", 5, "Deep ensemble of MC dropout"),
    ],
)
def test_labels(name, members, expected):
    assert suites.label(name, num_members=members) == expected


def test_labels_say_where_dropout_is():
    label = functools.partial(suites.label, mc_stages=("head", 3, 4))
    places = "stage 3, stage 4, head"
    assert label("resnet_mcdo_smoothing_18") == f"MC dropout in {places} + smoothing"
    deep = label("resnet_mcdo_18", num_members=2)
    assert deep == f"Deep ensemble of MC dropout in {places}"
    assert label("resnet_dnn_18") == "Deterministic"


def test_equal_labels_are_told_apart_unless_they_are_seeds():
    row = lambda label: {"label": label, "num_samples": 1}
    groups = {"a": [row("X"), row("Y")], "b": [row("X")]}
    configs = {"a": {"width": 4, "seed": 0}, "b": {"width": 8, "seed": 0}}
    labels = [found["label"] for found in suites.distinct_labels(groups, configs)]
    assert labels == ["X (a)", "Y", "X (b)"]
    configs["b"] = {"width": 4, "seed": 1}
    labels = [found["label"] for found in suites.distinct_labels(groups, configs)]
    assert labels == ["X", "Y", "X"]


LABELS = np.random.default_rng(0).integers(0, 4, 200)


def examples(seed, labels=LABELS, sharpness=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((len(labels), 4)) + sharpness * np.eye(4)[labels]
    log_probs = jax.nn.log_softmax(logits.astype(np.float32))
    found = metrics.per_example(log_probs, jnp.asarray(labels, jnp.int32))
    return jax.tree.map(np.asarray, found)


def row(label, size, seed, **options):
    kind = "dnn" if label == "Deterministic" else "mcdo"
    return {
        "label": label,
        "model": f"resnet_{kind}{'_smoothing' * label.endswith('+ smoothing')}_18",
        "num_samples": size,
        "examples": examples(seed, **options),
    }


def test_differences_of_labels_are_those_of_their_means():
    rows = [
        *(row("MC dropout", 1, seed) for seed in (0, 1)),
        *(row("MC dropout + smoothing", 1, seed, sharpness=3.0) for seed in (2, 3)),
    ]
    (found,) = suites.differences(rows, num_replicates=200)
    assert found["label"] == "MC dropout + smoothing minus MC dropout"
    assert (found["num_samples"], found["num_examples"]) == (1, 200)
    each = [np.mean(one["examples"].nll) for one in rows]
    estimate, low, high = found["values"]["nll"]
    assert estimate == pytest.approx(np.mean(each[2:]) - np.mean(each[:2]), rel=1e-4)
    change = np.mean([one["examples"].nll for one in rows[2:]], axis=0)
    change = change - np.mean([one["examples"].nll for one in rows[:2]], axis=0)
    error = change.std() / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.2)
    assert low < estimate < high < 0


def test_equal_predictions_differ_by_nothing():
    rows = [row("MC dropout", 1, 0), row("MC dropout + smoothing", 1, 0)]
    (found,) = suites.differences(rows, num_replicates=20)
    assert all(values == [0, 0, 0] for values in found["values"].values())


def test_two_samples_with_smoothing_are_compared_with_the_most_without():
    rows = [
        row(label, size, size)
        for label in ("Deterministic", "MC dropout", "MC dropout + smoothing")
        for size in ((1,) if label == "Deterministic" else (1, 2, 5))
    ]
    found = suites.differences(rows, num_replicates=20)
    plain, smooth = "MC dropout", "MC dropout + smoothing"
    assert [each["label"] for each in found] == [
        *[f"{smooth} minus {plain}"] * 3,
        f"{smooth}, N = 2, minus {plain}, N = 5",
    ]


def test_other_images_are_not_compared():
    rows = [row("A", 1, 0), row("B", 1, 1, labels=LABELS[::-1])]
    assert suites.differences(rows, num_replicates=20) == []


def test_two_series_without_smoothing_are_compared_too():
    rows = [row("A", 1, 0), row("B", 1, 1)]
    (found,) = suites.differences(rows, num_replicates=20)
    assert found["label"] == "B minus A"
    assert suites.differences(rows, num_replicates=0) == []
    assert suites.differences([]) == []


def test_examples_come_back_as_they_were_saved(tmp_path):
    rows = [row("A", 1, 0), {"label": "B", "num_samples": 1}, row("A", 2, 1)]
    without = suites.save_examples(tmp_path, rows)
    assert all("examples" not in found for found in without)
    assert [path.name for path in tmp_path.iterdir()] == ["examples.npz"]
    back = suites.load_examples(tmp_path, without)
    assert "examples" not in back[1]
    for one, other in ((rows[0], back[0]), (rows[2], back[2])):
        same = functools.partial(np.testing.assert_array_equal, strict=True)
        jax.tree.map(same, one["examples"], other["examples"])
    assert suites.load_examples(tmp_path / "none", without) == without
