"""The provenance on the page: collapsed, resolved, and as a difference of runs."""

import re

from report_rows import PROVENANCE, Page, demo, write

from spatial_smoothing.report.provenance import provenance


def evaluation(model, *, seed=0, **network):
    config = {"model": model, "rate": None, "seed": seed, "data_dir": None}
    runs = [{"workdir": f"runs/{model}", "step": 7}]
    return {"runs": runs, "config": config, "network": {"rate": 0.3, **network}}


def test_one_evaluation_is_a_list_with_resolved_values():
    found = provenance(evaluation("m"))
    assert not found.runs
    assert not found.differing
    assert found.common == {
        "runs.0.workdir": "runs/m",
        "runs.0.step": "7",
        "config.model": "m",
        "config.rate": "0.3 (the model's own)",
        "config.seed": "0",
        "config.data_dir": "–",
    }


def test_runs_are_shown_by_what_differs():
    one, two = evaluation("m"), evaluation("n", rate=0.1)
    two["config"]["new"] = [1, 2]
    found = provenance({"runs/a": one, "runs/b": two})
    assert found.runs == ["runs/a", "runs/b"]
    assert found.differing == {
        "runs.0.workdir": ["runs/m", "runs/n"],
        "config.model": ["m", "n"],
        "config.rate": ["0.3 (the model's own)", "0.1 (the model's own)"],
        "config.new": ["–", "[1, 2]"],
    }
    assert found.common == {
        "runs.0.step": "7",
        "config.seed": "0",
        "config.data_dir": "–",
    }


def test_the_page_shows_it_collapsed(tmp_path):
    page = Page(write(tmp_path, demo(), provenance=PROVENANCE).read_text())
    assert page.all("details") == [{}]
    assert {"commit", "abc", "config.sizes", "[1, 2]"} <= {*page.texts}
    runs = {"runs/a": evaluation("<m>"), "runs/b": evaluation("n")}
    document = write(tmp_path, demo(), provenance=runs).read_text()
    page = Page(document)
    assert page.all("details") == [{}, {}]
    assert "What differs between the runs (2)" in page.texts
    assert "What the runs share (4)" in page.texts
    table = document[document.index("What differs") :]
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
    assert heads == ["Value", "runs/a", "runs/b"]
    assert "<m>" in page.texts
