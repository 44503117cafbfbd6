"""Find out which rank is missing after a failed collective operation, and why.

gloo and NCCL report that a peer has gone or that the timeout is over, but not which
rank it was. So every rank whose operation failed reports this in torchrun's key-value
store. The ranks that do not report are missing; those of this machine are looked up.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from striate.core.errors import RankError

RESUME_HINT = (
    "torchrun --max-restarts 3 … resumes from the last checkpoint automatically;\n"
    "         by hand: the same command with --resume RUN"
)
_REPORT_TIME = 5.0  # seconds for the other ranks to report
_POLL = 0.1  # seconds between two looks into the store
_STORE_ERRORS = (dist.DistError, RuntimeError, OSError)


class FaultReports:
    """Reports of the ranks about failed operations, in a shared key-value store.

    Args:
        store: Key-value store of this start of the processes.
        rank: Rank of this process.
        world_size: Number of ranks.
        timeout: Seconds until a rank that does not start or continue is missing.
    """

    def __init__(
        self, store: Store, rank: int, world_size: int, timeout: float
    ) -> None:
        self._store = store
        self._rank = rank
        self._timeout = timeout
        self._others = [n for n in range(world_size) if n != rank]
        self._processes: dict[int, tuple[int, str]] = {}
        self._turns: Counter[str] = Counter()

    def wait_for_all(self) -> None:
        """Announce this process and wait for the other ranks.

        Raises:
            RankError: A rank did not start within the timeout; names it.
        """
        process = os.getpid(), socket.gethostname()
        self._store.set(f"process/{self._rank}", json.dumps(process))
        keys = {rank: f"process/{rank}" for rank in self._others}
        try:
            self._store.wait(list(keys.values()), timedelta(seconds=self._timeout))
        except _STORE_ERRORS as error:
            absent = [str(n) for n in keys if not self._store.check([keys[n]])]
            ranks = ", ".join(absent)
            what = f"rank {ranks} did not start within {self._timeout:.0f} s"
            fix = f"see the output of rank {ranks}; check --nnodes and --nproc-per-node"
            raise RankError(what, where=f"rank {self._rank}", fix=fix) from error
        for rank, key in keys.items():
            self._processes[rank] = tuple(json.loads(self._store.get(key)))

    def report_done(self, name: str) -> None:
        """Report that this rank has finished the work that other ranks wait for."""
        self._store.add(f"done/{name}/{self._rank}", 1)

    def wait_for(self, rank: int, name: str) -> None:
        """Wait, without a time limit, until another rank has reported that it is done.

        Raises:
            RankError: The rank died, failed, or was stopped for the timeout.
        """
        self._turns[name] += 1
        running = time.monotonic()
        while self._store.add(f"done/{name}/{rank}", 0) < self._turns[name]:
            state = self._state(rank)
            if state != "was stopped":
                running = time.monotonic()
            stopped = time.monotonic() - running > self._timeout
            if self._texts("fault") or state == "died" or stopped:
                raise self.error(name, RuntimeError(f"rank {rank} did not end it"))
            time.sleep(_POLL)

    def report_fault(self, what: str) -> None:
        """Report why this rank ends, for the error messages of the other ranks."""
        with suppress(*_STORE_ERRORS):
            self._store.set(f"fault/{self._rank}", what)

    def error(self, operation: str, cause: RuntimeError) -> RankError:
        """Return an error that names the rank that made an operation fail."""
        try:
            what = self._fault(operation) or f"{operation}: {cause}".splitlines()[0]
        except _STORE_ERRORS:
            what = f"{operation}: torchrun and its key-value store are gone"
        return RankError(what, where=f"seen by rank {self._rank}", fix=RESUME_HINT)

    def _fault(self, operation: str) -> str:
        """Return a text that says which rank failed and why; '' if unknown."""
        self._store.set(f"waits/{self._rank}", operation)
        end = time.monotonic() + _REPORT_TIME
        while True:
            if failed := self._texts("fault"):
                return "; ".join(f"rank {n} failed: {t}" for n, t in failed.items())
            waiting = self._texts("waits")
            missing = [rank for rank in self._others if rank not in waiting]
            states = {rank: self._state(rank) for rank in missing}
            gone = [rank for rank, state in states.items() if state]
            if gone or not missing or time.monotonic() > end:
                break
            time.sleep(_POLL)
        texts = [self._missing_text(rank, states[rank]) for rank in gone or missing]
        if texts or {operation} == set(waiting.values()):
            return "; ".join(texts)
        waiting[self._rank] = operation
        texts = [f"rank {rank}: {waiting[rank]}" for rank in sorted(waiting)]
        return f"the ranks are at different operations: {'; '.join(texts)}"

    def _texts(self, key: str) -> dict[int, str]:
        keys = {rank: f"{key}/{rank}" for rank in self._others}
        present = {n: name for n, name in keys.items() if self._store.check([name])}
        return {n: self._store.get(name).decode() for n, name in present.items()}

    def _state(self, rank: int) -> str:
        """Return whether a rank `died` or `was stopped`; '' if neither or unknown."""
        pid, host = self._processes[rank]
        if host != socket.gethostname() or not Path("/proc/self/stat").exists():
            return ""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return "died"
        states = {"Z": "died", "X": "died", "T": "was stopped", "t": "was stopped"}
        return states.get(text.rpartition(")")[2].split()[0], "")

    def _missing_text(self, rank: int, state: str) -> str:
        pid, host = self._processes[rank]
        if state == "was stopped":
            # It ignores the SIGTERM that torchrun sends.
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return f"rank {rank} (process {pid} on {host}) {state or 'does not answer'}"
