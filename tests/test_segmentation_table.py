import json
import pathlib

from benchmarks import segmentation
from configs import moving_shapes


class Recorder:
    """Runs nothing: writes what the commands would, and remembers them."""

    def __init__(self):
        self.commands = []

    def __call__(self, command, *, seconds):
        self.commands.append(command)
        if command[0] == "evaluate.py":
            option = dict(c.split("=", 1) for c in command[1:] if "=" in c)
            folder = pathlib.Path(
                option.get("--output") or f"{option['--workdir']}/evaluation"
            )
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("metrics.json", "segmentation.csv", "segmentation.png"):
                row = {"suite": "segmentation", "run": str(folder)}
                (folder / name).write_text(json.dumps({"rows": [row]}))
        return 0


def made(tmp_path):
    recorder = Recorder()
    folders = (f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'results'}")
    assert segmentation.main(["--seeds=1,2", *folders], execute=recorder) == 0
    return recorder.commands


def test_the_table_is_made_once_and_continues(tmp_path):
    commands = made(tmp_path)
    scripts = [command[0] for command in commands]
    assert scripts == ["train.py", "evaluate.py"] * 4 + ["evaluate.py"]
    fields = moving_shapes.get_config()
    for scale in segmentation.SCALES.values():
        assert set(scale) <= set(fields)
    first = commands[0]
    assert first[1:3] == [
        "--config=moving_shapes",
        f"--workdir={tmp_path / 'runs' / 'unet_mcdo-seed1'}",
    ]
    assert {"--config.model=unet_mcdo", "--config.seed=1"} <= set(first)
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {"metrics.json", "segmentation.csv", "segmentation.png", "runs"}
    kept = tmp_path / "results" / "runs" / "unet_mcdo-seed2" / "metrics.json"
    (row,) = json.loads(kept.read_text())["rows"]
    assert row["run"] == "runs/unet_mcdo-seed2/evaluation"
    # What is kept is not made again, with its workdir or without.
    again = made(tmp_path)
    assert [command[0] for command in again] == ["evaluate.py"]
