"""Log messages: those of this package appear on stderr, most of others do not."""

import logging

# JAX says here which devices it cannot use, and why. The name is private: in a version
# of JAX that calls it otherwise, these messages stay silent as the other ones of JAX.
_JAX_DEVICES = "jax._src.xla_bridge"
# The commands say this themselves, with the name of what to install.
_SAID_BETTER = "may be present on this machine"


def quiet() -> None:
    """Shows the warnings of this package, and silences those of its libraries.

    Errors of libraries reach the user as exceptions, in one line. A device that does
    not work is no error for JAX, which goes on with CPUs: its warning is shown.
    """
    for name in ("absl", "asyncio", "concurrent.futures", "jax", "matplotlib", "orbax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _show("spatial_smoothing", logging.Formatter("warning: %(message)s"))
    jax_devices = logging.getLogger(_JAX_DEVICES)
    jax_devices.setLevel(logging.WARNING)
    _show(_JAX_DEVICES, _OneLine())
    if _is_news not in jax_devices.filters:
        jax_devices.addFilter(_is_news)


def _show(name: str, formatter: logging.Formatter) -> None:
    logger = logging.getLogger(name)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.propagate = False


def _is_news(record: logging.LogRecord) -> bool:
    return _SAID_BETTER not in record.getMessage()


class _OneLine(logging.Formatter):
    """Formats a message and its exception without the traceback, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]}"
        return f"warning: JAX: {' '.join(text.split())}"
