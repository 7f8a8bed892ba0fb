"""Tries what would be released, as somebody with only Python would: `make release`.

    python tests/release.py dist [--getting_started]

Installs the wheel into an empty environment in another folder and runs its commands
there; then the same with the sdist in the place of the wheel. `--getting_started` runs
the commands of that page of the documentation too, as they are: 5 minutes.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    *("--config.width=4", "--config.stages=(1,)", "--config.epochs=1"),
    *("--config.warmup_epochs=0", "--config.milestones=()"),
    *("--config.batch_size=1000", "--config.eval_batch_size=1000"),
)
# Writes an image, and weights of a small network in PyTorch's names.
FILES = """
import jax, numpy as np, PIL.Image, spatial_smoothing as ss
from spatial_smoothing.data import shapes
PIL.Image.fromarray(shapes.generate("test", size=1)[0][0]).save("photo.png")
model = ss.models.build("resnet_dnn_18", num_classes=10)
variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
state = ss.convert.to_pytorch("resnet_dnn_18", variables, num_classes=10)
np.savez("weights.npz", **state)
"""


def main() -> None:
    """Tries both files of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dist", type=pathlib.Path, help="folder of wheel and sdist")
    parser.add_argument("--getting_started", action="store_true")
    arguments = parser.parse_args()
    (wheel,) = arguments.dist.resolve().glob("*.whl")
    (sdist,) = arguments.dist.resolve().glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        venv.create(folder / "venv", with_pip=True)
        call = Caller(folder)
        call("python", "-m", "pip", "install", "--quiet", str(wheel))
        try_commands(call)
        # What it needs is there already.
        again = ("--quiet", "--no-deps", "--force-reinstall")
        call("python", "-m", "pip", "install", *again, str(sdist))
        try_commands(call)
        if arguments.getting_started:
            page = (ROOT / "docs/getting_started.md").read_text()
            (block,) = re.findall(r"first run -->\n```bash\n(.*?)```", page, re.S)
            call("bash", "-ec", block)
            assert (call.work / "runs/report/report.html").exists()
    print(f"{wheel.name} and {sdist.name} work")


class Caller:
    """Runs commands of an environment in an empty folder, and prints them."""

    def __init__(self, folder: pathlib.Path):
        """Makes the folder.

        Args:
          folder: The folder that has the environment, as `venv`.
        """
        self.work = folder / "work"
        self.work.mkdir()
        self.bin = folder / "venv" / "bin"
        kept = {
            name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ
        }
        self.environment = {
            **{k: v for k, v in os.environ.items() if k.startswith(("PIP_", "OMP_"))},
            **kept,
            "PATH": f"{self.bin}:{os.defpath}",
            "SPATIAL_SMOOTHING_CACHE": str(folder / "cache"),
        }

    def __call__(self, name: str, *arguments: str) -> str:
        """Runs a command; returns what it prints.

        Args:
          name: Its name in the environment, or on the PATH.
          *arguments: Its arguments.
        """
        print("$", name, *arguments, flush=True)
        path = self.bin / name
        done = subprocess.run(
            [path if path.exists() else name, *arguments],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def try_commands(call: Caller) -> None:
    """Trains, evaluates, predicts and converts in an empty folder.

    Args:
      call: Runs a command.
    """
    own = ("spatial-smoothing",)
    settings = (ROOT / "setup.cfg").read_text()
    version = re.search(r"^version = (.*)$", settings, re.M)[1]
    assert call(*own, "--version") == f"spatial-smoothing {version}\n"
    call("python", "-c", FILES)
    call(*own, "train", "--config=shapes", "--workdir=small", *SMALL)
    options = ("--num_samples=2", "--batch_size=1000", "--num_replicates=0")
    call(*own, "evaluate", "--workdir=small", *options)
    assert (call.work / "small/evaluation/report.html").stat().st_size > 10_000
    assert "%" in call(*own, "predict", "--workdir=small", "photo.png")
    converted = ("converted", "--dataset=shapes")
    call(*own, "convert", "weights.npz", *converted, "--model=resnet_dnn_18")
    assert "%" in call(*own, "predict", "--workdir=converted", "photo.png")
    call("rm", "-r", "small", "converted")


if __name__ == "__main__":
    main()
