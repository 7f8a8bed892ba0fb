"""Models of other people, evaluated as runs are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

import spatial_smoothing as ss
from spatial_smoothing import ensembles
from spatial_smoothing.evaluation.own_models import evaluate

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, 40)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        live = self.has_rng("dropout")
        x = nn.Dropout(0.5, deterministic=not live)(x.reshape(len(x), -1))
        return nn.Dense(3)(x)


class Graph(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(48, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(x.reshape(len(x), -1)))


def function(kernel, x, key):
    x = x.reshape(len(x), -1)
    kept = True if key is None else jax.random.bernoulli(key, 0.5, x.shape)
    return jnp.where(kept, 2 * x, 0) @ kernel


def prepare(images):
    return images / 255.0 - 0.5


KERNEL = RNG.standard_normal((48, 3)).astype(np.float32)
MODELS = {
    "Linen": (Linen(), Linen().init(KEY, jnp.zeros((1, 4, 4, 3)))),
    "Graph": (Graph(nnx.Rngs(0)), None),
    "function": (function, KERNEL),
}


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_every_size(name):
    model, variables = MODELS[name]
    rows = evaluate(
        model,
        variables,
        (IMAGES, LABELS),
        key=KEY,
        num_samples=5,
        prepare=prepare,
        batch_size=40,
        num_replicates=50,
    )
    assert [row["num_samples"] for row in rows] == [1, 2, 3, 4, 5]
    assert {row["label"] for row in rows} == {name}
    # The first batch draws from fold_in(data key, 0), member 0 from fold_in(that, 0).
    data_key = jax.random.split(KEY, 4)[0]
    stream = jax.random.fold_in(jax.random.fold_in(data_key, 0), 0)
    probs = np.float64(
        ss.mc_dropout(stream, model, variables, prepare(IMAGES), num_samples=5)
    )
    for row in rows:
        mean = probs[: row["num_samples"]].mean(0)
        nll = -np.log(mean[np.arange(40), LABELS])
        assert row["nll"] == pytest.approx(nll.mean(), rel=1e-5)
        assert row["accuracy"] == pytest.approx((mean.argmax(1) == LABELS).mean())
        low, high = row["intervals"]["nll"]
        assert low < row["nll"] < high
        np.testing.assert_allclose(row["examples"].nll, nll, rtol=1e-4)


def test_a_network_of_several_predictions_in_a_pass_is_an_ensemble():
    model = ss.models.build(
        "resnet_dnn_18", num_classes=3, width=4, stages=(1,), ensemble="mimo"
    )
    variables = model.init(KEY, jnp.zeros((1, 4, 4, 3)))
    (row,) = evaluate(
        model,
        variables,
        (IMAGES, LABELS),
        key=KEY,
        prepare=prepare,
        batch_size=16,
        num_replicates=0,
    )
    assert row["num_samples"] == 4
    logits = np.float64(model.apply(variables, prepare(IMAGES)))
    mean = scipy.special.softmax(logits, -1).mean(0)
    nll = -np.log(mean[np.arange(40), LABELS]).mean()
    assert row["nll"] == pytest.approx(nll, rel=1e-5)


def test_members_are_a_deep_ensemble_and_themselves():
    kernels = [KERNEL, KERNEL[:, ::-1]]
    logits = lambda kernel, x: x.reshape(len(x), -1) @ kernel
    rows = evaluate(
        logits,
        ensembles.stack(kernels),
        (IMAGES, LABELS),
        key=KEY,
        num_members=2,
        prepare=prepare,
        batch_size=16,
        label="mine",
        num_replicates=0,
    )
    found = [(row["label"], row["num_members"], row["num_samples"]) for row in rows]
    deep = "Deep ensemble of mine"
    assert found == [(deep, 1, 1), (deep, 2, 2), ("mine", 1, 1), ("mine", 1, 1)]
    flat = prepare(IMAGES).reshape(40, -1)
    each = [scipy.special.softmax(flat @ kernel, axis=-1) for kernel in kernels]
    for probs, row in zip((each[0], (each[0] + each[1]) / 2, *each), rows, strict=True):
        expected = -np.log(probs[np.arange(40), LABELS]).mean()
        assert row["nll"] == pytest.approx(expected, rel=1e-4)


def test_temperature_and_out_of_distribution_detection():
    rows = evaluate(
        function,
        KERNEL,
        (IMAGES[:20], LABELS[:20]),
        key=KEY,
        num_samples=2,
        prepare=prepare,
        batch_size=8,
        held_out=(IMAGES[20:], LABELS[20:]),
        ood=("grey", (np.full_like(IMAGES, 128), LABELS)),
        num_replicates=0,
    )
    for row in rows:
        assert row["temperature"] > 1  # random logits of this size are overconfident
        assert row["calibrated_nll"] < row["nll"]
        assert row["detection"]["dataset"] == "grey"
        assert row["detection"]["scores"]["entropy"]["auroc"] > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": (IMAGES, LABELS[:3])},
            r"data must be images \[n, \.\.\.\]",
        ),
        (
            {"data": (IMAGES, LABELS / 2)},
            "must be integers, got float64",
        ),
        ({"data": (IMAGES, LABELS + 1)}, r"must lie in \[0, 3\), .* got 1 to 3"),
        ({"data": (IMAGES,)}, "pair of images and labels, or a data set, got 1 values"),
        ({"data": IMAGES}, "data must be a pair of images and labels.* got ndarray"),
        ({"held_out": "train"}, "held_out must be a pair of images .* got str"),
        ({"ood": (IMAGES, LABELS)}, "ood must be a pair of a name and of data"),
        ({"ood": ("grey", IMAGES)}, "ood must be a pair of images .* got ndarray"),
        ({"data": [IMAGES, LABELS], "batch_size": 12}, "batch_size 12 cannot be div"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"sizes": (1, 9)}, "sizes must be between 1 and num_samples, 5, got 1, 9"),
        ({"num_members": 2}, "variables of 2 members must have a leading axis"),
        ({"num_members": 0}, "num_members must be at least 1, got 0"),
        ({"model": lambda v, x: x}, r"must return logits \[B, K\], got shape"),
        ({"batch_size": 12}, "batch_size 12 cannot be divided by 8 devices"),
    ],
)
def test_mistakes_are_one_line(changes, message):
    given = {
        "model": function,
        "variables": KERNEL,
        "data": (IMAGES, LABELS),
        "num_samples": 5,
        "batch_size": 16,
        "prepare": prepare,
        **changes,
    }
    inputs = [given.pop(name) for name in ("model", "variables", "data")]
    with pytest.raises(ValueError, match=message):
        evaluate(*inputs, key=KEY, **given)
