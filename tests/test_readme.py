import re

import jax
import numpy as np
from checkout import ROOT

README = ROOT / "README.md"


def test_the_examples_run(tmp_path, monkeypatch):
    """All blocks in one namespace, from the top, as somebody would paste them."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        # Fewer samples and replicates, which take time and change nothing else.
        block = block.replace("batch_size=64", "batch_size=64, num_samples=3")
        exec(block, names)
    stage, maps = names["Stage"](), names["images"][:1]
    key = jax.random.key(0)
    assert stage.apply(stage.init(key, maps), maps).shape == (1, 16, 16, 64)
    assert [row["num_samples"] for row in names["rows"]] == [1, 2, 3]
    assert (tmp_path / "report" / "report.html").exists()
    assert names["logits"].shape == (64, 10)
    assert names["probs"].shape == (50, 64, 10)
    assert names["means"].shape == (5, 64, 10)
    assert 0 < names["scores"]["nll"] < 20
    logits = names["smoothed"].apply(names["variables"], names["images"])
    assert np.isfinite(logits).all()
