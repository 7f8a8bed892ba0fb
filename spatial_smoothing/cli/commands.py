"""All commands under one name: `spatial-smoothing COMMAND --help`.

`python -m spatial_smoothing COMMAND` is the same. In a checkout, `python train.py` is
`spatial-smoothing train`, and so on. Each command's module is imported only when its
command is called.
"""

import importlib
import sys
from typing import NoReturn

import spatial_smoothing
from spatial_smoothing.cli import output
from spatial_smoothing.lookup import unknown

PROGRAM = "spatial-smoothing"
# Name of a command, and of its module in this folder -> what it does.
COMMANDS = {
    "train": "trains a network, or continues to",
    "evaluate": "scores trained networks, analyses them, and compares them",
    "predict": "classifies image files, or the frames of a video",
    "corrupt": "writes the corrupted images of a data set to a folder",
    "convert": "makes a workdir of a file with PyTorch weights",
}


def run() -> NoReturn:
    """Runs the command that the first argument of the process names."""
    output.watch(end=True)
    name, arguments = sys.argv[1:2], sys.argv[2:]
    if name in (["--help"], ["-h"], ["help"]):
        print(_help(), flush=True)
        sys.exit(0)
    if name == ["--version"]:
        print(f"{PROGRAM} {spatial_smoothing.__version__}")
        sys.exit(0)
    if not name:
        _fail(f"a command is missing; choices: {', '.join(COMMANDS)}")
    (command,) = name
    if command not in COMMANDS:
        _fail(f"{unknown('command', command, COMMANDS)}; --help says what they do")
    # absl and argparse read their arguments from here.
    sys.argv = [f"{PROGRAM} {command}", *arguments]
    importlib.import_module(f"spatial_smoothing.cli.{command}").run()
    sys.exit(0)


def called(name: str) -> str:
    """Returns how a command is called, in the way that this process was called.

    Args:
      name: One of `COMMANDS`.
    """
    if sys.argv[0].startswith(f"{PROGRAM} "):
        return f"{PROGRAM} {name}"
    return f"python {name}.py"


def _help() -> str:
    commands = (f"  {name:10}{text}" for name, text in COMMANDS.items())
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [--FLAG=VALUE ...]",
            "",
            *commands,
            "",
            f"`{PROGRAM} COMMAND --help` lists the flags of a command,",
            f"`{PROGRAM} --version` prints the version.",
        ]
    )


def _fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
