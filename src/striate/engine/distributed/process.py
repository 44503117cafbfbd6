"""Process of a rank: its identity, whether it is alive, and how to kill it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Makes a process dump its stacks; `faulthandler` answers even if Python is stuck.
DUMP = signal.SIGUSR2
_DUMP_TIME = 1.0  # seconds for a process to write its stacks before it is killed


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process, identified by PID, host and start time.

    Example:
        >>> Process.current().is_alive
        True
    """

    pid: int
    host: str
    started: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process of this machine with a PID."""
        return cls(pid=pid, host=socket.gethostname(), started=_field(pid, 19))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_local(self) -> bool:
        """Return whether it is on this machine, so that it can be inspected."""
        same = self.host == socket.gethostname()
        return same and Path("/proc/self/stat").exists()

    @property
    def is_alive(self) -> bool:
        """Return whether it exists and is not a zombie."""
        return _field(self.pid, 19) == self.started and self.state not in "ZX"

    @property
    def state(self) -> str:
        """Return the state letter of `/proc/<pid>/stat`, or nothing."""
        return _field(self.pid, 0)

    @property
    def is_stopped(self) -> bool:
        """Return whether a signal or a debugger has stopped it."""
        return self.state in ("T", "t")

    def kill(self) -> None:
        """Make it write its stacks to its own stderr, then kill it.

        A stopped process writes nothing and ignores SIGTERM, so it is continued for
        that long: its run is over.
        """
        if not self.is_local or not self.is_alive or self.pid == os.getpid():
            return
        print(f"the stacks of {self}, which hangs:", file=sys.stderr, flush=True)
        with suppress(OSError):
            os.kill(self.pid, DUMP)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(_DUMP_TIME)
            if self.is_alive:
                os.kill(self.pid, signal.SIGKILL)


def _field(pid: int, number: int) -> str:
    """Return a field of `/proc/<pid>/stat`, counted after the name."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[number]
