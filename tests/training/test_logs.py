import datetime
import io
import json
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from spatial_smoothing.runtime import progress
from spatial_smoothing.training import logs

SPE = 2  # steps an epoch
DAY = datetime.timedelta(days=1)


def record(epoch, **changes):
    return {
        "epoch": epoch,
        "step": epoch * SPE,
        "train_loss": 1 / epoch,
        "train_accuracy": 0.5,
        "learning_rate": 0.1,
        "images_per_second": 100.0,
        **changes,
    }


def run(workdir, *, step, epochs):
    log = logs.RunLog(workdir, name="test")
    log.start(step=step, total=8, steps_per_epoch=SPE)
    for epoch in epochs:
        log.progress(record(epoch))
        log.epoch(record(epoch))
    log.close()


def epochs(workdir):
    return [record["epoch"] for record in logs.read(workdir / "metrics.jsonl")]


def test_every_epoch_is_a_line(tmp_path):
    run(tmp_path, step=0, epochs=(1, 2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    times = [datetime.datetime.fromisoformat(record.pop("time")) for record in records]
    assert records == [record(1), record(2)]
    now = datetime.datetime.now(datetime.UTC)
    assert all(datetime.timedelta(0) <= now - then < DAY for then in times)


@pytest.mark.parametrize(("step", "kept"), [(0, []), (3, [1]), (4, [1, 2])])
def test_what_is_made_again_is_dropped(step, kept, tmp_path):
    run(tmp_path, step=0, epochs=(1, 2, 3))
    run(tmp_path, step=step, epochs=())
    assert epochs(tmp_path) == kept


@pytest.mark.parametrize(
    "damage",
    [
        b'{"epoch": 3, "st',  # cut short
        b"\0" * 40,  # a block that never reached the disk
        b"\xff\xfe\n[]\n7\n{}\n",
        json.dumps(record(2)).encode(),  # twice
    ],
)
def test_what_a_crash_leaves_is_repaired(damage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    run(tmp_path, step=0, epochs=(1, 2))
    with path.open("ab") as file:
        file.write(damage)
    run(tmp_path, step=4, epochs=(3,))
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [
        1,
        2,
        3,
    ]


def test_a_damaged_line_hides_no_later_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(record(1)), '{"epo', json.dumps(record(2))]
    path.write_text("\n".join(lines))
    assert epochs(tmp_path) == [1, 2]


def test_full_disk_leaves_the_log_as_it_was(small_disk):
    run(small_disk, step=0, epochs=(1,))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(9 * 2**20))
    message = r"cannot write .*: No space left on device, 0\.0 of 8\.4 MB are free"
    with pytest.raises(OSError, match=message):
        run(small_disk, step=SPE, epochs=(2,))
    assert epochs(small_disk) == [1]


def test_workdir_that_is_gone_is_not_made_again(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone is gone; nothing can be logged"):
        run(tmp_path / "gone", step=0, epochs=(1,))
    assert not (tmp_path / "gone").exists()


def events(folder):
    """Returns the events of a folder's only file, and checks how they are framed."""
    (path,) = (folder / "tensorboard").iterdir()
    assert path.name.startswith("events.out.tfevents.")  # what TensorBoard looks for
    content, found = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        data, content = content[12 : 12 + size], content[16 + size :]
        found.append(Event.FromString(data))
    return found


def values(event):
    return {value.tag: value.simple_value for value in event.summary.value}


def test_tensorboard_has_what_the_terminal_has(tmp_path):
    scores = {"test_nll": 0.7, "test_accuracy": 0.5, "test_ensemble_nll": 0.6}
    log = logs.RunLog(tmp_path, name="test")
    log.start(step=2, total=8, steps_per_epoch=SPE)
    log.epoch(record(2, **scores))
    log.close()
    version, start, epoch = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    # TensorBoard forgets events of this step and later ones that are in other files.
    assert (start.step, start.session_log.status) == (3, start.session_log.START)
    assert epoch.step == 4
    assert values(epoch) == pytest.approx(
        {
            "train/nll": 0.5,
            "train/accuracy": 0.5,
            "train/learning_rate": 0.1,
            "speed/images_per_second": 100,
            "test/nll": 0.7,
            "test/ensemble_nll": 0.6,
            "test/accuracy": 0.5,
        }
    )


def test_tensorboard_has_points_within_an_epoch(tmp_path, monkeypatch):
    for seconds, expected in ((30, [4]), (0, [3, 4])):
        monkeypatch.setattr(logs, "_POINT_SECONDS", seconds)
        workdir = tmp_path / str(seconds)
        workdir.mkdir()
        log = logs.RunLog(workdir, name="test")
        log.start(step=0, total=8, steps_per_epoch=SPE)
        log.progress(record(2, step=3))
        log.epoch(record(2))
        log.close()
        assert [event.step for event in events(workdir)[2:]] == expected
        assert epochs(workdir) == [2]


def test_tensorboard_has_the_config(tmp_path):
    config = {"seed": 3, "dtype": "float32", "stages": (1, 2), "rate": None}
    log = logs.RunLog(tmp_path, name="test", hyperparameters=config)
    log.start(step=0, total=8, steps_per_epoch=SPE)
    log.epoch(record(1))
    log.close()
    _, _, experiment, session, _ = events(tmp_path)
    data = session.summary.value[0].metadata.plugin_data
    assert data.plugin_name == "hparams"
    shown = HParamsPluginData.FromString(data.content).session_start_info.hparams
    assert shown["seed"].number_value == 3
    assert shown["dtype"].string_value == "float32"
    assert shown["stages"].string_value == "(1, 2)"
    assert "rate" not in shown
    data = experiment.summary.value[0].metadata.plugin_data.content
    metrics = HParamsPluginData.FromString(data).experiment.metric_infos
    assert "test/nll" in [metric.name.tag for metric in metrics]


def test_the_eta_leaves_out_what_came_before_the_first_chunk(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    log = logs.RunLog(tmp_path, name="test")
    log.start(step=0, total=8, steps_per_epoch=SPE)
    for second, step in ((1000, 1), (1010, 2)):
        now[0] = second  # it compiles for most of the first
        log.progress(record(1, step=step))
    log.epoch(record(1))
    log.close()
    assert out.getvalue().splitlines()[-1].endswith(" 0:01:00")
