"""`--config=NAME_OR_FILE`: which file that is, and the flag that reads it.

A name such as `cifar100` is that of a config of this project, wherever the command is
called. Anything else is the path of a Python file with a function `get_config()`.
"""

import pathlib

from absl import flags
from ml_collections import ConfigDict, config_flags

from spatial_smoothing import configs
from spatial_smoothing.lookup import unknown

# In `configs/`, but no configs: what the others start from, and the package itself.
_NO_CONFIGS = ("__init__", "common")


def names() -> list[str]:
    """Returns the names of the project's configs, sorted."""
    return sorted(_files().keys() - set(_NO_CONFIGS))


def find(value: str) -> pathlib.Path:
    """Returns the file of a config.

    Args:
      value: One of `names()`, or a path.

    Raises:
      ValueError: There is no such config; the text lists the names.
    """
    files, path = _files(), pathlib.Path(value)
    if value in files:
        return files[value]
    if path.is_file():
        return path
    if path.stem in files and path.suffix == ".py":
        raise ValueError(
            f"there is no file {value} here; --config={path.stem} takes the config "
            "of that name from the package"
        )
    if path.suffix == ".py" or len(path.parts) > 1:
        choices = ", ".join(names())
        raise ValueError(f"there is no config file {value}; names to choose: {choices}")
    raise unknown("config", value, names())


def define(flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Defines `--config` and `--config.FIELD` as flags of a command."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        f"Name of a config ({', '.join(names())}) or path of a Python file with a "
        "function get_config().",
        flag_values=flag_values,
    )
    flag = flag_values["config"]
    flag.parser = _Parser(flag.parser)
    return holder


class _Parser(flags.ArgumentParser):
    """Reads the config of a name or path.

    Args:
      parser: That of ml_collections, which takes paths only.
    """

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config that `get_config()` makes; ValueError if there is none."""
        return self._parser.parse(str(find(argument)))

    def flag_type(self) -> str:
        """Returns what absl calls the flag's type."""
        return self._parser.flag_type()


def _files() -> dict[str, pathlib.Path]:
    """Returns name -> file of all that the folder of configs holds."""
    folders = map(pathlib.Path, configs.__path__)
    return {path.stem: path for folder in folders for path in folder.glob("*.py")}
