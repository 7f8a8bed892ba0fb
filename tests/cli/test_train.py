"""What a training finds out before it begins, without a process of its own."""

import json
import shutil

import jpeg_images
import numpy as np
import pytest
from random_runs import write_run
from small_runs import run
from small_weights import SMALL, small_state

from spatial_smoothing.cli import config_fields, train
from spatial_smoothing.configs import cifar100_improved, common, imagenet
from spatial_smoothing.data import sources, statistics
from spatial_smoothing.evaluation.suites import settings
from spatial_smoothing.runs import initial_weights, recipes, workdirs
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training.checkpoints import Checkpoints
from spatial_smoothing.training.objectives import StepOptions

# Fields that versions 0.1 had already, or have had meanings of their own since.
OLDER = {"members", "shard_state", "train_split", "mean", "std", "init_from"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))


def config(**changes):
    base = common.get_config().to_dict()
    small = {"model": "resnet_dnn_18", "width": 4, "stages": (1,), "batch_size": 8}
    return {**base, **small, "eval_batch_size": 8, **changes}


def npz(path, classes=3, count=16):
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % classes
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_part_of_the_training_split(tmp_path):
    given = config(dataset=npz(tmp_path / "a.npz"), train_split="train[:75%]")
    resolved, _ = train.resolve(given, tmp_path / "run")
    job = train.load(resolved)
    assert job.train.num_examples == 12
    np.testing.assert_array_equal(job.train.labels, np.arange(12) % 3)
    assert job.splits["test"].num_examples == 16


def test_a_run_keeps_what_the_data_tell(tmp_path, monkeypatch):
    given = config(dataset=npz(tmp_path / "a.npz"))
    resolved, _ = train.resolve(given, tmp_path / "run")
    workdirs.claim(tmp_path / "run", resolved)
    held = workdirs.read_config(tmp_path / "run")
    source = sources.source(given["dataset"])
    assert tuple(held["mean"]) == source.mean
    assert held["in_memory"] is True
    # The same command continues, also where the statistics cannot be computed again.
    monkeypatch.setattr(statistics, "mean_and_std", lambda _: 1 / 0)
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "other"))
    again, _ = train.resolve(given, tmp_path / "run")
    workdirs.claim(tmp_path / "run", again)
    with pytest.raises(ValueError, match=r"mean is .* there and .* here"):
        workdirs.claim(tmp_path / "run", {**again, "mean": (0.1, 0.2, 0.3)})


def test_fine_tuning_begins_from_a_run_and_continues_without_it(tmp_path):
    source = write_run(tmp_path / "source", model="resnet_dnn_18", dataset="cifar10")
    cifar = workdirs.load(source).source
    given = config(
        dataset="shapes", init_from=source, freeze=("stem",), backbone_factor=0.1
    )
    resolved, pretrained = train.resolve(given, tmp_path / "run")
    # Images are normalised as those that the weights were trained on.
    assert resolved["mean"] == cifar.mean != sources.source("shapes").mean
    job = train.load(resolved, pretrained=pretrained)
    assert job.initial.about["step"] == 7
    path = workdirs.claim(tmp_path / "run", resolved)
    workdirs.sign(path, initial_weights=job.initial.about)
    held = json.loads((path / "provenance.json").read_text())
    assert held["initial_weights"]["sha256"] == pretrained.digest
    # A start before the first checkpoint begins from the source again.
    assert train.resolve(given, path)[1].digest == pretrained.digest
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"variables": {"a": np.zeros(1)}}, {"step": 1})
    shutil.rmtree(source)
    again, pretrained = train.resolve(given, path)
    assert pretrained is None
    assert again["mean"] == list(cifar.mean)
    assert workdirs.claim(path, again) == path
    workdirs.sign(path)
    held = json.loads((path / "provenance.json").read_text())
    assert held["initial_weights"]["path"] == source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "nowhere"}, "init_from .*nowhere does not exist"),
        ({"freeze": ("stage7",)}, "unknown part to freeze 'stage7'"),
        ({"train_split": "train[:0]"}, "is empty; give a larger one"),
        ({"train_split": "tran"}, "unknown split 'tran'; did you mean 'train'"),
        ({"train_samples": 2}, "train_samples 2 is for networks with dropout"),
        (
            {"train_samples": 3, "rate": 0.1},
            "batch_size 8 must be a multiple of train_samples 3",
        ),
        ({"dropout_placement": "last", "mc_stages": (1,)}, "in the head alone, and"),
        ({"alpha": 3.0}, "alpha is for ensemble=packed, and ensemble is None; leave"),
        (
            {"ensemble": "mimo", "gamma": 2},
            "gamma is for ensemble=packed, and ensemble is mimo",
        ),
        ({"ensemble_size": 3}, "give an ensemble: batch, packed, masksembles, mimo"),
        ({"head_temperature": 2.0}, "head_temperature is for head=gap_clip, and the"),
        (
            {"train_samples": 2, "ensemble": "batch", "rate": 0.1},
            "train_samples 2 is for networks that make one prediction in a pass",
        ),
    ],
)
def test_unusable_configs(tmp_path, changes, message):
    given = config(dataset="shapes", **changes)

    def begin():
        resolved, pretrained = train.resolve(given, tmp_path / "run")
        train.load(resolved, pretrained=pretrained)

    with pytest.raises(ValueError, match=message):
        begin()
    assert not (tmp_path / "run").exists()


def test_mixup_is_refused_for_segmentation_before_anything_is_written():
    given = config(dataset="moving_shapes", model="unet", stages=(1, 1), mixup=0.2)
    with pytest.raises(ValueError, match="moving_shapes has a class for every pixel"):
        train.assemble(given, recipes.shapes(given), sharding.mesh(1))


def test_recipes_reach_the_steps(tmp_path):
    given = {
        **cifar100_improved.get_config().to_dict(),
        **{"dataset": npz(tmp_path / "a.npz"), "model": "wrn_mcdo_smoothing_10_1"},
        **{"batch_size": 32, "eval_batch_size": 8, "label_smoothing": 0.1},
        **{"mixup": 0.2, "ema": 0.99, "train_samples_loss": "of_mean"},
    }
    resolved, _ = train.resolve(config_fields.read(given), tmp_path / "run")
    job = train.load(resolved)
    assert job.model.mask == "channel"
    assert job.model.dropout_placement == "all"
    assert job.steps_per_epoch == 2  # 8 different examples in each step, of 16
    found = train.hyperparameters(job)
    assert found.batch_size == 8
    assert found.step_options == StepOptions(0.1, 0.2, 4, "of_mean", 0.99)
    assert found.schedule(2) == pytest.approx(0.05 * 8 / 128)
    # A config of an older version means what it meant.
    path = workdirs.claim(tmp_path / "old", config(dataset="shapes"))
    held = json.loads((path / "config.json").read_text())
    new = {name for name in workdirs.SINCE if name not in OLDER}
    workdirs.write_json(
        path / "config.json", {k: v for k, v in held.items() if k not in new}
    )
    workdirs.claim(tmp_path / "old", config(dataset="shapes"))
    assert new >= {"ema", "mixup", "optimizer", "schedule", "train_samples"}
    assert new >= {"dropout_placement", "mask", "stage_rates"}
    # Reports pair runs with and without smoothing by the recipe, old and new ones.
    old = {name: value for name, value in held.items() if name not in new}
    assert settings.recipe(old) == settings.recipe(held)
    with pytest.raises(ValueError, match=r"mixup is 0\.0 there and 0\.1 here"):
        workdirs.claim(tmp_path / "old", config(dataset="shapes", mixup=0.1))


def test_a_head_of_other_classes_for_a_folder(tmp_path):
    """An ImageNet-shaped network in torchvision's names, to a folder of images."""
    state = small_state()
    state["layer0.0.weight"] = np.zeros((4, 3, 7, 7), np.float32)
    np.savez(tmp_path / "net.npz", **state)
    folder = jpeg_images.write_folder(tmp_path / "images", count=4)
    given = {
        **imagenet.get_config().to_dict(),
        **{"model": "resnet_mcdo_smoothing_18", "width": SMALL["width"]},
        **{"stages": SMALL["stages"], "smoothing": (1, 0), "batch_size": 8},
        **{"dataset": f"folder:{folder}", "init_from": f"{tmp_path}/net.npz"},
        **{"eval_batch_size": 8, "image_size": 32},
    }
    resolved, pretrained = train.resolve(given, tmp_path / "run")
    job = train.load(resolved, pretrained=pretrained)
    assert job.model.num_classes == 2
    assert job.initial.text.endswith("(2 classes, 10 there)")
    assert isinstance(job.initial, initial_weights.InitialWeights)


@pytest.mark.slow  # trains and evaluates a ResNet-18 in processes of their own
def test_weights_of_torchvision_are_fine_tuned_and_evaluated(tmp_path):
    torch = pytest.importorskip("torch")
    from torchvision_networks import TorchvisionResNet, randomize

    network = randomize(TorchvisionResNet(64, (2, 2, 2, 2), 1000, large=True))
    state = {f"model.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 90}, tmp_path / "net.ckpt")
    folder = jpeg_images.write_folder(tmp_path / "images", count=8)
    workdir = tmp_path / "run"
    arguments = (
        "train.py",
        "--config=imagenet",
        f"--workdir={workdir}",
        f"--config.dataset=folder:{folder}",
        f"--config.init_from={tmp_path}/net.ckpt",
        "--config.model=resnet_mcdo_smoothing_18",
        "--config.freeze=stem,stage1",
        "--config.backbone_factor=0.1",
        "--config.image_size=32",
        "--config.batch_size=8",
        "--config.eval_batch_size=8",
        "--config.epochs=1",
        "--config.warmup_epochs=0",
        "--config.learning_rate=0.01",
    )
    code, out, err = run(*arguments, home=tmp_path)
    assert code == 0, err
    assert "initial weights: 100 of 102 arrays" in out
    (tmp_path / "net.ckpt").unlink()
    code, out, err = run(*arguments, home=tmp_path)  # it has ended, and says so
    assert code == 0, err
    trained = workdirs.load(workdir).variables
    expected = network.conv1.weight.numpy(force=True).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(trained["params"]["stem_conv"]["kernel"], expected)
    code, out, err = run(
        "evaluate.py",
        f"--workdir={workdir}",
        "--num_samples=2",
        "--batch_size=8",
        "--split=test[:50%]",
        "--num_replicates=0",
        home=tmp_path,
    )
    assert code == 0, err
    assert "MC dropout + smoothing" in out
