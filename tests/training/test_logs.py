import json

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from spatial_smoothing.training import logs

SPE = 2  # steps an epoch


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
        log.progress(epoch * SPE)
        log.epoch(record(epoch))
    log.close()


def epochs(workdir):
    return [record["epoch"] for record in logs.read(workdir / "metrics.jsonl")]


def test_every_epoch_is_a_line(tmp_path):
    run(tmp_path, step=0, epochs=(1, 2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record(1), record(2)]


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


def test_events_are_framed_as_tensorboard_reads_them(tmp_path):
    run(tmp_path, step=2, epochs=(2,))
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    reference = RecordWriter(str(tmp_path / "reference"))
    while content:
        size = int.from_bytes(content[:8], "little")
        data, content = content[12 : 12 + size], content[16 + size :]
        reference.write(data)
        events.append(Event.FromString(data))
    reference.close()
    assert (tmp_path / "reference").read_bytes() == path.read_bytes()
    version, start, epoch = events
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, start.session_log.START)
    values = {value.tag: value.simple_value for value in epoch.summary.value}
    expected = record(2)
    assert (epoch.step, expected.pop("epoch"), expected.pop("step")) == (4, 2, 4)
    assert values == pytest.approx(expected)
