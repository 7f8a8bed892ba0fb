import json

import numpy as np
import pytest
from report_rows import curve

from benchmarks import ablations, tables
from benchmarks.tables import TABLES
from spatial_smoothing import ops, report
from spatial_smoothing.runs import recipes

CASES = {
    f"{table}/{case}": fields
    for table, cases in TABLES.items()
    for case, fields in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_a_network(name):
    config = {"dataset": "shapes", "width": 4, "stages": (1, 1, 1, 1), **CASES[name]}
    model = recipes.build_model(config)
    for field, value in CASES[name].items():
        assert field == "model" or getattr(model, field) == value


def test_what_a_case_leaves_out_is_what_the_layer_does():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(ops.smooth(x, **tables._DEFAULTS), ops.smooth(x))
    model = recipes.build_model(
        {"dataset": "shapes", "model": tables.SMOOTH, "width": 4, "stages": (1,) * 4}
    )
    assert (model.squash, tuple(model.taps)) == ("tanh", (1, 1))
    assert model.temperature in (None, 10.0)


@pytest.mark.parametrize("table", TABLES)
def test_cases_of_a_table_are_different(table):
    fields = list(TABLES[table].values())
    assert len({json.dumps(one, sort_keys=True) for one in fields}) == len(fields)


def test_a_run_is_named_after_what_it_is(tmp_path):
    fields = {"model": "resnet_mcdo_smoothing_18", "taps": (1, 2, 1)}
    job = ablations.job(tmp_path, fields, seed=2)
    name = "resnet_mcdo_smoothing_18-taps=1_2_1-seed=2"
    assert job.workdir == tmp_path / "runs" / name
    train, evaluate = ablations.commands(
        job, arguments=["--config.width=4"], num_samples=7
    )
    assert train == [
        "train.py",
        f"--workdir={job.workdir}",
        "--config=configs/shapes.py",
        "--config.width=4",
        "--config.model=resnet_mcdo_smoothing_18",
        "--config.taps=(1, 2, 1)",
        "--config.seed=2",
    ]
    assert evaluate[-1] == "--num_samples=7"


def test_tables_share_runs(tmp_path):
    paths = {
        table: {ablations.job(tmp_path, f, seed=0).workdir for f in cases.values()}
        for table, cases in TABLES.items()
    }
    assert paths["heads"] & paths["activation"] & paths["squash"]
    assert paths["squash"] & paths["taps"] & paths["temperature"]


def test_rows_are_labelled_by_case_and_averaged_over_seeds(tmp_path):
    for number, fields in enumerate(TABLES["heads"].values()):
        for seed in (0, 1):
            job = ablations.job(tmp_path, fields, seed=seed)
            rows = curve("MC dropout", sizes=(1, 2), run=str(job.workdir))
            rows = [{**row, "nll": row["nll"] + number + seed} for row in rows]
            report.write(
                job.workdir / "evaluation", rows, provenance={}, title="A title"
            )
    rows = ablations.rows(tmp_path, "heads", seeds=2)
    assert list(dict.fromkeys(row["label"] for row in rows)) == list(TABLES["heads"])
    page = report.write(tmp_path / "heads", rows, provenance={}, title="Heads")
    assert "the range over 2 runs" in page.read_text()


def test_failures_are_one_line(tmp_path):
    job = ablations.Job(tmp_path, {"modle": "x"})
    train, _ = ablations.commands(job, arguments=[], num_samples=1)
    with pytest.raises(ValueError, match=r"^train\.py .*: error: unknown config field"):
        ablations.execute(train)


def test_results_of_other_settings_are_kept_apart(tmp_path):
    ablations._claim(tmp_path / "new", {"num_samples": 1})
    ablations._claim(tmp_path / "new", {"num_samples": 1})
    with pytest.raises(ValueError, match="new holds runs of other settings; choose"):
        ablations._claim(tmp_path / "new", {"num_samples": 2})
