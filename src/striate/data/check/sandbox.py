"""Sandbox for image decoding: worker processes with limits on memory, time and files.

A decoder is C code that reads untrusted files. If a worker process crashes, hangs or
runs out of memory, the image it was decoding is reported as unusable, and a new worker
goes on with the next image. Workers read local files themselves. The main process reads
remote files and shard members, and sends their bytes to a worker.
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

from striate.core.cpu_count import cpu_count
from striate.core.errors import StriateError
from striate.data.check.fingerprint import THUMB
from striate.data.check.image_stats import ExaminedImage, ImageStats, UnusableFile
from striate.data.check.prefetch import Prefetcher
from striate.data.check.sandbox_worker import LENGTH, PATH, PAYLOAD, READY, REQUEST_HEAD
from striate.data.decode.decode import ImageFileInfo

WORKER = (sys.executable, "-m", "striate.data.check.sandbox_worker")
PREVIEWER = (*WORKER, "preview")
TIMEOUT = 120.0  # seconds without a result: a disk that hangs, a deadlock
IMAGES_PER_WORKER = (
    5_000  # images after which a worker is replaced, against memory leaks
)
QUEUED_PATHS = 6  # paths queued in a worker
QUEUED_PAYLOADS = 2  # files queued in a worker as bytes: one to decode, one to come
MAX_REORDERED = 256  # results that may wait for an earlier one
IMAGES_PER_WORKER = 200  # images per additional worker
START_TIMEOUT = 60.0  # seconds until a worker must be ready

Result = ExaminedImage | UnusableFile
Request = tuple[int, bytes]  # kind and body


def examine_files(
    paths: Sequence[Path],
    *,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
    timeout: float = TIMEOUT,
    max_images: int = IMAGES_PER_WORKER,
) -> Iterator[Result]:
    """Decode and measure image files in sandboxed workers; yield results in order.

    A worker is killed if it gives no result for `timeout` seconds, and replaced after
    `max_images` images.

    Raises:
        StriateError: A worker process cannot be started.
    """

    def request(index: int) -> Request:
        return PATH, os.fsencode(paths[index])

    pool = _WorkerPool(len(paths), request, QUEUED_PATHS, program, timeout, max_images)
    yield from pool.results(workers)


def examine_payloads(
    paths: Sequence[str],
    read: Callable[[str], bytes],
    *,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
    timeout: float = TIMEOUT,
    max_images: int = IMAGES_PER_WORKER,
) -> Iterator[Result]:
    """Read remote files in this process, and decode and measure them in workers.

    Only a few files are in memory at a time.

    Raises:
        StriateError: A worker process cannot be started.
    """
    prefetcher = Prefetcher(paths, read)

    def request(index: int) -> Request | UnusableFile:
        payload = prefetcher(index)
        return payload if isinstance(payload, UnusableFile) else (PAYLOAD, payload)

    pool = _WorkerPool(
        len(paths), request, QUEUED_PAYLOADS, program, timeout, max_images
    )
    yield from pool.results(workers)


@dataclass(eq=False)
class _Worker:
    """Worker process with its pending requests and received bytes."""

    process: subprocess.Popen[bytes]
    pending: deque[int] = field(default_factory=deque)
    outgoing: deque[memoryview] = field(default_factory=deque)
    received: bytearray = field(default_factory=bytearray)
    last_activity: float = field(default_factory=time.monotonic)
    completed: int = 0

    def submit(self, index: int, request: Request) -> None:
        kind, body = request
        if not self.pending:
            self.last_activity = time.monotonic()
        self.pending.append(index)
        self.outgoing += (
            memoryview(REQUEST_HEAD.pack(kind, len(body))),
            memoryview(body),
        )

    def send(self) -> bool:
        """Write outgoing bytes to the worker's pipe; return True if some are unwritten.

        The call never waits for the pipe, because the decoder behind it may hang.
        """
        assert self.process.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            while self.outgoing:
                sent = os.write(self.process.stdin.fileno(), self.outgoing[0])
                if unwritten := self.outgoing.popleft()[sent:]:
                    self.outgoing.appendleft(unwritten)
        except BlockingIOError:
            return True
        except BrokenPipeError:  # its death is noticed when it is read
            self.outgoing.clear()
        return False

    def readable(self, seconds: float) -> bool:
        """Return whether output, or the end of output, arrives within `seconds`."""
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return bool(selector.select(max(0.0, seconds)))

    def receive(self) -> bool:
        """Read available output of the worker; return False after the end of output."""
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe
        body = os.read(self.process.stdout.fileno(), 1 << 16)
        self.received += body
        return bool(body)

    def results(self) -> Iterator[tuple[int, Result]]:
        """Yield complete results, each with the index of its request."""
        head = 2 * LENGTH.size
        while len(self.received) >= head:
            (text_size,) = LENGTH.unpack_from(self.received)
            (blob_size,) = LENGTH.unpack_from(self.received, LENGTH.size)
            middle, end = head + text_size, head + text_size + blob_size
            if len(self.received) < end:
                return
            text = bytes(self.received[head:middle])
            blob = bytes(self.received[middle:end])
            del self.received[:end]
            self.last_activity = time.monotonic()
            self.completed += 1
            yield self.pending.popleft(), unpack_result(text, blob)

    def end(self) -> int:
        """Kill the worker process if it is running, and return its exit code."""
        with suppress(ProcessLookupError):
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return self.process.wait()


@dataclass(eq=False)
class _WorkerPool:
    """Pool of workers, with a queue of files and results in input order."""

    count: int
    request: Callable[[int], Request | UnusableFile]
    queue_length: int
    program: Sequence[str]
    timeout: float
    max_images: int

    def __post_init__(self) -> None:
        self.queue = deque(range(self.count))
        self.finished: dict[int, Result] = {}
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def results(self, workers: int | None) -> Iterator[Result]:
        """Yield the results in input order, using at most `workers` processes."""
        # Starting a worker takes as long as decoding a few hundred small images.
        worker_count = min(workers or cpu_count(), 1 + self.count // IMAGES_PER_WORKER)
        try:
            for _ in range(worker_count):
                self.start_worker()
            for next_index in range(self.count):
                while next_index not in self.finished:
                    self.distribute(next_index)
                    # A file that could not be read is finished; no worker has it.
                    if next_index not in self.finished:
                        self.receive()
                yield self.finished.pop(next_index)
        finally:
            for worker in self.workers:
                worker.end()
            self.selector.close()

    def start_worker(self) -> None:
        """Start a worker, and wait until the worker is ready."""
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self.program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=os.environ | one_thread | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C is for the parent, which ends them
        )
        worker = _Worker(process)
        self.workers.append(worker)
        assert process.stdin is not None  # noqa: S101 - opened as a pipe
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        os.set_blocking(process.stdin.fileno(), False)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        deadline = time.monotonic() + START_TIMEOUT
        while len(worker.received) < len(READY):
            # Checked before each read, which would wait forever for a silent worker.
            if not worker.readable(deadline - time.monotonic()) or not worker.receive():
                break
        if bytes(worker.received) != READY:
            what = "the process that decodes images does not start"
            fix = "check that Python can import striate there"
            raise StriateError(what, where=" ".join(self.program), fix=fix)
        worker.received.clear()

    def distribute(self, next_index: int) -> None:
        """Send files to the workers, but not too far ahead of the next result."""
        for worker in self.workers:
            most = min(self.queue_length, self.max_images - worker.completed)
            for _ in range(most - len(worker.pending)):
                if not self.queue or self.queue[0] >= next_index + MAX_REORDERED:
                    return
                index = self.queue.popleft()
                request = self.fetch(index)
                if isinstance(request, UnusableFile):
                    self.finished[index] = request
                    continue
                worker.submit(index, request)
                self.send(worker)

    def fetch(self, index: int) -> Request | UnusableFile:
        """Read the file of a request; reading time does not count for the timeout."""
        start = time.monotonic()
        request = self.request(index)
        elapsed = time.monotonic() - start
        for worker in self.workers:
            worker.last_activity += elapsed
        return request

    def send(self, worker: _Worker) -> None:
        """Send outgoing bytes to a worker; watch the pipe if some are unwritten."""
        pipe = worker.process.stdin
        assert pipe is not None  # noqa: S101 - opened as a pipe
        unwritten, registered = worker.send(), pipe in self.selector.get_map()
        if unwritten and not registered:
            self.selector.register(pipe, selectors.EVENT_WRITE, worker)
        elif registered and not unwritten:
            self.selector.unregister(pipe)

    def receive(self) -> None:
        """Receive results; replace workers that died, hang or reached `max_images`."""
        for key, _ in self.selector.select(timeout=0.5):
            worker: _Worker = key.data
            if worker not in self.workers:
                continue  # replaced a moment ago, because of its other pipe
            if key.fileobj is worker.process.stdin:
                self.send(worker)
            else:
                self.read_worker(worker)
        for worker in list(self.workers):
            elapsed = time.monotonic() - worker.last_activity
            if worker.pending and elapsed > self.timeout:
                self.fail_current(worker, f"no answer within {self.timeout:.0f} s")

    def read_worker(self, worker: _Worker) -> None:
        """Receive results of a worker; replace the worker if its process ended."""
        is_alive = worker.receive()
        for index, result in worker.results():
            self.finished[index] = result
        if not is_alive:
            self.fail_current(worker, None)
        elif worker.completed >= self.max_images:
            self.stop_worker(worker)

    def fail_current(self, worker: _Worker, reason: str | None) -> None:
        """Report the image that a worker failed on; requeue its other images."""
        code = self.stop_worker(worker)
        if not worker.pending:
            return
        failed, *rest = worker.pending
        self.queue.extendleft(reversed(rest))
        self.finished[failed] = _crash_reason(code, reason)

    def stop_worker(self, worker: _Worker) -> int:
        """Stop a worker; start a new one if images are left. Return the exit code."""
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None and pipe in self.selector.get_map():
                self.selector.unregister(pipe)
        self.workers.remove(worker)
        code = worker.end()
        if self.queue or worker.pending:
            self.start_worker()
        return code


def _crash_reason(code: int, reason: str | None) -> UnusableFile:
    if reason is not None:
        return UnusableFile(reason="too-slow", detail=reason)
    if code == -getattr(signal, "SIGXCPU", 24):
        return UnusableFile(reason="too-slow", detail="decoding it takes too long")
    ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    detail = f"the decoder ended by {ending}"
    return UnusableFile(reason="crashes-the-decoder", detail=detail)


def unpack_result(text: bytes, blob: bytes) -> Result:
    """Parse a result of `sandbox_worker.pack_result`."""
    fields = json.loads(text)
    if "reason" in fields:
        return UnusableFile(**fields)
    nature, stats, shape = (fields.pop(name) for name in ("nature", "stats", "view"))
    view, thumb = np.split(np.frombuffer(blob, np.uint8), [math.prod(shape)])
    return ExaminedImage(
        stats=ImageStats(**stats | {"tint": tuple(stats["tint"])}),
        view=view.reshape(shape),
        thumb=thumb.reshape(THUMB, THUMB),
        nature=ImageFileInfo(nature["format"], nature["mode"], tuple(nature["notes"])),
        **fields,
    )
