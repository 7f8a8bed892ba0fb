"""`--config=NAME_OR_FILE`: which file that is, and the flag that reads it.

A name such as `cifar100` is that of a config of this project, wherever the command is
called. Anything else is the path of a Python file with a function `get_config()`.
"""

import importlib.util
import pathlib
import traceback

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
    if path.is_file() and path.suffix == ".py":
        return path
    if path.is_file():
        raise ValueError(
            f"config {value} is no Python file: its name must end in .py, and it must "
            f"have a function get_config(); names to choose: {', '.join(names())}"
        )
    if path.stem in files and path.suffix == ".py":
        raise ValueError(
            f"there is no file {value} here; --config={path.stem} takes the config "
            "of that name from the package"
        )
    if path.suffix == ".py" or len(path.parts) > 1:
        choices = ", ".join(names())
        raise ValueError(f"there is no config file {value}; names to choose: {choices}")
    raise unknown("config", value, names())


def define(flag_values: flags.FlagValues, *, argv: list[str]) -> None:
    """Defines `--config` and `--config.FIELD` as flags of a command.

    Args:
      flag_values: The flags of the command.
      argv: The arguments of the process, where ml_collections looks for the fields.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        f"Name of a config ({', '.join(names())}) or path of a Python file with a "
        "function get_config().",
        flag_values=flag_values,
        sys_argv=argv,
    )
    flag_values["config"].parser = _Parser()


def load(value: str) -> ConfigDict:
    """Returns the config of a name or path; no field can be added to it.

    Args:
      value: One of `names()`, or a path. What follows a colon is the argument of
        `get_config`.

    Raises:
      ValueError: There is no such config, or it cannot be read; the text says where its
        mistake is.
    """
    name, *arguments = value.split(":", 1)
    path = find(name)
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*arguments)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(
            f"config file {path}{where}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config() of {path} must return an ml_collections.ConfigDict, got "
            f"{type(config).__name__}"
        )
    return config.lock()


class _Parser(flags.ArgumentParser):
    """Reads the config of a name or path."""

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config; ValueError if there is none."""
        return load(argument)

    def flag_type(self) -> str:
        """Returns what ml_collections calls the flag's type."""
        return "config object"


def _files() -> dict[str, pathlib.Path]:
    """Returns name -> file of all that the folder of configs holds."""
    folders = map(pathlib.Path, configs.__path__)
    return {path.stem: path for folder in folders for path in folder.glob("*.py")}
