"""A process of this machine: who it is, whether it lives, and how it is made to end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Asks a process for its stacks; `faulthandler` answers even where Python stands still.
DUMP = signal.SIGUSR2
_DUMP_TIME = 1.0  # seconds a process gets to write its stacks before it is ended


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process, told from a later one of the same number by when it began.

    Example:
        >>> Process.mine().lives
        True
    """

    pid: int
    host: str
    began: str

    @classmethod
    def mine(cls) -> Process:
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return a process of this machine."""
        return cls(pid=pid, host=socket.gethostname(), began=_field(pid, 19))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def here(self) -> bool:
        """Say whether it is on this machine, so that it can be looked at."""
        same = self.host == socket.gethostname()
        return same and Path("/proc/self/stat").exists()

    @property
    def lives(self) -> bool:
        """Say whether it is there and not merely waiting to be buried."""
        return _field(self.pid, 19) == self.began and self.state not in "ZX"

    @property
    def state(self) -> str:
        """Return the system's letter for what it does, or nothing."""
        return _field(self.pid, 0)

    @property
    def stopped(self) -> bool:
        """Say whether a signal or a debugger has stopped it."""
        return self.state in ("T", "t")

    def end(self) -> None:
        """Have it write its stacks to its own stderr, and end it.

        A stopped process writes nothing and is not even ended by SIGTERM, so it is
        continued for that long: the run it belongs to is over.
        """
        if not self.here or not self.lives or self.pid == os.getpid():
            return
        print(f"the stacks of {self}, which hangs:", file=sys.stderr, flush=True)
        with suppress(OSError):
            os.kill(self.pid, DUMP)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(_DUMP_TIME)
            if self.lives:
                os.kill(self.pid, signal.SIGKILL)


def _field(pid: int, number: int) -> str:
    """Return a field of `/proc/<pid>/stat`, counted from behind the name."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[number]
