"""What a training starts from: weights of a run, or of a file of PyTorch."""

import hashlib

import flax.traverse_util
import jax
import numpy as np
import pytest
from random_runs import write_run
from small_weights import SMALL, small_state

import spatial_smoothing as ss
from spatial_smoothing.runs import initial_weights, recipes, workdirs
from spatial_smoothing.training.checkpoints import Checkpoints

BASE = {"model": "resnet_dnn_18", "width": 4, "stages": (1, 1), "dataset": "shapes"}
BASE["seed"] = 0


def shapes_of(config):
    model = recipes.build_model(config)
    return recipes.abstract_variables(model, image_size=32)


def chosen(source, *, num_classes=10, members=1, **changes):
    config = {**BASE, "init_from": str(source), **changes}
    return initial_weights.choose(
        initial_weights.read(config),
        shapes_of({**config, **({} if num_classes == 10 else {"dataset": "cifar100"})}),
        num_classes=num_classes,
        members=members,
    )


def flat(variables):
    return flax.traverse_util.flatten_dict(jax.device_get(variables))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", model="resnet_dnn_18", stages=[1, 1])


def test_a_run_gives_all_its_weights(run):
    found = chosen(run)
    expected = flat(workdirs.load(run).variables)
    assert found.values.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found.values[path], value)
    count = len(expected)
    assert (
        found.text == f"initial weights: {count} of {count} arrays from {run} (step 7)"
    )
    assert found.about["drawn_anew"] == found.about["not_used"] == []


def test_a_head_of_another_number_of_classes_is_drawn_anew(run):
    found = chosen(run, num_classes=100)
    head = [("params", "head", "dense", leaf) for leaf in ("kernel", "bias")]
    assert flat(workdirs.load(run).variables).keys() - found.values.keys() == {*head}
    assert "; drawn anew: head/dense/" in found.text
    assert found.text.endswith("(100 classes, 10 there)")
    assert sorted(found.about["drawn_anew"]) == sorted("/".join(p) for p in head)


def test_smoothing_and_dropout_may_be_added(run):
    found = chosen(run, model="resnet_mcdo_smoothing_18", smoothing=(1, 1))
    assert len(found.values) == len(flat(workdirs.load(run).variables))
    normed = chosen(
        run, model="resnet_mcdo_smoothing_18", smoothing=(1, 1), smoothing_norm=True
    )
    assert normed.values.keys() == found.values.keys()
    assert "smoothing1_0/norm/scale" in ", ".join(normed.about["drawn_anew"])


@pytest.mark.parametrize("naming", ["authors", "torchvision"])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_a_file_of_pytorch(tmp_path, naming, prefix):
    variables = ss.convert.from_pytorch("resnet_dnn_18", small_state(), **SMALL)
    state = ss.convert.to_pytorch("resnet_dnn_18", variables, naming=naming, **SMALL)
    path = tmp_path / "net.npz"
    np.savez(path, **{f"{prefix}{key}": value for key, value in state.items()})
    found = chosen(
        path, num_classes=100, model="resnet_mcdo_smoothing_18", smoothing=(1, 1)
    )
    expected = flat(variables)
    for leaf in ("kernel", "bias"):
        del expected["params", "head", "dense", leaf]
    assert found.values.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found.values[key], value)
    assert found.about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_normalisation_is_that_of_the_weights(tmp_path, run):
    source = workdirs.load(run).source
    found = initial_weights.read({**BASE, "init_from": run})
    assert (found.mean, found.std) == (source.mean, source.std)
    np.savez(tmp_path / "net.npz", **small_state())
    # Ten classes have several data sets: nobody knows which it was.
    found = initial_weights.read({**BASE, "init_from": f"{tmp_path}/net.npz"})
    assert (found.mean, found.std) == (None, None)


def test_normalisation_is_not_that_of_a_set_for_segmentation(tmp_path):
    """CamVid, whose pixels are only scaled, has 11 classes of pixels."""
    small = {**SMALL, "num_classes": 11}
    model = ss.models.build("resnet_dnn_18", **small)
    shapes = recipes.abstract_variables(model, image_size=32)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    state = ss.convert.to_pytorch("resnet_dnn_18", variables, **small)
    np.savez(tmp_path / "net.npz", **state)
    found = initial_weights.read({**BASE, "init_from": f"{tmp_path}/net.npz"})
    assert found.num_classes == 11
    assert (found.mean, found.std) == (None, None)


def test_a_digest_tells_weights_apart(tmp_path, run):
    digests = {initial_weights.read({**BASE, "init_from": run}).digest}
    other = workdirs.claim(tmp_path / "other", {**BASE, "seed": 1})
    variables = jax.device_get(workdirs.load(run).variables)
    kernel = np.array(variables["params"]["stem_conv"]["kernel"])
    kernel[0, 0, 0, 0] += 1e-3
    variables["params"]["stem_conv"]["kernel"] = kernel
    with Checkpoints(other / "checkpoints") as checkpoints:
        checkpoints.save(7, {"variables": variables}, {"step": 7})
    digests.add(initial_weights.read({**BASE, "init_from": str(other)}).digest)
    assert len(digests) == 2


def ensemble(path, run):
    path = workdirs.claim(path, {**BASE, "members": 2})
    one = workdirs.load(run).variables
    stacked = jax.tree.map(lambda x: np.stack([x, x + 1]), jax.device_get(one))
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(7, {"variables": stacked}, {"step": 7})
    return path


def test_members(tmp_path, run):
    one, both = chosen(run, members=2), chosen(ensemble(tmp_path / "e", run), members=2)
    for path, value in one.values.items():  # the trainer gives it to every member
        np.testing.assert_array_equal(both.values[path], [value, value + 1])
    with pytest.raises(ValueError, match=r"holds the 2 members .* members is 1; set"):
        chosen(tmp_path / "e")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "imagenet"}, r"stem_conv/kernel \(3, 3, 3, 4\), not \(7, 7, 3, 4\)"),
        ({"width": 8}, "of another shape: .*; give the config its model, stem, width"),
        ({"stages": (2, 1)}, "missing: .*stage1_block1"),
        ({"stages": (1,)}, "left over: .*stage2_block0"),
    ],
)
def test_weights_of_another_network(run, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        chosen(run, **changes)
    assert "\n" not in str(error.value)


def test_sources_that_are_none(tmp_path):
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "odd.npz", a=np.zeros(3, np.float32))
    for name, message in (
        ("nowhere", "does not exist; give a workdir or a file"),
        ("folder", "is a folder without config.json; give the workdir of a run"),
        ("odd.npz", r"no known layout \(a\); layouts that are known: authors"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(tmp_path / name)
