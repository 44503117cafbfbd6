"""Safe reading of image files, and the error class for unusable files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 30


class UndecodableError(Exception):
    """Error of a file that is not a usable image, with a reason and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_file(path: Path) -> bytes:
    """Read a regular file; a pipe, socket or device is never opened.

    Raises:
        UndecodableError: The file is missing, special, unreadable, empty or too large.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()  # without permission, that is the reason
            raise UndecodableError("not-a-file", "a folder")
        if not stat.S_ISREG(status.st_mode):
            raise UndecodableError("not-a-file", "a pipe, socket or device")
        if status.st_size == 0:
            raise UndecodableError("not-an-image", "the file is empty")
        if status.st_size > MAX_BYTES:
            size = f"{status.st_size:,} bytes, at most {MAX_BYTES:,}"
            raise UndecodableError("too-large", size)
        return path.read_bytes()
    except (FileNotFoundError, ValueError):  # names with a zero byte are invalid
        raise UndecodableError("missing", "no such file") from None
    except OSError as error:
        detail = os.strerror(error.errno) if error.errno else str(error)
        raise UndecodableError("unreadable", detail) from None
