"""How the commands start and fail: flags, exit codes, one line for a mistake.

Contract of this file: 0 is success, 1 a training that diverged, 2 the caller's mistake
(bad input, files that cannot be read or written, too little memory), 3 another process
that is gone, 130 an interruption, 141 a closed pipe in the place of stdout. Of several
processes each one ends, whatever happens to one of them.
"""

import dataclasses
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
from absl import flags

from spatial_smoothing.cli import command_line, config_files, help_texts, output
from spatial_smoothing.runtime import compilation, cpu, messages, paths, processes
from spatial_smoothing.training.loop import NonFiniteLossError

# Flags in which processes of one run may differ, because they describe the machine.
_OWN = ("process_id", "data_dir", "download", "num_workers")
# What JAX says of a process that it cannot reach, in words and as a status. Other
# statuses, such as RESOURCE_EXHAUSTED, are about this process alone.
_GLOO = "Gloo "
_GONE = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED)\b|"
    r"(?i:heartbeat|coordination ?service|remote process exited|"
    r"(connection|socket) (was |is )?(closed|reset))"
)
_NO_MEMORY = "RESOURCE_EXHAUSTED"
# How JAX's RuntimeError begins where a platform does not work: one of JAX_PLATFORMS, or
# one whose plugin is installed.
_NO_DEVICE = ("Unable to initialize backend", "Unknown backend")


def new_flags() -> flags.FlagValues:
    """Returns the flags of a command, so far `--help` and `--compilation_cache`.

    Each command has flags of its own, so that one process can import all commands.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Print this text and exit.", flag_values=values)
    flags.DEFINE_bool(
        "compilation_cache",
        True,
        "Keep compiled programs for the next start, in $JAX_COMPILATION_CACHE_DIR or "
        "else in ~/.cache/spatial_smoothing/jax.",
        flag_values=values,
    )
    return values


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, to be run once by a process.

    Attributes:
      main: Returns an exit code; None is 0. A ValueError or OSError that it raises is
        shown as one line on stderr.
      flag_values: The flags of the command, from `new_flags`.
      about: What the command does, for `--help`.
      more_help: Returns what `--help` says after the flags.
      required: Names of the flags that must be given.
      has_config: Whether the command takes `--config` and `--config.FIELD`.
      positional: Whether arguments without -- are allowed; `main` is called with the
        list of them.
      several: Whether this may be one of several processes, as the cluster or flags,
        which are defined here, say.
      alone_with: Name of a flag that, if it is given, needs no `--workdir` and no other
        process; "" for none.
      ends_unread: Whether the command ends when stdout is a pipe that is closed; if
        not, `main` asks `output.is_unread`.
    """

    main: Callable[..., int | None]
    flag_values: flags.FlagValues
    about: str
    more_help: Callable[[], str] = lambda: ""
    required: Sequence[str] = ()
    has_config: bool = False
    positional: bool = False
    several: bool = False
    alone_with: str = ""
    ends_unread: bool = True


def run(command: Command) -> NoReturn:
    """Parses the flags, calls `main` and exits with what it returns."""
    output.watch(end=command.ends_unread)
    cpu.keep_memory()
    flag_values = command.flag_values
    if command.several:
        _define_process_flags(flag_values)
    if command_line.asks_for_help(sys.argv):
        if command.has_config:
            config_files.define(flag_values, argv=[])
        try:
            print(help_texts.command(command.about, flag_values) + command.more_help())
            sys.stdout.flush()
        except OSError as error:
            _fail(error)
        sys.exit(0)
    try:
        command_line.check_flag_files(sys.argv)
        if command.has_config:
            config_files.define(flag_values, argv=sys.argv)
        rest = command_line.parse(
            sys.argv,
            flag_values,
            positional=command.positional,
            required=command.required,
            instead={"workdir": command.alone_with},
        )
    except ValueError as error:
        _fail(error)
    # Grain reads flags of absl's global set before it starts workers. There are none to
    # parse, because each command has a set of its own.
    flags.FLAGS.mark_as_parsed()
    messages.quiet()
    if flag_values["compilation_cache"].value:
        compilation.keep_programs()
    else:
        compilation.forget_programs()
    sys.exit(_guarded(command, [rest] if command.positional else []))


def _define_process_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "coordinator",
        None,
        "Address of process 0, HOST:PORT. Without it, JAX asks the cluster: Cloud TPU, "
        "SLURM, Open MPI or Kubernetes.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "num_processes",
        None,
        "Number of processes, if --coordinator is given.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "process_id",
        None,
        "Number of this process, from 0, if --coordinator is given.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "start_timeout",
        300,
        "Seconds that each process waits for the others at the start.",
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


def _guarded(command: Command, arguments: list[list[str]]) -> int:
    """Starts the processes and calls `main` with arguments; returns the exit code.

    An error that is no defect of this package ends the process with one line.
    """
    try:
        flag_values, alone_with = command.flag_values, command.alone_with
        if command.several and not (alone_with and flag_values[alone_with].value):
            _start(flag_values)
        code = command.main(*arguments) or 0
        sys.stdout.flush()  # a closed pipe may not have been noticed yet
        return code
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except Exception as error:
        several = jax.distributed.is_initialized()
        if several and (lost := _lost(error)):
            _fail(f"another process is gone ({lost}); start all again", code=3)
        if isinstance(error, (ValueError, OSError)):
            _fail(command_line.in_flags_of(command.flag_values, str(error)))
        if isinstance(error, NonFiniteLossError):
            _fail(error, code=1)
        if no_device := _no_device(error):
            _fail(no_device)
        if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
            _fail(
                f"not enough memory ({paths.first_line(error)}); use a smaller batch "
                "size or network"
            )
        if not several:
            raise
        traceback.print_exc()
        processes.leave(1)


def _no_device(error: Exception) -> str:
    """Returns why JAX has no device to compute on; "" for other errors."""
    if isinstance(error, RuntimeError) and str(error).startswith(_NO_DEVICE):
        return str(error)
    asked = jax.config.jax_platforms
    if isinstance(error, AssertionError) and asked:
        # JAX leaves out a platform without a device file, and asserts that others are
        # left. Only then it asserts again.
        try:
            jax.devices()
        except AssertionError:
            return f"JAX finds no device of JAX_PLATFORMS={asked}; choose another one"
    return ""


def _lost(error: BaseException | None) -> str:
    """Returns what a failed exchange with another process says; "" for other errors."""
    found = ""
    while error is not None:
        of_jax = isinstance(error, jax.errors.JaxRuntimeError)
        # Errors of gloo have other types where orbax has caught and raised them.
        if _GLOO in str(error) or (of_jax and _GONE.search(str(error))):
            found = paths.first_line(error)
        error = error.__cause__ or error.__context__
    return found


def _fail(error: object, *, code: int = 2) -> None:
    # One call, so that the lines of several processes do not mix.
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    processes.leave(code)
