"""Freed memory: kept for the next tensors, or given back to the system.

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
_kept = Event()


def keep_freed() -> None:
    """Have memory that tensors free kept for the next tensors, for good.

    The system would hand it back zeroed, page by page, a moment later: a fifth of a
    training step on small networks.
    """
    _kept.set()
    tune = _c_function("mallopt")
    for option, value in _OPTIONS:
        tune(option, value)


def give_back_freed() -> None:
    """Give the system what has been freed, unless it is to be kept.

    Batches of a long epoch leave holes in the heap, a few more with every thousand.
    After every fourth batch it costs nothing that could be measured.
    """
    if not _kept.is_set():
        _c_function("malloc_trim")(0)


def _c_function(name: str) -> Callable[..., object]:
    try:
        found: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return _nothing
    return found


def _nothing(*_: int) -> None:
    """Stand for a function that this C library has not."""
