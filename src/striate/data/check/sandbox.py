"""Decoding in processes that may crash, hang or swallow memory: each costs one image.

A decoder is C code that reads what strangers wrote. Here it runs in worker processes
with limits on memory, time and files; when one dies, the image it was at is named, a
fresh one takes its place and goes on with the next. A worker reads files of this
machine by itself; what lies elsewhere is read here, and its bytes are handed over.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from striate.core.cpu_count import processors
from striate.core.errors import StriateError
from striate.data.check.fingerprint import THUMB
from striate.data.check.measure import Examined, Facts, Refused
from striate.data.check.prefetch import Ahead
from striate.data.check.sandbox_worker import HEAD, LENGTH, PATH, PAYLOAD, READY
from striate.data.decode.decode import ImageFileInfo

WORKER = (sys.executable, "-m", "striate.data.check.sandbox_worker")
PREVIEWER = (*WORKER, "preview")
PATIENCE = 120.0  # seconds without an answer: a disk that never answers, a deadlock
RECYCLED = 5_000  # images after which a worker is replaced, so that no leak grows
AHEAD = 6  # paths a worker holds
PAYLOADS = 2  # files a worker holds whose bytes it is given: one to decode, one to come
WINDOW = 256  # answers that may wait for an earlier one
FEW = 200  # images for which another worker is not worth starting
START = 60.0  # seconds in which a worker must say that it is ready

Answer = Examined | Refused
Request = tuple[int, bytes]  # kind and what is said; a Refused needs no worker


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
        recycled: Images after which a worker is replaced.

    Raises:
        StriateError: A worker process cannot be started at all.
    """

    def request(index: int) -> Request:
        return PATH, os.fsencode(paths[index])

    crew = _Crew(len(paths), request, AHEAD, program, patience, recycled)
    yield from crew.answers(workers)


def examine_payloads(
    paths: Sequence[str],
    read: Callable[[str], bytes],
    *,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
    patience: float = PATIENCE,
    recycled: int = RECYCLED,
) -> Iterator[Answer]:
    """Yield what files elsewhere are, in order: read here, decoded in workers.

    Only a few files are held at a time, whatever their number.

    Args:
        paths: As `read` takes them.
        read: Returns a file's bytes, or raises `UndecodableError`, which is the answer.
        workers: As for `examine_files`, and so are the others.
        program: Likewise.
        patience: Likewise; the time that reading takes is not counted.
        recycled: Likewise.

    Raises:
        StriateError: A worker process cannot be started at all.
    """
    ahead = Ahead(paths, read)

    def request(index: int) -> Request | Refused:
        payload = ahead(index)
        return payload if isinstance(payload, Refused) else (PAYLOAD, payload)

    crew = _Crew(len(paths), request, PAYLOADS, program, patience, recycled)
    yield from crew.answers(workers)


@dataclass(eq=False)
class _Worker:
    """A process, what it was asked, and what it has said so far."""

    process: subprocess.Popen[bytes]
    asked: deque[int] = field(default_factory=deque)
    unsent: deque[memoryview] = field(default_factory=deque)
    heard: bytearray = field(default_factory=bytearray)
    since: float = field(default_factory=time.monotonic)
    done: int = 0

    def ask(self, index: int, request: Request) -> None:
        kind, said = request
        if not self.asked:
            self.since = time.monotonic()
        self.asked.append(index)
        self.unsent += memoryview(HEAD.pack(kind, len(said))), memoryview(said)

    def send(self) -> bool:
        """Write as much as its pipe takes; True while something is left.

        To wait for the pipe would be to wait for a decoder that may hang.
        """
        assert self.process.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            while self.unsent:
                sent = os.write(self.process.stdin.fileno(), self.unsent[0])
                if left := self.unsent.popleft()[sent:]:
                    self.unsent.appendleft(left)
        except BlockingIOError:
            return True
        except BrokenPipeError:  # its death is noticed when it is read
            self.unsent.clear()
        return False

    def speaks(self, seconds: float) -> bool:
        """Tell whether it says something, or has gone, within so many seconds."""
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe
        with selectors.DefaultSelector() as ear:
            ear.register(self.process.stdout, selectors.EVENT_READ)
            return bool(ear.select(max(0.0, seconds)))

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
        count: int,
        request: Callable[[int], Request | Refused],
        ahead: int,
        program: Sequence[str],
        patience: float,
        recycled: int,
    ) -> None:
        self.count, self.request, self.ahead = count, request, ahead
        self.program, self.patience, self.recycled = program, patience, recycled
        self.todo = deque(range(count))
        self.ready: dict[int, Answer] = {}
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def answers(self, workers: int | None) -> Iterator[Answer]:
        """Yield all answers in order, with so many workers at most."""
        # One takes as long to start as a few hundred small images take to decode.
        hired = min(workers or processors(), 1 + self.count // FEW)
        try:
            yield from self.work(hired)
        finally:
            self.end()

    def work(self, hired: int) -> Iterator[Answer]:
        for _ in range(hired):
            self.hire()
        for turn in range(self.count):
            while turn not in self.ready:
                self.hand_out(turn)
                if turn not in self.ready:  # refused before a worker has seen it
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
            bufsize=0,
            env=os.environ | single | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C is for the parent, which ends them
        )
        worker = _Worker(process)
        self.workers.append(worker)
        assert process.stdin is not None  # noqa: S101 - opened as a pipe
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        os.set_blocking(process.stdin.fileno(), False)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        limit = time.monotonic() + START
        while len(worker.heard) < len(READY):
            # Asked before each read, which would wait for ever for a silent one.
            if not worker.speaks(limit - time.monotonic()) or not worker.listen():
                break
        if bytes(worker.heard) != READY:
            what = "the process that decodes images does not start"
            fix = "check that Python can import striate there"
            raise StriateError(what, where=" ".join(self.program), fix=fix)
        worker.heard.clear()

    def hand_out(self, turn: int) -> None:
        """Give each worker enough to do, but nothing too far ahead of the turn."""
        for worker in self.workers:
            room = min(self.ahead, self.recycled - worker.done) - len(worker.asked)
            for _ in range(room):
                if not self.todo or self.todo[0] >= turn + WINDOW:
                    return
                index = self.todo.popleft()
                request = self.fetch(index)
                if isinstance(request, Refused):
                    self.ready[index] = request
                    continue
                worker.ask(index, request)
                self.send(worker)

    def fetch(self, index: int) -> Request | Refused:
        """Return what to ask; the wait for a file's bytes is no worker's fault."""
        began = time.monotonic()
        request = self.request(index)
        waited = time.monotonic() - began
        for worker in self.workers:
            worker.since += waited
        return request

    def send(self, worker: _Worker) -> None:
        """Send what a worker's pipe takes; watch it for when it takes more."""
        pipe = worker.process.stdin
        assert pipe is not None  # noqa: S101 - opened as a pipe
        left, watched = worker.send(), pipe in self.selector.get_map()
        if left and not watched:
            self.selector.register(pipe, selectors.EVENT_WRITE, worker)
        elif watched and not left:
            self.selector.unregister(pipe)

    def listen(self) -> None:
        """Take answers in; replace who died, who hangs, and who has done enough."""
        for key, _ in self.selector.select(timeout=0.5):
            worker: _Worker = key.data
            if worker not in self.workers:
                continue  # replaced a moment ago, for what its other pipe told
            if key.fileobj is worker.process.stdin:
                self.send(worker)
            else:
                self.hear(worker)
        for worker in list(self.workers):
            waited = time.monotonic() - worker.since
            if worker.asked and waited > self.patience:
                self.replace(worker, f"no answer within {self.patience:.0f} s")

    def hear(self, worker: _Worker) -> None:
        """Take in what a worker says, and replace it where that was its last word."""
        alive = worker.listen()
        for index, answer in worker.answers():
            self.ready[index] = answer
        if not alive:
            self.replace(worker, None)
        elif worker.done >= self.recycled:
            self.dismiss(worker)

    def replace(self, worker: _Worker, why: str | None) -> None:
        """Name the image that a worker died of, and put the others back."""
        code = self.dismiss(worker)
        if not worker.asked:
            return
        culprit, *others = worker.asked
        self.todo.extendleft(reversed(others))
        self.ready[culprit] = _obituary(code, why)

    def dismiss(self, worker: _Worker) -> int:
        """End a worker and hire the next one."""
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None and pipe in self.selector.get_map():
                self.selector.unregister(pipe)
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
        nature=ImageFileInfo(nature["format"], nature["mode"], tuple(nature["notes"])),
        sha256=fields["sha256"],
        size=fields["size"],
    )
