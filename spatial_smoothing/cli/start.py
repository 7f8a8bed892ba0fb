"""How the scripts start and fail: flags, exit codes, one line for a mistake.

Contract of this file: 0 is success, 2 the caller's mistake (bad input, files that
cannot be read or written), 1 training that diverged, 3 another process that is gone,
130 an interruption. Of several processes each ends, whatever befalls one of them.
"""

import functools
import json
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import flags

from spatial_smoothing.runtime import compilation, cpu, messages, paths, processes
from spatial_smoothing.training.loop import NonFiniteLossError

# Flags in which processes of one run may differ: of the machine they run on.
_OWN = ("process_id", "data_dir", "download", "num_workers")
# What JAX says of a process that it cannot reach, in words and as a status. Others,
# such as RESOURCE_EXHAUSTED, are of this process alone.
_GLOO = "Gloo "
_GONE = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED)\b|"
    r"(?i:heartbeat|coordination ?service|remote process exited|"
    r"(connection|socket) (was |is )?(closed|reset))"
)


def new_flags() -> flags.FlagValues:
    """Returns the flags of a command, so far `--help` and `--compilation_cache`.

    Each command has flags of its own, so that one process can import all commands.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Show this.", flag_values=values)
    flags.DEFINE_bool(
        "compilation_cache",
        True,
        "Keep compiled programs for the next start, in $JAX_COMPILATION_CACHE_DIR, "
        "else in ~/.cache/spatial_smoothing/jax.",
        flag_values=values,
    )
    return values


def run(
    main: Callable[..., int | None],
    flag_values: flags.FlagValues,
    *,
    about: str,
    positional: bool = False,
    several: bool = False,
) -> NoReturn:
    """Parses the flags, calls `main` and exits with what it returns.

    Args:
      main: Returns an exit code; None is 0. A ValueError or OSError of it is shown as
        one line on stderr.
      flag_values: The flags of the command, from `new_flags`.
      about: What the command does, for `--help`.
      positional: Whether arguments without -- are allowed; `main` is called with the
        list of them.
      several: Whether this may be one of several processes, as the cluster or flags,
        which are defined here, say.
    """
    cpu.keep_memory()
    if several:
        _define_process_flags(flag_values)
    rest = _parse(sys.argv, flag_values, about=about, positional=positional)
    # Grain reads flags of absl's global set before it starts workers. There are none to
    # parse, because each command has a set of its own.
    flags.FLAGS.mark_as_parsed()
    messages.quiet()
    if flag_values["compilation_cache"].value:
        compilation.keep_programs()
    else:
        compilation.forget_programs()
    start = functools.partial(_start, flag_values) if several else lambda: None
    arguments = [rest] if positional else []
    sys.exit(_guarded(start, main, *arguments))


def _define_process_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0; default: as the cluster says.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "How many processes there are.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "process_id", None, "Which one this is, from 0.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "start_timeout",
        300,
        "Seconds to wait for all processes.",
        lower_bound=1,
        flag_values=flag_values,
    )


def _start(flag_values: flags.FlagValues) -> None:
    """Joins the other processes, and checks that they are to do the same."""
    values = flag_values.flag_values_dict()
    processes.start(
        coordinator=values["coordinator"],
        num_processes=values["num_processes"],
        process_id=values["process_id"],
        timeout=values["start_timeout"],
    )
    if "config" in values:
        values |= values.pop("config").to_dict()
    same = {
        name: value
        for name, value in values.items()
        if name not in _OWN and not name.startswith("config.")
    }
    processes.check_same(json.loads(json.dumps(same, default=str)))


def _parse(
    argv: list[str], flag_values: flags.FlagValues, *, about: str, positional: bool
) -> list[str]:
    """Parses the flags; returns the arguments that are none."""
    if {"--help", "-h", "-help", "--helpshort"} & set(argv):
        print(f"{about}\nFlags:\n{flag_values.get_help()}")
        sys.exit(0)
    try:
        rest = flag_values(argv)[1:]
    except flags.Error as error:
        _fail(error)
    except AttributeError as error:  # how ml_collections tells of an unknown field
        text = str(error).replace("\\n", "; ").replace("\\'", "").strip("'")
        _fail(f"unknown config field {text}")
    if rest and not positional:
        _fail(f"unexpected arguments {' '.join(rest)}; options begin with --")
    return rest


def _guarded(
    start: Callable[[], None], main: Callable[..., int | None], *arguments: list[str]
) -> int:
    try:
        start()
        return main(*arguments) or 0
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except Exception as error:
        several = jax.distributed.is_initialized()
        if several and (lost := _lost(error)):
            _fail(f"another process is gone ({lost}); start all again", code=3)
        if isinstance(error, (ValueError, OSError)):
            _fail(error)
        if isinstance(error, NonFiniteLossError):
            _fail(error, code=1)
        if not several:
            raise
        traceback.print_exc()
        processes.leave(1)


def _lost(error: BaseException | None) -> str:
    """What a failed exchange with another process says, if that is the cause; or ""."""
    found = ""
    while error is not None:
        of_jax = isinstance(error, jax.errors.JaxRuntimeError)
        # Those of gloo come as other errors where orbax met them.
        if _GLOO in str(error) or (of_jax and _GONE.search(str(error))):
            found = paths.first_line(error)
        error = error.__cause__ or error.__context__
    return found


def _fail(error: object, *, code: int = 2) -> None:
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")  # in one piece
    processes.leave(code)
