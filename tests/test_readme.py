import re

import jax
import numpy as np
from checkout import ROOT

README = ROOT / "README.md"


def test_the_examples_run():
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    names = {"key": jax.random.key(0), "images": images, "x": images}
    names["labels"] = np.array([3, 5])
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        # A small network in place of the paper's.
        exec(block.replace('stem="cifar"', "width=4, stages=(1, 1)"), names)
    stage, maps = names["Stage"](), images[:1]
    assert stage.apply(stage.init(names["key"], maps), maps).shape == (1, 4, 4, 64)
    assert names["logits"].shape == (2, 100)
    assert names["probs"].shape == (50, 2, 100)
    assert names["means"].shape == (5, 2, 100)
    assert 0 < names["scores"]["nll"] < 20
