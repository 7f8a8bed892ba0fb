"""Flax's pools, seen while a model runs.

Pools are functions in Flax (`nn.max_pool`, `nnx.avg_pool`), which no interceptor sees.
All of them call one helper, `flax.linen.pooling.pool`, by its name in that module.
Contract of this file: nothing is replaced by importing it. Only while a context of
`watched` is open, that name leads to a function that does what the helper does, and
besides shows its input to the watchers of the same thread; when the last context
closes, the name leads to the helper again. Other threads meanwhile call the helper
through it and see no difference.
"""

import contextlib
import contextvars
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.tracers import current_trace

Watcher = Callable[[jax.Array], jax.Array]

_pool = nn.pooling.pool
_watchers: contextvars.ContextVar[tuple[Watcher, ...]] = contextvars.ContextVar(
    "watchers of pools, outermost first", default=()
)
# Part of the keys of JAX's caches: a function under `jax.jit` that was traced while
# nobody watched is traced again, and the other way round.
_is_watched = jax.make_user_context(False)


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Shows the inputs of strided two-dimensional pools to `watcher`.

    Args:
      watcher: Is called with each input, and returns what is pooled in its place.
    """
    token = _watchers.set((*_watchers.get(), watcher))
    _replacement.enter()
    try:
        with _is_watched(True):
            yield
    finally:
        _replacement.leave()
        _watchers.reset(token)


class _LastAverage(threading.local):
    """What `nn.avg_pool` has done last in this thread.

    Attributes:
      shape: Shape of the map that it pooled, as the watchers returned it.
      ones: The array of ones by which it counts the values in each window.
    """

    shape: tuple[int, ...] = ()
    ones: Any = None


_last = _LastAverage()


def _watched_pool(inputs, init, reduce_fn, window_shape, strides, padding):
    """Stands in for `flax.linen.pooling.pool`."""
    watchers = _watchers.get()
    counts = inputs is _last.ones
    _last.ones = None  # a tracer must not outlive its trace
    if watchers and len(window_shape) == 2 and any(s > 1 for s in strides or ()):
        if counts:
            # With count_include_pad=False `nn.avg_pool` pools ones of the size of its
            # own argument. The watchers may have changed the size of the map.
            height_width = _last.shape[-3:-1]
            inputs = jnp.ones((*inputs.shape[:-3], *height_width, 1), inputs.dtype)
        else:
            for watcher in watchers:
                inputs = watcher(inputs)
            _last.shape = inputs.shape
    return _pool(inputs, init, reduce_fn, window_shape, strides, padding)


class _Namespace(types.ModuleType):
    """Stands in for the name `jnp` in `flax.linen.pooling`, to know its ones."""

    def ones(self, *args, **kwargs):
        """Returns `jnp.ones`, and remembers them."""
        _last.ones = jnp.ones(*args, **kwargs)
        return _last.ones

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)


class _Replacement:
    """The replaced names, for as long as at least one context is open."""

    def __init__(self):
        self._lock = threading.Lock()
        self._open_contexts = 0
        self._replaced = [
            (nn.pooling, "pool", _watched_pool),
            (nn, "pool", _watched_pool),
            (nn.pooling, "jnp", _Namespace("jnp")),
        ]
        self._originals: list[Any] = []

    def enter(self) -> None:
        """Replaces the names if this is the first context."""
        with self._lock:
            self._open_contexts += 1
            if self._open_contexts == 1:
                self._originals = [
                    getattr(module, name) for module, name, _ in self._replaced
                ]
                for module, name, stand_in in self._replaced:
                    setattr(module, name, stand_in)

    def leave(self) -> None:
        """Restores the names if this was the last context."""
        with self._lock:
            self._open_contexts -= 1
            if self._open_contexts == 0:
                for (module, name, _), original in zip(
                    self._replaced, self._originals, strict=True
                ):
                    setattr(module, name, original)


_replacement = _Replacement()


def check_same_trace(trace: Any, place: str) -> None:
    """Raises ValueError inside a JAX transformation that the model calls by itself.

    JAX keeps what it traced there, and would use it where it does not belong.

    Args:
      trace: What `current_trace` returned in the module that calls the pool.
      place: That module, for the message.
    """
    if current_trace() != trace:
        raise ValueError(
            f"a pool in {place} lies inside a JAX transformation (jax.jit, "
            "jax.checkpoint, jax.vmap, ...), where insertions before it would be "
            "cached; choose modules by where="
        )
