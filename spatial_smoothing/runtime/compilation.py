"""JAX's cache of compiled programs, which the commands switch on."""

import contextlib

import jax

from spatial_smoothing.runtime.cache import cache_dir


def keep_programs() -> None:
    """Switches the cache on, if its folder can be written.

    Its keys contain the program, the versions, the flags and the processor's features:
    a program is found again only where compiling it would give the same.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return  # the user has chosen a folder
    # The user may have no home directory, or one that is read-only.
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_dir() / "jax"
        path.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(path))
        # By default, programs that compile in less than a second are not kept.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def forget_programs() -> None:
    """Switches the cache off, also where the user has chosen a folder for it."""
    jax.config.update("jax_enable_compilation_cache", False)
