"""Freed memory is reused, or returned to the system."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from threading import Event

import pytest

from striate.core import malloc as heap

BLOCK, COUNT = 100_000, 400  # below glibc's threshold: they come from the heap
only_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library"
)


@pytest.fixture(autouse=True)
def as_at_the_start(monkeypatch):
    """Act as if nobody had trained in this process."""
    monkeypatch.setattr(heap, "_reuse", Event())


def held() -> int:
    """Return bytes of memory that is this process's own."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if "RssAnon" in line).split()[1])


def given_back() -> int:
    """Return how much goes back of blocks that lie between others which stay."""
    blocks = [bytes([i % 256]) * BLOCK for i in range(COUNT)]
    kept = blocks[::20]  # so that the heap's end stays where it is
    del blocks
    before = held()
    heap.release_freed_memory()
    assert all(block[-1] == 20 * i % 256 for i, block in enumerate(kept))
    return before - held()


@only_glibc
def test_release_freed_memory():
    # Red with an empty give_back_freed: free blocks between others stay in the heap.
    assert given_back() > COUNT * BLOCK // 2


@only_glibc
def test_keep_freed_memory_releases_nothing():
    heap.keep_freed_memory()
    assert given_back() < COUNT * BLOCK // 4


@pytest.mark.parametrize("library", [object(), OSError(), TypeError()])
def test_malloc_functions_do_nothing_on_other_c_libraries(monkeypatch, library):
    def load(_):
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    heap.release_freed_memory()
    heap.keep_freed_memory()
