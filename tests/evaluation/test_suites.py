import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import ensembles, metrics, models, report
from spatial_smoothing.data.sources import Dataset
from spatial_smoothing.evaluation import suites
from spatial_smoothing.evaluation.suites.lineup import about_ensembles, ensemble_sizes
from spatial_smoothing.evaluation.times import shared_seconds
from spatial_smoothing.runs import recipes, workdirs
from spatial_smoothing.runtime import sharding

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
    costs = [row["gflops"] for row in rows]
    assert 0 < costs[1] - costs[0] < costs[0]  # the stem is computed once
    assert costs[2] - costs[1] == pytest.approx(costs[1] - costs[0])


def test_what_samples_share_is_timed_on_all_devices():
    found = []

    def prepare(images):
        jax.debug.inspect_array_sharding(images, callback=found.append)
        return images / 255

    assert jax.device_count() == 8
    images = next(sharding.load_batches(dataset(), 8, sharding.mesh()))["image"]
    network = ensembles.as_apply(run("a").model)
    variables = run("a").variables
    assert shared_seconds(network, variables, images, prepare=prepare) > 0
    assert {each.shard_shape((8, 32, 32, 3)) for each in found} == {(1, 32, 32, 3)}
    undivided = ensembles.from_function(network.apply)
    assert shared_seconds(undivided, variables, images) == 0


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


def evaluated(path, rows, *, config=CONFIG, **where):
    provenance = {**where, **({"config": config} if config else {})}
    rows, files = suites.pack_examples(rows)
    report.write(
        path / "evaluation", rows, provenance=provenance, title="A", files=files
    )
    return path


def test_evaluated_workdirs_are_read(tmp_path):
    rows = [row("A", 1, 0) | {"dataset": "shapes", "split": "test"}]
    ((found,), where) = suites.read(evaluated(tmp_path, rows))
    np.testing.assert_array_equal(found["examples"].nll, rows[0]["examples"].nll)
    assert where["config"] == report.plain(CONFIG)
    assert suites.read(tmp_path / "evaluation")[0][0]["label"] == "A"


def test_evaluations_of_an_older_version_are_refused(tmp_path):
    older = [row("A", 1, 0)]
    rows = [row("A", 1, 0) | {"dataset": "shapes", "split": "test"}]
    message = "metrics.json lacks what is compared; evaluate .* anew"
    for index, options in enumerate([(older, CONFIG), (rows, None)]):
        path = evaluated(tmp_path / str(index), options[0], config=options[1])
        with pytest.raises(ValueError, match=message):
            suites.read(path)
    path = evaluated(tmp_path / "nameless", rows)
    file = path / "evaluation" / "metrics.json"
    record = json.loads(file.read_text())
    for key in ("label", "num_samples"):
        (bare,) = [{**row} for row in record["rows"]]
        del bare[key]
        file.write_text(json.dumps({**record, "rows": [bare]}))
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
    np.savez(file, **{"0/label": np.zeros(2)})
    with pytest.raises(ValueError, match=message):
        suites.read(path)
    with pytest.raises(ValueError, match="is not evaluated yet"):
        suites.read(tmp_path)


def test_older_rows_of_laplace_are_called_as_present_ones(tmp_path):
    """Their label had the dropout of the network, which no pass of theirs has."""
    labels = {
        "MC dropout + Laplace": "Deterministic + Laplace",
        "MC dropout in stage 4 + Laplace + smoothing": (
            "Deterministic + Laplace + smoothing"
        ),
        "Deep ensemble of MC dropout of channels + Laplace": "Deep ensemble + Laplace",
        "Deterministic + Laplace": "Deterministic + Laplace",
    }
    about = {"split": "test", "num_samples": 1, "suite": "laplace"}
    rows = [
        {**about, "label": old, "run": str(number)} for number, old in enumerate(labels)
    ]
    rows.append({**rows[0], "suite": "ensemble", "run": "mine"})
    expected = [*labels.values(), "MC dropout + Laplace"]
    evaluations = {"laplace": {}, "ensemble": {}}
    path = evaluated(tmp_path, rows, **WHERE, evaluations=evaluations)
    assert [found["label"] for found in suites.read(path)[0]] == expected
    kept, _ = suites.earlier(path / "evaluation", WHERE, without=())
    assert [found["label"] for found in kept] == expected


WHERE = {"runs": [{"workdir": "a", "step": 7}], "split": "test", "config": CONFIG}


@pytest.fixture
def earlier(tmp_path):
    """A function of what is evaluated now, where two suites were before."""
    rows = [
        row("A", 1, 0) | {"suite": "ensemble", "dataset": "shapes"},
        {"suite": "hessian", "label": "A", "num_samples": 1, "run": "a"},
    ]
    evaluations = {"ensemble": {"seconds": 2.0}, "hessian": {"seconds": 1.0}}
    evaluated(tmp_path, rows, **WHERE, evaluations=evaluations, commit="old")
    return functools.partial(suites.earlier, tmp_path / "evaluation", without=())


def test_what_other_suites_say_of_the_same_runs_stays(earlier):
    rows, evaluations = earlier(WHERE)
    assert [found["suite"] for found in rows] == ["ensemble", "hessian"]
    assert "examples" in rows[0]
    assert evaluations["hessian"] == {"seconds": 1.0, "commit": "old"}
    (found,), evaluations = earlier(WHERE, without=["ensemble"])
    assert (found["suite"], [*evaluations]) == ("hessian", ["hessian"])
    moved = {**WHERE, "config": {**CONFIG, "data_dir": "elsewhere"}}
    assert len(earlier(moved)[0]) == 2


def test_what_was_said_of_another_step_is_dropped(earlier):
    for name in "ab":
        later = {**WHERE, "runs": [{"workdir": name, "step": 8}]}
        assert earlier(later) == ([], {})


def test_a_run_that_was_moved_keeps_its_evaluation(earlier):
    rows, evaluations = earlier({**WHERE, "runs": [{"workdir": "b", "step": 7}]})
    assert [row["suite"] for row in rows] == ["ensemble", "hessian"]
    assert rows[1]["run"] == "b"
    assert [*evaluations] == ["ensemble", "hessian"]
    other = {"runs": [{"workdir": "b", "step": 7}], "config": {**CONFIG, "seed": 1}}
    with pytest.raises(ValueError, match="as trained with another seed"):
        earlier({**WHERE, **other})


def members(names, fingerprints):
    return [
        {"workdir": name, "step": 7, "fingerprint": value}
        for name, value in zip(names, fingerprints, strict=True)
    ]


def test_members_that_were_moved_are_known_by_their_fingerprints(tmp_path):
    where = {**WHERE, "runs": members("ab", "12")}
    rows = [
        {"suite": "hessian", "label": "A", "num_samples": 1, "run": name}
        for name in ("a, b", "b")
    ]
    evaluated(tmp_path, rows, **where, evaluations={"hessian": {"seconds": 1.0}})
    earlier = functools.partial(suites.earlier, tmp_path / "evaluation", without=())
    kept, _ = earlier({**where, "runs": members("cd", "12")})
    assert [row["run"] for row in kept] == ["c, d", "d"]
    with pytest.raises(ValueError, match="which one of a, c on the split test would"):
        earlier({**where, "runs": members("ac", "13")})
    # The workdirs hold other networks now.
    assert earlier({**where, "runs": members("ab", "14")}) == ([], {})


def test_scores_outlive_damaged_examples(earlier, tmp_path):
    (tmp_path / "evaluation" / "examples.npz").write_bytes(b"")
    (tmp_path / "evaluation" / "hessian.npz").write_bytes(b"")
    rows, _ = earlier(WHERE)
    assert [found["suite"] for found in rows] == ["ensemble", "hessian"]
    (tmp_path / "evaluation" / "metrics.json").unlink()
    assert earlier(WHERE) == ([], {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"runs": [{"workdir": name, "step": 7} for name in "ab"]},
            r"of a on the split test, which one of a, b on the split test would",
        ),
        ({"split": "train"}, "which one of a on the split train would replace"),
        ({"config": {**CONFIG, "width": 8}}, "as trained with another width; choose"),
    ],
)
def test_evaluations_of_something_else_are_not_replaced(change, message, earlier):
    with pytest.raises(ValueError, match=f"{message}.*--output=DIR"):
        earlier({**WHERE, **change})


def test_evaluations_and_comparisons_do_not_replace_each_other(earlier, tmp_path):
    output = tmp_path / "evaluation"
    with pytest.raises(ValueError, match="of a on the split test, which a comparison"):
        suites.check_comparison(output)
    suites.check_comparison(tmp_path)
    report.write(output, [{"label": "A", "num_samples": 1}], provenance={}, title="A")
    suites.check_comparison(output)
    with pytest.raises(ValueError, match="holds an evaluation of something else"):
        earlier(WHERE)


def test_an_ensemble_of_workdirs_has_an_evaluation_of_its_own(tmp_path):
    names = [tmp_path / name for name in "abc"]
    assert suites.default_output(names[:1]) == tmp_path / "a" / "evaluation"
    assert suites.default_output(names) == tmp_path / "a" / "evaluation-of-3"


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
    message = "a has dropout in 2 as it was trained; leave out mc_stages"
    with pytest.raises(ValueError, match=message):
        suites.ensemble([trained_so], setting(), mc_stages="2")
    plain = run("a", initial=False, model="resnet_dnn_18")
    with pytest.raises(ValueError, match="networks with dropout; a has none"):
        suites.ensemble([plain], setting(), mc_stages="1")
    masked = run("a", initial=False, width=12, ensemble="masksembles")
    with pytest.raises(ValueError, match="take masks away that a was trained with"):
        suites.ensemble([masked], setting(), mc_stages="1")


def test_sizes_of_ensembles():
    assert ensemble_sizes(50) == (1, 2, 3, 4, 5, 10, 20, 50)
    assert ensemble_sizes(7) == (1, 2, 3, 4, 5, 7)
    assert ensemble_sizes(1) == (1,)
    assert ensemble_sizes(4, sizes=(3, 2)) == (1, 2, 3, 4)
    for sizes in ((0, 1), (1, 5)):
        with pytest.raises(ValueError, match=r"between 1 and num_samples, 4, got"):
            ensemble_sizes(4, sizes=sizes)


@pytest.mark.parametrize(
    ("config", "members", "expected"),
    [
        ({"model": "resnet_dnn_18"}, 1, "Deterministic"),
        ({"model": "resnet_mcdo_smoothing_18"}, 1, "MC dropout + smoothing"),
        ({"model": "vgg_dnn_smoothing_16"}, 5, "Deep ensemble + smoothing"),
        ({"model": "vgg_mcdo_16"}, 5, "Deep ensemble of MC dropout"),
        ({"model": "resnet_dnn_18", "rate": 0.3}, 1, "MC dropout"),
        ({"model": "resnet_mcdo_18", "rate": 0.0}, 2, "Deep ensemble"),
        (
            {"model": "resnet_mcdo_18", "smoothing": [0, 0, 1, 0]},
            1,
            "MC dropout + smoothing",
        ),
        (
            {"model": "resnet_mcdo_smoothing_18", "smoothing": [0, 0, 0, 0]},
            1,
            "MC dropout",
        ),
    ],
)
def test_labels_are_of_the_network_that_was_built(config, members, expected):
    model = recipes.build_model({"dataset": "cifar10", **config})
    assert suites.label(model, num_members=members) == expected


def test_labels_say_where_dropout_is():
    build = functools.partial(models.build, num_classes=10, mc_stages=("head", 3, 4))
    places = "stage 3, stage 4, head"
    smooth = suites.label(build("resnet_mcdo_smoothing_18"))
    assert smooth == f"MC dropout in {places} + smoothing"
    deep = suites.label(build("resnet_mcdo_18"), num_members=2)
    assert deep == f"Deep ensemble of MC dropout in {places}"
    assert suites.label(build("resnet_dnn_18")) == "Deterministic"


def test_rows_say_what_the_network_was_built_with():
    changed = run("a", model="resnet_dnn_18", rate=0.3, smoothing=[1])
    rows = suites.ensemble([changed], setting(num_samples=1))
    assert [row["label"] for row in rows] == ["MC dropout + smoothing"]
    assert [row["smoothed"] for row in rows] == [True]


def test_equal_labels_are_told_apart_unless_they_are_seeds():
    row = lambda label: {"label": label, "num_samples": 1}
    groups = {"a": [row("X"), row("Y")], "b": [row("X")]}
    configs = {"a": {"width": 4, "seed": 0}, "b": {"width": 8, "seed": 0}}
    labels = [found["label"] for found in suites.distinct_labels(groups, configs)]
    assert labels == ["X (a)", "Y", "X (b)"]
    configs["b"] = {"width": 4, "seed": 1}
    labels = [found["label"] for found in suites.distinct_labels(groups, configs)]
    assert labels == ["X", "Y", "X"]


def test_labels_that_differ_in_smoothing_and_more_are_told_apart():
    row = lambda label: {"label": label, "num_samples": 1}
    groups = {"a": [row("X")], "b": [row("X + smoothing")]}
    config = {"model": "resnet_mcdo_18", "width": 4, "seed": 0}
    smooth = {**config, "model": "resnet_mcdo_smoothing_18", "temperature": 5.0}
    labels = lambda *configs: [
        found["label"]
        for found in suites.distinct_labels(
            groups, dict(zip("ab", configs, strict=True))
        )
    ]
    assert labels(config, {**smooth, "seed": 7}) == ["X", "X + smoothing"]
    wide = labels(config, {**smooth, "width": 8})
    assert wide == ["X (a)", "X + smoothing (b)"]


def test_rows_that_are_in_several_workdirs_count_once():
    row = {"label": "X", "num_samples": 1, "run": "a", "suite": "corruption"}
    fog, snow = ({**row, "corruption": name} for name in ("fog", "snow"))
    deep = {**row, "run": "a, b", "label": "Deep X"}
    groups = {"a": [fog], "of-2": [fog, snow, deep, {**fog, "run": "b"}]}
    configs = {workdir: {"width": 4, "seed": 0} for workdir in groups}
    found = suites.distinct_labels(groups, configs)
    assert found == [fog, snow, deep, {**fog, "run": "b"}]


def test_deep_ensembles_of_other_sizes_are_no_seeds_of_one():
    """Two members with two samples each, and four with one, are both of N = 4."""
    row = lambda members, size, label="Deep X": {
        "label": label,
        "run": ", ".join("abcdefgh"[:members]),
        "num_members": members,
        "num_samples": size,
    }
    alone = {**row(1, 1), "label": "X"}
    two = [row(1, 1), row(2, 2), row(2, 4), alone]
    four = [*(row(members, members) for members in range(1, 5)), alone]
    smoothed = [row(4, 4, "Deep X + smoothing")]
    groups = {"a": two, "b": four, "c": smoothed}
    configs = {
        workdir: {"model": f"resnet_dnn{name}_18", "width": 4, "seed": seed}
        for seed, (workdir, name) in enumerate(
            {"a": "", "b": "", "c": "_smoothing"}.items()
        )
    }
    found = [
        (each["label"], each["num_samples"])
        for each in suites.distinct_labels(groups, configs)
    ]
    assert found == [
        *(("Deep X (M = 2)", size) for size in (1, 2, 4)),
        ("X", 1),
        *(("Deep X (M = 4)", size) for size in (1, 2, 3, 4)),
        ("Deep X + smoothing (M = 4)", 4),
    ]
    other = [{**each, "run": each["run"].upper()} for each in four]
    alike = suites.distinct_labels({"b": four, "d": other}, {"b": {}, "d": {}})
    assert {each["label"] for each in alike} == {"Deep X", "X"}
    older = [{**row(3, 3), "run": "older"}]
    del older[0]["num_members"]
    (*_, last) = suites.distinct_labels(
        {**groups, "d": older}, {**configs, "d": {**configs["a"], "seed": 9}}
    )
    assert last["label"] == "Deep X"


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


def test_means_over_other_numbers_of_runs_are_not_compared():
    rows = [
        *(row("MC dropout", 1, seed) for seed in (0, 1)),
        row("MC dropout + smoothing", 1, 2),
    ]
    assert suites.differences(rows, num_replicates=20) == []
    (found,) = suites.differences(
        [*rows, row("MC dropout + smoothing", 1, 3)], num_replicates=20
    )
    assert found["num_runs"] == 2


def test_undefined_scores_have_no_difference(monkeypatch):
    real = metrics.table

    def undefined(*arguments, **options):
        return real(*arguments, **options) | {"accuracy_90": jnp.nan}

    monkeypatch.setattr(metrics, "table", undefined)
    rows = [row("A", 1, 0), row("B", 1, 1)]
    (found,) = suites.differences(rows, num_replicates=21)  # compiled anew
    assert "accuracy_90" not in found["values"]
    assert np.isfinite(found["values"]["nll"]).all()


def test_smoothing_is_not_credited_with_another_difference():
    rows = [
        row("MC dropout", 1, 0) | {"recipe": "a"},
        row("MC dropout", 1, 1) | {"recipe": "b", "label": "MC dropout (b)"},
        row("MC dropout + smoothing", 1, 2) | {"recipe": "b"},
    ]
    (found,) = suites.differences(rows, num_replicates=20)
    assert found["label"] == "MC dropout + smoothing minus MC dropout (b)"


def test_recipes_differ_where_more_than_smoothing_and_seed_does():
    def recipe(**changes):
        name = ensembles.Ensemble((0,), 1)
        return about_ensembles([name], [run("a", initial=False, **changes)])[name][
            "recipe"
        ]

    same = recipe()
    plain = "resnet_mcdo_18"
    for changes in (
        {"seed": 3},
        {"model": plain},
        {"model": plain, "smoothing": [1], "temperature": 2.0},
        {"data_dir": "x", "members": 2},
    ):
        assert recipe(**changes) == same
    for changes in (
        {"width": 8},
        {"epochs": 3},
        {"model": "resnet_dnn_smoothing_18"},
        {"mc_stages": [1]},
    ):
        assert recipe(**changes) != same


def test_two_series_without_smoothing_are_compared_too():
    rows = [row("A", 1, 0), row("B", 1, 1)]
    (found,) = suites.differences(rows, num_replicates=20)
    assert found["label"] == "B minus A"
    assert suites.differences(rows, num_replicates=0) == []
    assert suites.differences([]) == []


def test_examples_come_back_with_their_rows(tmp_path):
    """A report has rows of ensembles first, in whatever order they are given."""
    other = {"suite": "hessian", "label": "B", "num_samples": 1}
    given = [other, row("A", 1, 0), row("A", 2, 1)]
    rows, files = suites.pack_examples(given)
    assert all("examples" not in found for found in rows)
    assert [*files] == ["examples.npz"]
    report.write(tmp_path, rows, provenance={}, title="A", files=files)
    rows, _ = report.read(tmp_path / "metrics.json")
    *back, last = suites.load_examples(tmp_path, rows)
    assert last == other
    for one, found in zip(given[1:], back, strict=True):
        assert one["num_samples"] == found["num_samples"]
        same = functools.partial(np.testing.assert_array_equal, strict=True)
        jax.tree.map(same, one["examples"], found["examples"])
    assert suites.load_examples(tmp_path / "none", rows) == rows
