"""JAX's cache of compiled programs: on in the commands, in one place."""

import contextlib

import jax

from spatial_smoothing.runtime.cache import cache_dir


def keep_programs() -> None:
    """Turns the cache on, where it can be written.

    Its keys hold the program, the versions, the flags and the processor's features: a
    program comes back only where compiling anew would make the same.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return  # the user's choice comes first
    with contextlib.suppress(OSError, RuntimeError):  # such as: no home
        path = cache_dir() / "jax"
        path.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def forget_programs() -> None:
    """Turns the cache off, also where the user has chosen a place for it."""
    jax.config.update("jax_enable_compilation_cache", False)
