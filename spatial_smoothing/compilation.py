"""JAX's cache of compiled programs: on in the scripts, in one place, with a switch."""

import contextlib

import jax
from absl import flags

from spatial_smoothing.data.cache import cache_dir

_FLAG = flags.DEFINE_bool(
    "compilation_cache",
    True,
    "Keep compiled programs for the next start, in $JAX_COMPILATION_CACHE_DIR, else in "
    "~/.cache/spatial_smoothing/jax.",
)


def flag() -> flags.Flag:
    """Returns the switch, to be shown in the help of a script."""
    return flags.FLAGS[_FLAG.name]


def keep_programs() -> None:
    """Turns the cache on, where it can be written, unless the flag says no.

    Its keys hold the program, the versions, the flags and the processor's features: a
    program comes back only where compiling anew would make the same.
    """
    if not _FLAG.value:
        jax.config.update("jax_enable_compilation_cache", False)
    elif jax.config.jax_compilation_cache_dir is None:  # the user's choice comes first
        with contextlib.suppress(OSError, RuntimeError):  # such as: no home
            path = cache_dir() / "jax"
            path.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(path))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
