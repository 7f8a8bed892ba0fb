"""Messages: what appears on the terminal of what this package and others log."""

import logging


def quiet() -> None:
    """Leaves on the terminal what this package says; others' errors are exceptions."""
    for name in ("absl", "asyncio", "concurrent.futures", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    own = logging.getLogger("spatial_smoothing")
    if not own.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        own.addHandler(handler)
        own.propagate = False
