"""Settings of glibc's malloc: reuse freed memory, or return it to the system.

By default, glibc at first returns every large freed block. Later it raises its
threshold to the largest freed block and keeps unused gaps in the heap
(docs/notebook/data-loading.md). On other C libraries both functions do nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from threading import Event

# M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h: the smallest block that gets its
# own memory mapping, and the free memory at the end of the heap before it is returned.
_OPTIONS = ((-3, 1 << 30), (-1, (1 << 31) - 1))
_reuse = Event()


def keep_freed_memory() -> None:
    """Keep freed tensor memory in the process, to reuse it for the next tensors.

    Memory returned to the system must be requested again and zeroed page by page, which
    takes a fifth of a training step on small networks.
    """
    _reuse.set()
    tune = _c_function("mallopt")
    for option, value in _OPTIONS:
        tune(option, value)


def release_freed_memory() -> None:
    """Return freed tensor memory to the system, unless `keep_freed_memory` was called.

    In a long epoch, batches leave unused gaps in the heap, more with every thousand
    batches. A call after every fourth batch takes no measurable time.
    """
    if not _reuse.is_set():
        _c_function("malloc_trim")(0)


def _c_function(name: str) -> Callable[..., object]:
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return lambda *_: None
    return function
