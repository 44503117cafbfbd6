"""Decoding in processes that may crash, hang or swallow memory: each costs one picture.

A decoder is C code that reads what strangers wrote. Here it runs in worker processes
with limits on memory, time and files; when one dies, the picture it was at is named, a
fresh one takes its place and goes on with the next.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from striate.core.errors import StriateError
from striate.data.check.examine import Examined, Facts, Refused
from striate.data.check.fingerprint import THUMB
from striate.data.check.worker import LENGTH, READY
from striate.data.picture.decode import Nature

WORKER = (sys.executable, "-m", "striate.data.check.worker")
PREVIEWER = (*WORKER, "preview")
PATIENCE = 120.0  # seconds without an answer: a disk that never answers, a deadlock
RECYCLED = 5_000  # pictures after which a worker is replaced, so that no leak grows
AHEAD = 6  # requests a worker holds; all of them fit its pipe, so none blocks
WINDOW = 256  # answers that may wait for an earlier one
FEW = 200  # pictures for which another worker is not worth starting
START = 60.0  # seconds in which a worker must say that it is ready

Answer = Examined | Refused


def examine_files(
    paths: Sequence[Path],
    *,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
    patience: float = PATIENCE,
    recycled: int = RECYCLED,
) -> Iterator[Answer]:
    """Yield what each file is, in order, whatever the files do to the decoders.

    Args:
        paths: Files.
        workers: Processes; as many as there are processors where not given.
        program: Command of a worker.
        patience: Seconds without an answer after which a worker is ended.
        recycled: Pictures after which a worker is replaced.

    Raises:
        StriateError: A worker process cannot be started at all.
    """
    # A worker takes as long to start as a few hundred small pictures take to decode.
    count = min(workers or os.cpu_count() or 1, 1 + len(paths) // FEW)
    crew = _Crew(paths, program, patience, recycled)
    try:
        yield from crew.work(count)
    finally:
        crew.end()


@dataclass(eq=False)
class _Worker:
    """A process, what it was asked, and what it has said so far."""

    process: subprocess.Popen[bytes]
    asked: deque[int] = field(default_factory=deque)
    heard: bytearray = field(default_factory=bytearray)
    since: float = field(default_factory=time.monotonic)
    done: int = 0

    def ask(self, index: int, path: Path) -> None:
        name = os.fsencode(path)
        if not self.asked:
            self.since = time.monotonic()
        self.asked.append(index)
        assert self.process.stdin is not None  # noqa: S101 - opened as a pipe
        with suppress(BrokenPipeError):  # its death is noticed when it is read
            self.process.stdin.write(LENGTH.pack(len(name)) + name)
            self.process.stdin.flush()

    def listen(self) -> bool:
        """Take in what it says; False once it has gone."""
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe
        said = os.read(self.process.stdout.fileno(), 1 << 16)
        self.heard += said
        return bool(said)

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """Yield complete answers, each with the number of its request."""
        head = 2 * LENGTH.size
        while len(self.heard) >= head:
            sizes = [LENGTH.unpack_from(self.heard, at)[0] for at in (0, LENGTH.size)]
            if len(self.heard) < head + sum(sizes):
                return
            text = bytes(self.heard[head : head + sizes[0]])
            blob = bytes(self.heard[head + sizes[0] : head + sum(sizes)])
            del self.heard[: head + sum(sizes)]
            self.since = time.monotonic()
            self.done += 1
            yield self.asked.popleft(), unpacked(text, blob)

    def end(self) -> int:
        """Kill it, if it lives, and return how it ended."""
        with suppress(ProcessLookupError):
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return self.process.wait()


class _Crew:
    """Workers, the files still to look at, and answers that wait for their turn."""

    def __init__(
        self,
        paths: Sequence[Path],
        program: Sequence[str],
        patience: float,
        recycled: int,
    ) -> None:
        self.paths, self.program = paths, program
        self.patience, self.recycled = patience, recycled
        self.todo = deque(range(len(paths)))
        self.ready: dict[int, Answer] = {}
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def work(self, count: int) -> Iterator[Answer]:
        for _ in range(count):
            self.hire()
        for turn in range(len(self.paths)):
            while turn not in self.ready:
                self.hand_out(turn)
                self.listen()
            yield self.ready.pop(turn)

    def hire(self) -> None:
        """Start a worker and wait until it is ready."""
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self.program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | single | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C is for the parent, which ends them
        )
        worker = _Worker(process)
        self.workers.append(worker)
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        limit = time.monotonic() + START
        while len(worker.heard) < len(READY) and time.monotonic() < limit:
            if not worker.listen():
                break
        if bytes(worker.heard) != READY:
            what = "the process that decodes pictures does not start"
            fix = "check that Python can import striate there"
            raise StriateError(what, where=" ".join(self.program), fix=fix)
        worker.heard.clear()

    def hand_out(self, turn: int) -> None:
        """Give each worker enough to do, but nothing too far ahead of the turn."""
        for worker in self.workers:
            room = min(AHEAD, self.recycled - worker.done) - len(worker.asked)
            for _ in range(room):
                if not self.todo or self.todo[0] >= turn + WINDOW:
                    return
                index = self.todo.popleft()
                worker.ask(index, self.paths[index])

    def listen(self) -> None:
        """Take answers in; replace who died, who hangs, and who has done enough."""
        for key, _ in self.selector.select(timeout=0.5):
            worker: _Worker = key.data
            alive = worker.listen()
            for index, answer in worker.answers():
                self.ready[index] = answer
            if not alive:
                self.replace(worker, None)
            elif worker.done >= self.recycled:
                self.dismiss(worker)
        for worker in list(self.workers):
            waited = time.monotonic() - worker.since
            if worker.asked and waited > self.patience:
                self.replace(worker, f"no answer within {self.patience:.0f} s")

    def replace(self, worker: _Worker, why: str | None) -> None:
        """Name the picture that a worker died of, and put the others back."""
        code = self.dismiss(worker)
        if not worker.asked:
            return
        culprit, *others = worker.asked
        self.todo.extendleft(reversed(others))
        self.ready[culprit] = _obituary(code, why)

    def dismiss(self, worker: _Worker) -> int:
        """End a worker and hire the next one."""
        assert worker.process.stdout is not None  # noqa: S101 - opened as a pipe
        self.selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        code = worker.end()
        if self.todo or worker.asked:
            self.hire()
        return code

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
        self.selector.close()


def _obituary(code: int, why: str | None) -> Refused:
    if why is not None:
        return Refused(reason="too-slow", detail=why)
    if code == -getattr(signal, "SIGXCPU", 24):
        detail = "decoding it takes too long"
        return Refused(reason="too-slow", detail=detail)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Refused(reason="crashes-the-decoder", detail=f"the decoder ended by {how}")


def unpacked(text: bytes, blob: bytes) -> Answer:
    """Read what `worker.packed` wrote."""
    fields = json.loads(text)
    if "reason" in fields:
        return Refused(**fields)
    nature = fields["nature"]
    shape = fields["view"]
    size = math.prod(shape)
    views = np.frombuffer(blob, np.uint8)
    return Examined(
        facts=Facts(**fields["facts"]),
        view=views[:size].reshape(shape),
        thumb=views[size:].reshape(THUMB, THUMB),
        nature=Nature(nature["format"], nature["mode"], tuple(nature["notes"])),
        sha256=fields["sha256"],
        size=fields["size"],
    )
