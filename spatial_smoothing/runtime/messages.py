"""Log messages: those of this package appear on stderr, those of others do not."""

import logging


def quiet() -> None:
    """Shows the warnings of this package, and silences those of its libraries.

    Errors of libraries reach the user as exceptions, in one line.
    """
    for name in ("absl", "asyncio", "concurrent.futures", "jax", "matplotlib", "orbax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    own = logging.getLogger("spatial_smoothing")
    if not own.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        own.addHandler(handler)
        own.propagate = False
