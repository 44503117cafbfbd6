"""One process at a time learns into a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from striate.core.errors import RunError
from striate.core.files import storage_errors, write_all

LOCK = ".lock"
# Some network file systems know no locks; there the process named in the file counts.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder; the system lets go of it however the process ends.

    The lock is the kernel's, on an open file: one that a killed process left behind
    holds nothing and is taken over. The file says who holds it, for the message.

    Raises:
        RunError: Another process holds it; names process and machine.
        StorageError: The folder cannot be written to.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, held(Path(folder)):
        ...     os.listdir(folder)
        ['.lock']
    """
    path = folder / LOCK
    handle = _take(path)
    try:
        yield
    finally:
        with suppress(OSError):  # gone with the folder, or the disk is
            os.unlink(path)
        os.close(handle)


def _take(path: Path) -> int:
    while True:
        with storage_errors(path, 0):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with storage_errors(path, 0):
                _lock(handle, path)
                if not _is_still(handle, path):
                    os.close(handle)
                    continue
                os.ftruncate(handle, 0)
                write_all(handle, _me().encode())
        except BaseException:
            os.close(handle)
            raise
        return handle


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use(path, _holder(path)) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        pid, host = _holder(path)
        if host == socket.gethostname() and _lives(pid):
            raise _in_use(path, (pid, host)) from error


def _in_use(path: Path, holder: tuple[int, str]) -> RunError:
    pid, host = holder
    who = f"process {pid} on {host}" if pid else "another process"
    fix = "wait for it, stop it, or choose another --out"
    what = f"the run folder is in use by {who}"
    return RunError(what, where=path.parent, fix=fix)


def _is_still(handle: int, path: Path) -> bool:
    """Say whether the name still means the file: its last holder takes it away."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _me() -> str:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname()})


def _holder(path: Path) -> tuple[int, str]:
    """Return process and machine, or 0 and '' where the file does not say yet."""
    try:
        said = json.loads(path.read_bytes())
        return int(said["pid"]), str(said["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return pid not in (0, os.getpid())
