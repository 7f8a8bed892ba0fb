"""Rivals and variants of dropout, trained and evaluated as the commands do."""

import json

import pytest
from command_calls import called
from prepared_sets import write

from spatial_smoothing.cli import config_fields, config_files, evaluate, train
from spatial_smoothing.runs import workdirs
from spatial_smoothing.training import logs
from spatial_smoothing.training.checkpoints import Checkpoints

SMALL = {
    "stages": (1,),
    "width": 10,
    "batch_size": 16,
    "epochs": 1,
    "warmup_epochs": 0,
    "milestones": (),
    "eval_every": 1,
    "eval_batch_size": 16,
}
# Fields of a method -> number of predictions of one pass.
METHODS = {
    "batch": ({"ensemble": "batch"}, 4),
    "packed": ({"ensemble": "packed", "smoothing": (1,)}, 4),
    "masksembles": ({"ensemble": "masksembles", "smoothing": (1,)}, 4),
    "mimo": ({"ensemble": "mimo", "ensemble_size": 2, "batch_repetitions": 2}, 2),
    "improved": (
        {"rate": 0.1, "mask": "channel", "dropout_placement": "all"},
        1,
    ),
    "samples": ({"rate": 0.1, "train_samples": 2, "ema": 0.9, "mixup": 0.2}, 1),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    write(root, title="cifar100", num_classes=100, count=32)
    return root


@pytest.mark.parametrize(
    "method",
    [
        "mimo",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in METHODS
            if name != "mimo"
        ),
    ],
)
def test_a_method_trains_and_is_evaluated_on_cifar100(method, data_dir, tmp_path):
    fields, predictions = METHODS[method]
    config = config_files.load("cifar100")
    given = {"model": "resnet_dnn_18", "data_dir": str(data_dir), **SMALL, **fields}
    config.update(given)
    resolved, _ = train.resolve(config_fields.read(config.to_dict()), tmp_path / "run")
    path = workdirs.claim(tmp_path / "run", resolved)
    workdirs.sign(path)
    train.FLAGS.mark_as_parsed()  # none is given
    log = logs.RunLog(path, name=method)
    with Checkpoints(path / "checkpoints") as checkpoints:
        job = train.load(resolved)
        train.train(job, path, checkpoints, log=log, should_stop=lambda: False)
    record = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < record["test_nll"] < 20
    called(evaluate, f"--workdir={path}", "--num_samples=2", "--num_replicates=0")
    rows = json.loads((path / "evaluation" / "metrics.json").read_text())["rows"]
    sizes = {row["num_samples"] for row in rows}
    stochastic = "rate" in fields
    assert sizes >= ({predictions, 2 * predictions} if stochastic else {predictions})
    assert all(0 < row["nll"] < 20 for row in rows)
