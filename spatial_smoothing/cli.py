"""How the scripts start and fail: flags, exit codes, one line for a mistake.

Contract of this file: 0 is success, 2 the caller's mistake (bad input, files that
cannot be read or written), 1 training that diverged, 130 an interruption.
"""

import functools
import sys
from collections.abc import Callable

from absl import app, flags

from spatial_smoothing import cpu, logs


def run(main: Callable[..., int | None], *, positional: bool = False) -> None:
    """Parses the flags, calls `main` and exits with what it returns.

    Args:
      main: Returns an exit code; None is 0. A ValueError or OSError of it is shown as
        one line on stderr.
      positional: Whether arguments without -- are allowed; `main` is called with the
        list of them.
    """
    cpu.keep_memory()
    parse = functools.partial(_parse, positional=positional)
    arguments = lambda argv: [argv[1:]] if positional else []
    app.run(lambda argv: _guarded(main, *arguments(argv)), flags_parser=parse)


def _parse(argv: list[str], *, positional: bool) -> list[str]:
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


def _guarded(main: Callable[..., int | None], *arguments: list[str]) -> int:
    logs.quiet()  # after parsing, which sets levels of its own
    try:
        return main(*arguments) or 0
    except (ValueError, OSError) as error:
        _fail(error)
    except ArithmeticError as error:
        _fail(error, code=1)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)


def _fail(error: object, *, code: int = 2) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)
