"""What the commands say of the devices that they compute on."""

import logging
import sys
from typing import TextIO

import jax

from spatial_smoothing.runtime import devices, processes

_LOG = logging.getLogger(__name__)


def announce(*, file: TextIO | None = None) -> None:
    """Prints a line with the devices, and warns of an accelerator that is not used.

    Of several processes, the first one prints.

    Args:
      file: Where the line goes; None is stdout.
    """
    if not processes.is_first():
        return
    everywhere = jax.devices()
    text = devices.description(everywhere, processor=devices.processor())
    print(f"devices: {text}", file=file or sys.stdout, flush=True)
    warn()


def warn() -> None:
    """Warns of an accelerator that is not used."""
    warning = devices.unused_accelerator(
        jax.default_backend(),
        platforms_asked=jax.config.jax_platforms,
        plugins=devices.plugins(),
    )
    if warning is not None:
        _LOG.warning(warning)
