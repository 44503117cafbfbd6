"""Download the bytes of a file, or the bytes that an earlier download lacks."""

from __future__ import annotations

import fcntl
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


def missing_bytes(url: str, part: Path) -> Iterator[bytes]:
    """Yield the missing bytes of a download; all bytes if the server cannot resume.

    Raises:
        OSError: The server cannot be reached, or has no such file.
        HTTPException: The connection broke off.
    """
    start = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - fixed
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310 - fixed
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is missing
            return
        raise
    with answer:
        if start and answer.status != 206:  # the server cannot send a part
            os.truncate(part, 0)
        left = answer.length
        while payload := answer.read(CHUNK):
            left = None if left is None else left - len(payload)
            yield payload
        if left:
            raise HTTPException(f"the connection broke off: {left:,} bytes are missing")


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Context manager: lock a folder, so that only one process downloads into it.

    On a file system without locks, two simultaneous downloads damage each other's file;
    the hash check then reports an error.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
