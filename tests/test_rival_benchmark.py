"""The comparison of rivals: its runs, and the report from their rows."""

import json

import jax
import jax.numpy as jnp
import pytest
from command_calls import called
from random_runs import write_run

from benchmarks import rival_costs, rival_methods, rival_readme, rivals
from spatial_smoothing import models
from spatial_smoothing.cli import config_fields, config_files
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


def test_the_page_says_what_the_rows_show():
    def row(label, nll, gflops, size=1):
        scores = {"nll": nll, "accuracy": 0.5, "ece": 0.1, "gflops": gflops}
        return {"label": label, "num_samples": size, "num_examples": 9, **scores}

    rows = [
        *(row("MC dropout", nll, 2.0, size=2) for nll in (1.0, 1.2)),
        row("MC dropout + smoothing", 1.3, 2.2, size=2),
        row("MIMO", 0.9, 1.0),
        row("MIMO + smoothing", 0.8, 1.1),
    ]
    found = rival_readme.shows(rival_readme.means(rows))
    assert "lowers the mean NLL of 1 of 2 methods here (MIMO)" in found
    assert found.endswith("are: MIMO, MIMO + smoothing.")


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
