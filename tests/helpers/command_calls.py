"""Commands called in this process, which is seconds faster than to start another."""

import types

from spatial_smoothing.cli import command_line


def called(module: types.ModuleType, *arguments: object):
    """Returns what the `main` of a command returns.

    Args:
      module: The command, such as `spatial_smoothing.cli.evaluate`.
      *arguments: What stands after its name on the command line.

    Raises:
      ValueError: for the caller's mistake; a process would end with the code 2.
    """
    values = module.FLAGS
    values.unparse_flags()
    command_line.parse([module.__name__, *map(str, arguments)], values)
    return module.main()
