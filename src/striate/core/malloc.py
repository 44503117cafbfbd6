"""Memory that tensors free: reused for the next tensors, or returned to the system.

What glibc does by itself suits neither. It returns every large block at first; then it
raises its threshold to the largest that was freed, and keeps holes
(docs/notebook/data-loading.md). On other C libraries both functions do nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from threading import Event

# M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h: from what size on a block is
# mapped by itself, and how much free memory at the heap's end is given back.
_OPTIONS = ((-3, 1 << 30), (-1, (1 << 31) - 1))
_reuse = Event()


def keep_freed_memory() -> None:
    """Reuse memory that tensors free for the next tensors, from now on.

    The system would hand it back zeroed, page by page, a moment later: a fifth of a
    training step on small networks.
    """
    _reuse.set()
    tune = _c_function("mallopt")
    for option, value in _OPTIONS:
        tune(option, value)


def release_freed_memory() -> None:
    """Return freed memory to the system, unless `keep_freed_memory` was called.

    Batches of a long epoch leave holes in the heap, a few more with every thousand.
    After every fourth batch it costs nothing that could be measured.
    """
    if not _reuse.is_set():
        _c_function("malloc_trim")(0)


def _c_function(name: str) -> Callable[..., object]:
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return _no_op
    return function


def _no_op(*_: int) -> None:
    """Do nothing, in place of a function that this C library lacks."""
