"""The comparison of rivals: its runs, and the report from their rows."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import pytest
from command_calls import called
from random_runs import write_run

from benchmarks import (
    rival_costs,
    rival_findings,
    rival_methods,
    rival_readme,
    rivals,
    row_files,
)
from spatial_smoothing import models
from spatial_smoothing.cli import config_fields, config_files
from spatial_smoothing.report.runs import averaged
from spatial_smoothing.runs import recipes

SMALL = rival_methods.SCALES["small"]


@pytest.mark.parametrize("scale", rival_methods.SCALES)
def test_every_run_of_a_scale_is_a_network(scale, monkeypatch):
    chosen, seeds = rival_methods.SCALES[scale], set()
    # To trace all networks of the full size takes minutes.
    monkeypatch.setattr(recipes, "abstract_variables", lambda *_, **__: None)
    runs = rival_methods.jobs(seeds=2)
    for job in runs:
        config = config_files.load(chosen.config)
        fields = job.fields(chosen)
        config.update(fields)
        network = recipes.build_model(config_fields.read(config.to_dict()))
        assert any(network.smoothing) == job.smoothed
        assert network.has_dropout == rival_methods.METHODS[job.method].dropout
        members = fields.get("members", 1)
        seeds |= {
            (job.method, job.smoothed, fields["seed"] + member)
            for member in range(members)
        }
    # No two runs, and no two members, have a seed in common.
    assert len(seeds) == sum(job.fields(chosen).get("members", 1) for job in runs)


def test_a_run_is_trained_by_train_py_with_its_fields(tmp_path):
    job = rival_methods.Job("mimo", True, 2)
    command = rivals.train_command(job, SMALL, workdir=tmp_path)
    assert command[:3] == [
        "train.py",
        f"--workdir={tmp_path}",
        "--config=configs/shapes.py",
    ]
    assert "--config.model=resnet_dnn_smoothing_18" in command
    assert "--config.ensemble=mimo" in command
    assert "--config.seed=2" in command


def test_runs_that_are_there_are_evaluated_once_and_reported(tmp_path, monkeypatch):
    small = rival_methods.Scale(
        "shapes", {"stages": (1,), "width": 4}, rate=0.1, num_samples=2
    )
    monkeypatch.setitem(rivals.SCALES, "small", small)
    monkeypatch.setattr(rivals.commands, "execute", pytest.fail)  # trains nothing
    for seed in range(2):
        for job in rival_methods.jobs(seeds=2, methods=["batch_ensemble"]):
            if job.seed == seed and not job.smoothed:
                folder = tmp_path / "work" / job.name
                write_run(folder, **{"dataset": "shapes", **job.fields(small)})
                (folder / "finished").touch()
    monkeypatch.setattr(
        rivals,
        "jobs",
        lambda **options: [
            job for job in rival_methods.jobs(**options) if not job.smoothed
        ],
    )
    load = recipes.loader

    def few(config):
        return lambda name, split: load(config)(name, split).subset(slice(0, 40))

    monkeypatch.setattr(rivals.recipes, "loader", few)
    arguments = (
        f"--output={tmp_path / 'out'}",
        f"--workdirs={tmp_path / 'work'}",
        "--seeds=2",
        "--methods=batch_ensemble",
    )
    called(rivals, *arguments)
    path = tmp_path / "out" / "runs.json"
    content = json.loads(path.read_text())
    assert [run["name"] for run in content["rows"]] == [
        "batch_ensemble-plain-0",
        "batch_ensemble-plain-1",
    ]
    (row,) = content["rows"][0]["rows"]
    assert (row["label"], row["num_samples"]) == ("BatchEnsemble", 4)
    assert row["run"] == "batch_ensemble-plain-0"
    readme = (tmp_path / "out" / "README.md").read_text()
    both = [run["rows"][0]["nll"] for run in content["rows"]]
    mean, low, high = sum(both) / 2, min(both), max(both)
    scores = f"{mean:.3f} ({low:.3f} to {high:.3f})"
    line = f"| BatchEnsemble | 4 | 2 | {row['gflops']:.3g} | {scores}"
    assert line in readme
    assert content["provenances"][0]["time"][:10] in readme
    monkeypatch.setattr(rivals, "evaluate", pytest.fail)  # the rows are there
    page = tmp_path / "out" / "report.html"
    page.unlink()
    called(rivals, *arguments)
    assert page.exists()


def made_up(method, label, *, seed, nll, size=2, gflops=1.0, accuracy=0.5):
    """A row of a run, as `rivals.evaluate` makes it."""
    smoothing = "smoothed" if label.endswith("smoothing") else "plain"
    return {
        "label": label,
        "run": f"{method}-{smoothing}-{seed}",
        "dataset": "shapes",
        "num_samples": size,
        "num_examples": 900,
        "nll": nll,
        "accuracy": accuracy,
        "ece": 0.1,
        "gflops": gflops,
    }


def two_methods():
    dropout = functools.partial(made_up, "mc_dropout")
    mimo = functools.partial(made_up, "mimo")
    plain, smooth = "MC dropout", "MC dropout + smoothing"
    return [
        *(dropout(plain, seed=seed, nll=1.0 + seed, gflops=2.0) for seed in range(3)),
        *(dropout(smooth, seed=s, nll=0.9 + s, gflops=1.1, size=1) for s in range(3)),
        # In another order of seeds: differences of 0.1, 0.2 and 0.3.
        *(
            dropout(smooth, seed=seed, nll=1.1 + 1.1 * seed, gflops=2.2)
            for seed in (2, 0, 1)
        ),
        *(mimo("MIMO", seed=seed, nll=0.9 + seed / 10, size=3) for seed in range(3)),
        *(
            mimo("MIMO + smoothing", seed=s, nll=0.5, size=3, accuracy=0.75, gflops=1.5)
            for s in range(3)
        ),
    ]


def test_differences_are_of_runs_with_the_same_seed():
    dropout, mimo = rival_findings.changes(two_methods())
    assert (dropout.label, dropout.size, dropout.seeds) == ("MC dropout", 2, 3)
    assert dropout.cost == pytest.approx(1.1)
    # Student's t with two degrees of freedom, from a printed table.
    half = 4.302653 * 0.1 / 3**0.5
    expected = (0.2, 0.2 - half, 0.2 + half)
    assert dropout.scores["nll"] == pytest.approx(expected)
    assert not dropout.is_clear("nll")
    assert mimo.scores["nll"] == pytest.approx((-0.5, -0.5 - half, -0.5 + half))
    assert mimo.is_clear("nll")
    # A seed with one of the two runs makes no pair; one pair has no interval.
    rows = [row for row in two_methods() if row["run"] != "mimo-plain-1"]
    assert rival_findings.changes(rows)[1].seeds == 2
    single = [row for row in two_methods() if row["run"].endswith("2")]
    mean, low, high = rival_findings.changes(single)[0].scores["nll"]
    assert (mean, math.isnan(low), math.isnan(high)) == (pytest.approx(0.3), True, True)
    assert (
        rival_findings.changes([row for row in rows if row["num_samples"] == 1]) == []
    )


def test_the_page_says_what_the_rows_show():
    rows = two_methods()
    found = rival_findings.sentences(rows, averaged(rows))
    assert found == [
        "Of 2 methods, each at its largest N, smoothing lowers the mean NLL of 1 "
        "(MIMO) and raises that of 1 (MC dropout). The 95 % interval of the difference "
        "excludes zero for 1 (MIMO).",
        "MC dropout with smoothing needs N = 1 (mean NLL 1.900, 1.1 GFLOPs) to be as "
        "good as without it at its best, N = 2 (mean NLL 2.000, 2 GFLOPs).",
        "The lowest mean NLL is 0.500, of MIMO + smoothing with N = 3, 1.5 GFLOPs.",
        "On the Pareto front of mean NLL and GFLOPs, from the cheapest to the dearest: "
        "MIMO with N = 3 and MIMO + smoothing with N = 3.",
        "All methods have the same number of epochs, in which some may learn less than "
        "others: the mean accuracy at the best N is between 50.0%, of MIMO with "
        "N = 3, and 75.0%, of MIMO + smoothing with N = 3.",
    ]
    # The smoothed network is worse with both N.
    worse = [
        row | {"nll": row["nll"] + 9 * row["label"].endswith("smoothing")}
        for row in rows
    ]
    found = rival_findings.sentences(worse, averaged(worse))
    assert (
        "lowers the mean NLL of none and raises that of 2 (MC dropout and" in found[0]
    )
    assert found[1].startswith("MC dropout with smoothing is at no N as good as")
    # Means over different numbers of runs are not ranked.
    found = rival_findings.sentences(rows[1:], averaged(rows[1:]))
    assert len(found) == 2
    assert "are not ranked" in found[1]


def test_a_member_alone_is_the_ensemble_with_one_prediction(tmp_path):
    path = tmp_path / "runs.json"
    names = ("deep-plain-0 #0,1,2,3", "deep-plain-0 #0", "mimo-plain-0")
    runs = [{"name": "a", "rows": [{"run": name} for name in names]}]
    path.write_text(json.dumps({"rows": runs, "provenances": []}))
    kept = [row["run"] for row in rivals.finished(row_files.RowFile(path))]
    assert kept == ["deep-plain-0 #0,1,2,3", "mimo-plain-0"]


def test_the_page_says_what_was_run():
    rows = [row for row in two_methods() if row["run"][-1] != "2"]
    about = {
        **{"commit": "abc", "time": "2026-01-02T03", "device": "cpu"},
        **{"num_devices": 1, "machine": "m", "libraries": {"jax": "9"}},
    }
    text = rival_readme.text(rows, [(about, 7), (about, 1)], scale="small")
    for part in (
        "# Rivals of spatial smoothing, small scale: shapes\n",
        "It says nothing of CIFAR-100",
        "with 4 blocks and 12 channels",
        "for 4 epochs",
        "scored on 900 test images",
        "differ in their seeds (0 and 1)",
        "- MIMO (`ensemble=mimo`, `ensemble_size=2`): members",
        "- MC dropout (`rate=0.1`): dropout",
        "--scale=small --seeds=2 --methods=mc_dropout,mimo\n",
        "- 7 runs at commit abc since 2026-01-02, on 1 x cpu (m), JAX 9\n- 1 run at",
        "| MIMO | 3 | 2 | 1 | 0.950 (0.900 to 1.000) | 50.0 (50.0 to 50.0) | 10.0 (10.",
        "| MC dropout | 2 | 2 | × 1.10 | +0.150 (-0.485 to +0.785) | +0.0 (+0.0 to",
        "| MIMO + smoothing | 3 | 2 | 1.5 | 0.500 (0.500 to 0.500) | 75.0",
    ):
        assert part in text
    best = text.partition("## Each method")[2].partition("##")[0]
    order = [line.split(" | ")[0][2:] for line in best.splitlines() if "| " in line]
    assert order[2:] == [
        *("MIMO + smoothing", "MIMO", "MC dropout + smoothing", "MC dropout")
    ]
    assert "| NLL, Accuracy |" in best


def test_costs_are_those_of_the_network_that_is_trained():
    """The config of a scale has fields that differ from the network's defaults."""
    scale = rival_methods.Scale("shapes", {"width": 4}, rate=0.1, num_samples=2)
    job = rival_methods.Job("mc_dropout", False, 0)
    trained = models.build("resnet_dnn_18", num_classes=10, width=4, stages=(1,) * 4)
    variables = jax.eval_shape(
        trained.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    expected = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert rival_costs.costs(job, scale, batch_size=1)["parameters"] == expected


def test_costs_of_a_method_count_its_members():
    tiny = rival_methods.Scale(
        "shapes", {"stages": (1,), "width": 8}, rate=0.1, num_samples=2
    )
    found = {
        method: rival_costs.costs(
            rival_methods.Job(method, False, 0), tiny, batch_size=2
        )
        for method in ("deep", "batch_ensemble", "packed", "mc_dropout")
    }
    single = found["mc_dropout"]["gflops"]
    assert found["deep"]["gflops"] == pytest.approx(4 * single, rel=1e-3)
    # Members of BatchEnsemble share parameters, and not operations.
    assert 4 * single < found["batch_ensemble"]["gflops"] < 5 * single
    assert found["batch_ensemble"]["parameters"] < 2 * found["deep"]["parameters"]
    # alpha = 2 in 4 groups: as many operations as one network, twice in the first.
    assert single < found["packed"]["gflops"] < 2 * single
    assert [each["predictions"] for each in found.values()] == [4, 4, 4, 1]
