import runpy

import numpy as np
import pytest
from checkout import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_learn(path, capsys):
    scores = runpy.run_path(str(path))["main"](num_steps=30)
    assert scores["nll"] < np.log(10)  # of a guess
    assert f"NLL {scores['nll']:.3f}" in capsys.readouterr().out


def test_there_is_a_short_example_for_each_kind_of_network():
    assert [path.stem for path in EXAMPLES] == ["linen_cnn", "nnx_cnn", "plain_jax"]
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) < 60
