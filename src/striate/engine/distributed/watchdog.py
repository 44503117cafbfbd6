"""Watchdog: finds a dead or hung rank in seconds, where gloo would wait 30 minutes.

A thread of every rank publishes each second through the launcher's store that it is
alive, and checks the next rank: a ring, so that the cost of a rank does not grow with
their number. The first fault is written to the store and ends all ranks.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch._C._distributed_c10d import Store
from torch.distributed import DistError

from striate.core.errors import RankError
from striate.engine.distributed.heartbeat import FINISHED, WAITING, Heartbeat
from striate.engine.distributed.process import DUMP, Process

PATIENCE = 10.0  # seconds; a fault is then found, and the rest stopped, within 15
BEAT = 1.0  # seconds from one sign of life to the next
_GRACE = 3.0  # seconds for the main thread to stop by itself once a fault is known
_ORPHAN_GRACE = 10.0  # likewise where the launcher has gone, to save the state first
_REPORT_INTERVAL = 60.0  # seconds from telling of a slow rank to telling again
_FAULT = "fault"
RESUME_HINT = (
    "torchrun --max-restarts 3 … goes on from the last checkpoint by itself;\n"
    "         by hand: the same command with --resume RUN"
)
_STORE_ERRORS = (DistError, RuntimeError, OSError)


@dataclass(frozen=True, kw_only=True)
class SignOfLife:
    """The last sign of life of a rank."""

    beat: int
    pid: int
    host: str
    started: str
    kind: str
    description: str
    seconds: float

    @property
    def process(self) -> Process:
        """Return the process of the sign."""
        return Process(pid=self.pid, host=self.host, started=self.started)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault and its rank; -1 if it is no single rank."""

    rank: int
    what: str
    exit_code: int = 1


class Watchdog:
    """A thread that watches its own rank and the next one.

    Args:
        store: A connection of its own to the store that all ranks share.
        rank: Of this process.
        world_size: How many ranks there are.
        heartbeat: What the main thread is doing.
        patience: Seconds without a sign that are a fault.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        heartbeat: Heartbeat,
        patience: float = PATIENCE,
    ) -> None:
        self.fault: Fault | None = None
        self._fault_known = threading.Event()
        self._finished = threading.Event()
        self._store = store
        self._rank, self._world_size = rank, world_size
        self._next = (rank + 1) % world_size
        self._heartbeat = heartbeat
        self._patience = patience
        self._process = Process.current()
        self._parent = os.getppid()
        self._orphaned_at = 0.0
        self._beat = 0
        self._last_beat: tuple[int, float] = (-1, time.monotonic())
        self._sign: SignOfLife | None = None  # the next rank's last
        self._reported_slow_at = 0.0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Start the thread, and register the stack dump."""
        faulthandler.register(DUMP, all_threads=True)
        self._publish()
        self._thread.start()

    def stop(self) -> None:
        """Publish that this rank has finished, and stop watching."""
        self._heartbeat.finish()
        self._finished.set()
        self._thread.join(self._patience)
        with suppress(*_STORE_ERRORS):
            self._publish()
        faulthandler.unregister(DUMP)

    def check(self) -> None:
        """Raise the fault, if there is one.

        Raises:
            RankError: A rank died, hung or failed.
        """
        if self.fault is not None:
            raise self._error(self.fault)

    def cause_of(self, error: Exception) -> RankError:
        """Wait for the fault behind a failed exchange and return it as an error."""
        self._fault_known.wait(self._patience + 2 * BEAT)
        if self.fault is None:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            return self._error(Fault(rank=-1, what=f"an exchange failed: {reason}"))
        return self._error(self.fault)

    def report(self, what: str, rank: int | None = None, exit_code: int = 1) -> Fault:
        """Report a fault to all ranks; only the first report counts."""
        who = self._rank if rank is None else rank
        text = json.dumps(asdict(Fault(rank=who, what=what, exit_code=exit_code)))
        with suppress(*_STORE_ERRORS):
            text = self._store.compare_set(_FAULT, "", text).decode()
        self._set_fault(Fault(**json.loads(text)))
        assert self.fault is not None  # noqa: S101 - just learned
        return self.fault

    def positions(self, text: str) -> str:
        """Return the positions of all ranks as text."""
        self._store.set(f"place/{self._rank}", text)
        return "; ".join(
            f"rank {n} {self._position(n)}" for n in range(self._world_size)
        )

    def _position(self, rank: int) -> str:
        try:
            self._store.wait([f"place/{rank}"], timedelta(seconds=_GRACE))
        except _STORE_ERRORS:
            return "does not say where"
        return str(self._store.get(f"place/{rank}").decode())

    def _set_fault(self, fault: Fault) -> None:
        self.fault = self.fault or fault
        self._fault_known.set()

    def _error(self, fault: Fault) -> RankError:
        error = RankError(
            fault.what, where=f"seen by rank {self._rank}", fix=RESUME_HINT
        )
        error.exit_code = fault.exit_code
        return error

    def _run(self) -> None:
        while not self._finished.wait(BEAT):
            try:
                self._tick()
            except _STORE_ERRORS:
                self._stop_orphan("the launcher's store has gone")
            if self.fault is not None:
                self._end_all(self.fault)
                return

    def _tick(self) -> None:
        if os.getppid() != self._parent:
            self._stop_orphan("the launcher has gone")
            return
        self._publish()
        if self._store.check([_FAULT]):
            self._set_fault(Fault(**json.loads(self._store.get(_FAULT))))
            return
        if self._heartbeat.is_stuck(time.thread_time()):
            self._report_stuck()
        elif self._world_size > 1:
            self._check_next_rank()
            self._check_waiting()

    def _publish(self) -> None:
        self._beat += 1
        heartbeat = self._heartbeat
        sign = SignOfLife(
            beat=self._beat,
            **asdict(self._process),
            kind=heartbeat.kind,
            description=heartbeat.description,
            seconds=round(heartbeat.seconds, 1),
        )
        self._store.set(f"sign/{self._rank}", json.dumps(asdict(sign)))

    def _report_stuck(self) -> None:
        """Report this rank, whose main thread makes no progress."""
        name = self._name_of(self._rank, self._process)
        what = f"{name} stands still: {self._heartbeat}"
        self.report(f"{what}; nothing was computed for {self._patience:.0f} s")
        faulthandler.dump_traceback(all_threads=True)

    def _check_next_rank(self) -> None:
        sign = self._sign_of(self._next)
        now = time.monotonic()
        if sign is not None and sign.kind == FINISHED:
            return
        if sign is not None and sign.beat != self._last_beat[0]:
            self._last_beat, self._sign = (sign.beat, now), sign
        if self._sign is None:
            return
        process = self._sign.process
        silent = now - self._last_beat[1]
        if process.is_local and not process.is_alive:
            self.report(f"{self._name_of(self._next, process)} died", self._next)
        elif silent > self._patience:
            reason = (
                "it was stopped"
                if process.is_local and process.is_stopped
                else "it hangs"
            )
            if not process.is_local:
                reason = "it, its machine or the network to it is down"
            who = self._name_of(self._next, process)
            what = f"{who} gave no sign of life for {silent:.0f} s: {reason}"
            self.report(what, self._next)
            process.kill()

    def _check_waiting(self) -> None:
        """Report if the ranks wait for different things; print if one is slow."""
        if self._heartbeat.kind != WAITING or self._heartbeat.seconds < self._patience:
            return
        signs = self._signs()
        coming = [
            n for n, sign in enumerate(signs) if sign.kind not in (WAITING, FINISHED)
        ]
        late = [s for s in signs if s.kind == WAITING and s.seconds < self._patience]
        if not coming and not late:
            listed = "; ".join(
                f"rank {n}, {s.description}" for n, s in enumerate(signs)
            )
            self.report(f"the ranks wait for different things: {listed}", -1)
        elif (
            coming
            and self._heartbeat.seconds > 2 * self._patience
            and self._slow_rank_due()
        ):
            sign = signs[coming[0]]
            who = self._name_of(coming[0], sign.process)
            print(
                f"waiting for {who}, which lives: {sign.description}", file=sys.stderr
            )

    def _slow_rank_due(self) -> bool:
        now = time.monotonic()
        if now - self._reported_slow_at < _REPORT_INTERVAL:
            return False
        self._reported_slow_at = now
        return True

    def _sign_of(self, rank: int) -> SignOfLife | None:
        key = f"sign/{rank}"
        if not self._store.check([key]):
            return None
        return SignOfLife(**json.loads(self._store.get(key)))

    def _signs(self) -> list[SignOfLife]:
        signs = (self._sign_of(rank) for rank in range(self._world_size))
        return [sign for sign in signs if sign is not None]

    def _name_of(self, rank: int, process: Process) -> str:
        return f"rank {rank} ({process})"

    def _stop_orphan(self, what: str) -> None:
        """Stop as Ctrl-C would; at once if that does not help."""
        if not self._orphaned_at:
            self._orphaned_at = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
        elif time.monotonic() - self._orphaned_at > _ORPHAN_GRACE:
            self._set_fault(Fault(rank=-1, what=what))

    def _end_all(self, fault: Fault) -> None:
        """End this process if its main thread does not end by itself."""
        if fault.rank != self._rank or not self._finished.is_set():
            self._finished.wait(_GRACE)
        if self._finished.is_set():
            return
        print(f"striate: {self._error(fault)}", file=sys.stderr, flush=True)
        os._exit(fault.exit_code)
