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

import jax
from absl import app, flags

from spatial_smoothing import compilation, cpu, logs, paths, processes
from spatial_smoothing.training import NonFiniteLossError

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


def run(
    main: Callable[..., int | None], *, positional: bool = False, several: bool = False
) -> None:
    """Parses the flags, calls `main` and exits with what it returns.

    Args:
      main: Returns an exit code; None is 0. A ValueError or OSError of it is shown as
        one line on stderr.
      positional: Whether arguments without -- are allowed; `main` is called with the
        list of them.
      several: Whether this may be one of several processes, as the cluster or flags,
        which are defined here, say.
    """
    cpu.keep_memory()
    if several:
        _define_flags()
    parse = functools.partial(_parse, positional=positional)
    arguments = lambda argv: [argv[1:]] if positional else []
    start = _start if several else lambda: None
    app.run(lambda argv: _guarded(start, main, *arguments(argv)), flags_parser=parse)


def _define_flags() -> None:
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0; default: as the cluster says."
    )
    flags.DEFINE_integer("num_processes", None, "How many processes there are.")
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
    flags.DEFINE_integer(
        "start_timeout", 300, "Seconds to wait for all processes.", lower_bound=1
    )


def _start() -> None:
    """Joins the other processes, and checks that they are to do the same."""
    values = flags.FLAGS.flag_values_dict()
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


def _parse(argv: list[str], *, positional: bool) -> list[str]:
    flags.FLAGS.register_key_flag_for_module(argv[0], compilation.flag())  # for help
    try:
        rest = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        _fail(error)
    except AttributeError as error:  # how ml_collections tells of an unknown field
        text = str(error).replace("\\n", "; ").replace("\\'", "").strip("'")
        _fail(f"unknown config field {text}")
    if flags.FLAGS.help or flags.FLAGS.helpshort:
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    if rest and not positional:
        _fail(f"unexpected arguments {' '.join(rest)}; options begin with --")
    return [argv[0], *rest]


def _guarded(
    start: Callable[[], None], main: Callable[..., int | None], *arguments: list[str]
) -> int:
    logs.quiet()  # after parsing, which sets levels of its own
    compilation.keep_programs()
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
