"""Finds a dead or hung process of a run in seconds, where gloo would wait 30 minutes.

Every rank has a thread that says each second through the launcher's store that it
lives, and looks whether the next rank does: a ring, so that the cost of a rank does not
grow with their number. The first fault found ends all ranks: it stands in the store.
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
_PARTED_GRACE = 10.0  # likewise where the launcher has gone, to save the state first
_TELL_SLOW = 60.0  # seconds from telling of a slow rank to telling again
_FAULT = "fault"
RESUME_HINT = (
    "torchrun --max-restarts 3 … goes on from the last checkpoint by itself;\n"
    "         by hand: the same command with --resume RUN"
)
_STORE_ERRORS = (DistError, RuntimeError, OSError)


@dataclass(frozen=True, kw_only=True)
class SignOfLife:
    """What a rank last said of itself."""

    beat: int
    pid: int
    host: str
    began: str
    kind: str
    doing: str
    since: float

    @property
    def process(self) -> Process:
        """Return whose sign it is."""
        return Process(pid=self.pid, host=self.host, began=self.began)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What went wrong, and with whom; -1 is nobody alone."""

    rank: int
    what: str
    exit_code: int = 1


class Watchdog:
    """A rank's thread that watches itself and its neighbor.

    Args:
        store: A connection of its own to the store that all ranks share.
        rank: Of this process.
        world: How many ranks there are.
        pulse: What the main thread is doing.
        patience: Seconds without a sign that are a fault.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world: int,
        pulse: Heartbeat,
        patience: float = PATIENCE,
    ) -> None:
        self.fault: Fault | None = None
        self._known = threading.Event()
        self._over = threading.Event()
        self._store = store
        self._rank, self._world = rank, world
        self._next = (rank + 1) % world
        self._pulse = pulse
        self._patience = patience
        self._me = Process.mine()
        self._parent = os.getppid()
        self._parted = 0.0
        self._beat = 0
        self._seen: tuple[int, float] = (-1, time.monotonic())
        self._sign: SignOfLife | None = None  # the next rank's last
        self._told_slow = 0.0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch, and answer who asks for the stacks."""
        faulthandler.register(DUMP, all_threads=True)
        self._say()
        self._thread.start()

    def stop(self) -> None:
        """Say that this rank has left in peace, and watch no more."""
        self._pulse.leave()
        self._over.set()
        self._thread.join(self._patience)
        with suppress(*_STORE_ERRORS):
            self._say()
        faulthandler.unregister(DUMP)

    def check(self) -> None:
        """Raise the fault, if there is one.

        Raises:
            RankError: A rank died, hung or failed.
        """
        if self.fault is not None:
            raise self._error(self.fault)

    def blame(self, error: Exception) -> RankError:
        """Return who is to blame for an exchange that failed: wait for the finding."""
        self._known.wait(self._patience + 2 * BEAT)
        if self.fault is None:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            return self._error(Fault(rank=-1, what=f"an exchange failed: {reason}"))
        return self._error(self.fault)

    def tell(self, what: str, rank: int | None = None, exit_code: int = 1) -> Fault:
        """Let all ranks know of a fault; the first one told stays."""
        who = self._rank if rank is None else rank
        mine = json.dumps(asdict(Fault(rank=who, what=what, exit_code=exit_code)))
        with suppress(*_STORE_ERRORS):
            mine = self._store.compare_set(_FAULT, "", mine).decode()
        self._learn(Fault(**json.loads(mine)))
        assert self.fault is not None  # noqa: S101 - just learned
        return self.fault

    def places(self, mine: str) -> str:
        """Return where every rank is, in words, where it says so in time."""
        self._store.set(f"place/{self._rank}", mine)
        return "; ".join(f"rank {n} {self._place(n)}" for n in range(self._world))

    def _place(self, rank: int) -> str:
        try:
            self._store.wait([f"place/{rank}"], timedelta(seconds=_GRACE))
        except _STORE_ERRORS:
            return "does not say where"
        return str(self._store.get(f"place/{rank}").decode())

    def _learn(self, fault: Fault) -> None:
        self.fault = self.fault or fault
        self._known.set()

    def _error(self, fault: Fault) -> RankError:
        error = RankError(
            fault.what, where=f"seen by rank {self._rank}", fix=RESUME_HINT
        )
        error.exit_code = fault.exit_code
        return error

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self._tick()
            except _STORE_ERRORS:
                self._part("the launcher's store has gone")
            if self.fault is not None:
                self._end_all(self.fault)
                return

    def _tick(self) -> None:
        if os.getppid() != self._parent:
            self._part("the launcher has gone")
            return
        self._say()
        if self._store.check([_FAULT]):
            self._learn(Fault(**json.loads(self._store.get(_FAULT))))
            return
        if self._pulse.stands_still(time.thread_time()):
            self._stand()
        elif self._world > 1:
            self._look_at_next()
            self._look_around()

    def _say(self) -> None:
        self._beat += 1
        pulse = self._pulse
        sign = SignOfLife(
            beat=self._beat,
            **asdict(self._me),
            kind=pulse.kind,
            doing=pulse.doing,
            since=round(pulse.since, 1),
        )
        self._store.set(f"sign/{self._rank}", json.dumps(asdict(sign)))

    def _stand(self) -> None:
        """Tell of this very rank, whose main thread does not get on."""
        what = f"{self._named(self._rank, self._me)} stands still: {self._pulse}"
        self.tell(f"{what}; nothing was computed for {self._patience:.0f} s")
        faulthandler.dump_traceback(all_threads=True)

    def _look_at_next(self) -> None:
        sign = self._sign_of(self._next)
        now = time.monotonic()
        if sign is not None and sign.kind == FINISHED:
            return
        if sign is not None and sign.beat != self._seen[0]:
            self._seen, self._sign = (sign.beat, now), sign
        if self._sign is None:
            return
        process = self._sign.process
        silent = now - self._seen[1]
        if process.here and not process.lives:
            self.tell(f"{self._named(self._next, process)} died", self._next)
        elif silent > self._patience:
            how = "it was stopped" if process.here and process.stopped else "it hangs"
            if not process.here:
                how = "it, its machine or the network to it is down"
            named = self._named(self._next, process)
            what = f"{named} gave no sign of life for {silent:.0f} s: {how}"
            self.tell(what, self._next)
            process.end()

    def _look_around(self) -> None:
        """Tell waiting for a slow rank from waiting for one that will not come."""
        if self._pulse.kind != WAITING or self._pulse.since < self._patience:
            return
        signs = self._signs()
        coming = [
            n for n, sign in enumerate(signs) if sign.kind not in (WAITING, FINISHED)
        ]
        late = [s for s in signs if s.kind == WAITING and s.since < self._patience]
        if not coming and not late:
            listed = "; ".join(f"rank {n}, {s.doing}" for n, s in enumerate(signs))
            self.tell(f"the ranks wait for different things: {listed}", -1)
        elif coming and self._pulse.since > 2 * self._patience and self._slow_untold():
            sign = signs[coming[0]]
            who = self._named(coming[0], sign.process)
            print(f"waiting for {who}, which lives: {sign.doing}", file=sys.stderr)

    def _slow_untold(self) -> bool:
        now = time.monotonic()
        if now - self._told_slow < _TELL_SLOW:
            return False
        self._told_slow = now
        return True

    def _sign_of(self, rank: int) -> SignOfLife | None:
        key = f"sign/{rank}"
        if not self._store.check([key]):
            return None
        return SignOfLife(**json.loads(self._store.get(key)))

    def _signs(self) -> list[SignOfLife]:
        every = (self._sign_of(rank) for rank in range(self._world))
        return [sign for sign in every if sign is not None]

    def _named(self, rank: int, process: Process) -> str:
        return f"rank {rank} ({process})"

    def _part(self, what: str) -> None:
        """Stop in good order, as Ctrl-C would; at once where that does not help."""
        if not self._parted:
            self._parted = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
        elif time.monotonic() - self._parted > _PARTED_GRACE:
            self._learn(Fault(rank=-1, what=what))

    def _end_all(self, fault: Fault) -> None:
        """End this process where its main thread does not do so by itself."""
        if fault.rank != self._rank or not self._over.is_set():
            self._over.wait(_GRACE)
        if self._over.is_set():
            return
        print(f"striate: {self._error(fault)}", file=sys.stderr, flush=True)
        os._exit(fault.exit_code)
