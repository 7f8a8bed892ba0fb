import runpy

import numpy as np
import pytest
from checkout import ROOT

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
TRAINED = ["linen_cnn", "nnx_cnn", "plain_jax"]
EVALUATED = ["evaluate_function", "evaluate_linen", "evaluate_nnx"]


@pytest.mark.parametrize("name", TRAINED)
def test_examples_learn(name, capsys):
    scores = runpy.run_path(str(EXAMPLES[name]))["main"](num_steps=30)
    assert scores["nll"] < np.log(10)  # of a guess
    assert f"NLL {scores['nll']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize("name", EVALUATED)
def test_examples_evaluate(name, tmp_path, capsys):
    rows = runpy.run_path(str(EXAMPLES[name]))["main"](tmp_path / "report")
    page = tmp_path / "report" / "report.html"
    assert capsys.readouterr().out.split() == [str(page)]
    assert page.stat().st_size > 10_000
    samples = {row["num_samples"] for row in rows if row["num_members"] == 1}
    assert samples == {1, 2, 3, 4, 5, 10}
    # Samples differ, so that their average is another prediction.
    first, *_, last = (row["nll"] for row in rows if row["num_members"] == 1)
    assert first != last


def test_there_is_a_short_example_for_each_kind_of_network():
    assert sorted(EXAMPLES) == sorted(TRAINED + EVALUATED)
    for path in EXAMPLES.values():
        assert len(path.read_text().splitlines()) < 60
