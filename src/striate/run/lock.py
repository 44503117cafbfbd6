"""Lock of a run folder, so that only one process at a time writes into the folder."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from striate.core.errors import RunError
from striate.core.files import storage_errors

LOCK = ".lock"
WAIT = 0.1  # seconds: a process that ends has deleted the file, but not yet unlocked it
# Some network file systems have no locks; then the process ID in the file is checked.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Context manager: lock a run folder; a killed process releases the lock too.

    The lock is a kernel lock on an open file, so the lock file of a killed process does
    not block other processes. The file contains process ID and host name.

    Raises:
        RunError: Another process has locked the folder; names process and host.
        StorageError: The folder cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, lock_folder(Path(folder)):
        ...     os.listdir(folder)
        ['.lock']
    """
    path = folder / LOCK
    lock = FileLock(path, timeout=WAIT, poll_interval=WAIT / 10, fallback_to_soft=False)
    with storage_errors(path, 0):
        _acquire(lock, path)
    try:
        with storage_errors(path, 0):
            owner = {"pid": os.getpid(), "host": socket.gethostname()}
            path.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # the folder or the disk may be gone
            path.unlink()
        lock.release()


def _acquire(lock: BaseFileLock, path: Path) -> None:
    try:
        lock.acquire()
    except Timeout as error:
        raise _in_use(path, _owner(path)) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        pid, host = _owner(path)
        if host == socket.gethostname() and _is_alive(pid):
            raise _in_use(path, (pid, host)) from error


def _in_use(path: Path, owner: tuple[int, str]) -> RunError:
    pid, host = owner
    who = f"process {pid} on {host}" if pid else "another process"
    fix = "wait until that process ends, stop it, or choose another --out"
    what = f"the run folder is in use by {who}"
    return RunError(what, where=path.parent, fix=fix)


def _owner(path: Path) -> tuple[int, str]:
    """Return process ID and host from the lock file; 0 and '' if not written yet."""
    try:
        owner = json.loads(path.read_bytes())
        return int(owner["pid"]), str(owner["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return pid not in (0, os.getpid())
