"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from striate.data.store import heap

BLOCK, COUNT = 100_000, 400  # below glibc's threshold: they come from the heap


def held() -> int:
    """Return bytes of memory that is this process's own."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if "RssAnon" in line).split()[1])


@pytest.fixture
def unknown_library() -> Iterator[None]:
    """Forget what was found of the C library, before and after."""
    heap._trim.cache_clear()
    yield
    heap._trim.cache_clear()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_holes_between_what_is_kept_go_back() -> None:
    # Red with an empty give_back: free blocks between kept ones stay in the heap.
    blocks = [bytes([i % 256]) * BLOCK for i in range(COUNT)]
    kept = blocks[::20]  # so that the heap's end stays where it is
    del blocks
    before = held()
    heap.give_back()
    assert before - held() > COUNT * BLOCK // 2
    assert all(block[-1] == 20 * i % 256 for i, block in enumerate(kept))


@pytest.mark.parametrize("library", [object(), OSError(), TypeError()])
@pytest.mark.usefixtures("unknown_library")
def test_nothing_happens_elsewhere(
    monkeypatch: pytest.MonkeyPatch, library: object
) -> None:
    def load(_: None) -> object:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    heap.give_back()
