"""Sandbox: a worker that crashes, hangs or takes memory costs one image, by name.

The workers here misbehave on purpose, on images whose bytes ask for it. Taken out one
by one, each guard leaves its test red or hanging: the crash report, the timeout, the
limit of processor time, the limit of memory, the replacement after many images.
"""

import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from striate.core.errors import StriateError
from striate.data.check import prefetch, sandbox
from striate.data.check import sandbox_worker as worker
from striate.data.check.image_stats import ExaminedImage, UnusableFile, examine_file
from striate.data.check.sandbox import examine_files, examine_payloads
from striate.data.decode.file_bytes import UndecodableError
from support.images import encoded, pil_image, stripes

# A worker that does what a file tells it to.
WILD = """
import ctypes, os, sys, time
import striate.data.check.sandbox_worker as worker
from striate.data.check.image_stats import examine_file

worker.SECONDS = 1
worker.MEMORY = 1 << 30

def examine(file):
    order = file if isinstance(file, bytes) else file.read_bytes()
    if order == b"crash":
        ctypes.string_at(0)
    if order == b"exit":
        os._exit(3)
    if order == b"hang":
        time.sleep(600)
    if order == b"loop":
        while True:
            pass
    if order == b"hog":
        held = bytearray(3 << 30)
    if order == b"write":
        open(sys.argv[1], "wb").write(b"mine now")
    return examine_file(file)

worker.confine()
worker.serve(examine, sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.fixture
def files(tmp_path):
    """Write files with these bytes; an empty order means a sound image."""

    def make(*orders):
        paths = []
        for number, order in enumerate(orders):
            path = tmp_path / f"{number:03d}"
            sound = encoded(pil_image(stripes(number, number, 12, 10)))
            path.write_bytes(order or sound)
            paths.append(path)
        return paths

    return make


def examine(paths, **options):
    program = [sys.executable, "-c", WILD, str(paths[0].parent / "loot")]
    return list(examine_files(paths, program=program, **options))


def test_answers_come_in_order(files):
    paths = files(*[b""] * 40)
    answers = list(examine_files(paths, workers=2))
    assert [a.stats for a in answers] == [examine_file(p).stats for p in paths]
    assert [a.sha256 for a in answers] == [examine_file(p).sha256 for p in paths]


def test_views_cross_the_pipe_unchanged(files):
    [path] = files(b"")
    [answer] = examine_files([path])
    here = examine_file(path)
    assert (answer.view == here.view).all()
    assert (answer.thumb == here.thumb).all()
    assert answer.nature == here.nature


def test_no_files_no_answers():
    assert list(examine_files([])) == []


@pytest.mark.parametrize(
    ("order", "reason", "detail"),
    [
        (b"crash", "crashes-the-decoder", "SIGSEGV"),
        (b"exit", "crashes-the-decoder", "exit code 3"),
        (b"hang", "too-slow", "no answer within 3 s"),
        (b"loop", "too-slow", "takes too long"),
    ],
)
def test_one_image_is_lost_and_named(files, order, reason, detail):
    paths = files(b"", b"", order, b"", b"", b"", b"", b"", b"", b"")
    # The limit of processor time must come first, however busy the machine is.
    answers = examine(paths, timeout=3.0 if order == b"hang" else 100.0)
    assert isinstance(answers[2], UnusableFile)
    assert answers[2].reason == reason
    assert detail in answers[2].detail
    others = [a for k, a in enumerate(answers) if k != 2]
    assert all(isinstance(a, ExaminedImage) for a in others)
    expected = [examine_file(p).sha256 for k, p in enumerate(paths) if k != 2]
    assert [a.sha256 for a in others] == expected


def test_memory_is_refused_not_taken(files):
    """The worker's own allocation fails; the machine never feels it."""
    answers = examine(files(b"", b"hog", b""))
    assert [type(a) for a in answers] == [ExaminedImage, UnusableFile, ExaminedImage]
    assert answers[1].reason == "crashes-the-decoder"


def test_a_worker_cannot_write_a_file(files, tmp_path):
    """Even taken over by a hostile image it cannot change the user's files."""
    answers = examine(files(b"", b"write", b""))
    assert isinstance(answers[2], ExaminedImage)
    assert isinstance(answers[1], UnusableFile)
    loot = tmp_path / "loot"
    assert not loot.exists() or loot.read_bytes() == b""


def test_many_crashes_in_a_row(files):
    answers = examine(files(*[b"crash"] * 4, b""), workers=2)
    assert [type(a) for a in answers] == [*[UnusableFile] * 4, ExaminedImage]


def test_workers_are_replaced_after_their_share(files, monkeypatch):
    started = []
    real = subprocess.Popen

    def count(*words, **options):
        started.append(1)
        return real(*words, **options)

    monkeypatch.setattr(sandbox.subprocess, "Popen", count)
    answers = list(examine_files(files(*[b""] * 9), workers=1, max_images=4))
    assert all(isinstance(a, ExaminedImage) for a in answers)
    assert len(started) == 3


def test_no_process_is_left_behind(files, monkeypatch):
    processes = []
    real = subprocess.Popen

    def keep(*words, **options):
        processes.append(real(*words, **options))
        return processes[-1]

    monkeypatch.setattr(sandbox.subprocess, "Popen", keep)
    stream = examine_files(files(*[b""] * 8), workers=1)
    next(stream)
    stream.close()  # as when the user stops half way
    assert [one.poll() is not None for one in processes] == [True]


def test_a_worker_that_cannot_start_is_an_error(files):
    with pytest.raises(StriateError, match="does not start") as caught:
        list(examine_files(files(b""), program=[sys.executable, "-c", "1/0"]))
    assert "check that Python can import striate" in caught.value.fix


@pytest.mark.parametrize("first", ["pass", "sys.stdout.write('str')"])
def test_a_worker_that_is_never_ready_is_an_error(files, monkeypatch, first):
    """Silent from the beginning, or after a few letters: the limit ends the wait."""
    monkeypatch.setattr(sandbox, "START_TIMEOUT", 0.5)
    code = f"import sys, time; {first}; sys.stdout.flush(); time.sleep(20)"
    began = time.monotonic()
    with pytest.raises(StriateError, match="does not start"):
        list(examine_files(files(b""), program=[sys.executable, "-c", code]))
    assert time.monotonic() - began < 10


def test_a_worker_without_a_parent_ends(files):
    """Its input ends with the parent, whatever killed that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "striate.data.check.sandbox_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.read(len(worker.READY)) == worker.READY
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()


def test_limits_are_set_where_the_system_has_them():
    """In a process of its own: limits cannot be taken back."""
    code = (
        "import resource\n"
        "from striate.data.check.sandbox_worker import MEMORY, confine\n"
        "confine()\n"
        "assert resource.getrlimit(resource.RLIMIT_AS)[0] <= MEMORY\n"
        "assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_image_that_vanishes(files):
    paths = files(b"", b"")
    paths[1].unlink()
    answers = list(examine_files(paths))
    assert [type(a) for a in answers] == [ExaminedImage, UnusableFile]
    assert answers[1].reason == "missing"


def test_serve_answers_in_process(tmp_path, files, monkeypatch):
    """The loop itself, without a process: what comes out is what went in."""
    # A limit of processor time would end this very process some tests later.
    monkeypatch.setattr(worker, "_grant_seconds", lambda: None)

    [path] = files(b"")
    name = str(path).encode()
    requests = io.BytesIO(worker.REQUEST_HEAD.pack(worker.PATH, len(name)) + name)
    answers = io.BytesIO()
    worker.serve(examine_file, requests, answers)
    body = answers.getvalue()
    assert body.startswith(worker.READY)
    sizes = [
        worker.LENGTH.unpack_from(body, len(worker.READY) + at)[0] for at in (0, 4)
    ]
    head = len(worker.READY) + 8
    text, blob = body[head : head + sizes[0]], body[head + sizes[0] :]
    assert len(blob) == sizes[1]
    assert sandbox.unpack_result(text, blob).stats == examine_file(path).stats


def test_patience_is_per_image_not_per_batch(files, monkeypatch):
    """Many images may take longer together than one may alone: here a second each."""
    real, unpacked = sandbox.unpack_result, []

    def a_second_later(*body):
        unpacked.append(body)
        return real(*body)

    clock = SimpleNamespace(monotonic=lambda: float(len(unpacked)))
    monkeypatch.setattr(sandbox, "time", clock)
    monkeypatch.setattr(sandbox, "unpack_result", a_second_later)
    answers = list(examine_files(files(*[b""] * 12), workers=1, timeout=2.0))
    assert clock.monotonic() == 12.0
    assert all(isinstance(a, ExaminedImage) for a in answers)


# --- bytes that lie elsewhere: the same workers, given what they look at


def examine_bytes(payloads, **options):
    """Examine these bytes, each the file of its number."""
    names = [str(number) for number in range(len(payloads))]
    return examine_payloads(names, lambda name: payloads[int(name)], **options)


def test_payloads_are_answered_as_files_are(files):
    paths = files(*[b""] * 40, b"no image")
    answers = list(examine_bytes([path.read_bytes() for path in paths], workers=2))
    expected = [examine_file(path) for path in paths]
    assert [a.sha256 for a in answers] == [e.sha256 for e in expected]
    assert [a.size for a in answers] == [e.size for e in expected]
    assert [a.stats for a in answers[:-1]] == [e.stats for e in expected[:-1]]
    assert (answers[7].view == expected[7].view).all()
    assert answers[-1].reason == expected[-1].reason == "not-an-image"


@pytest.mark.parametrize(
    ("order", "reason", "detail"),
    [
        (b"crash", "crashes-the-decoder", "SIGSEGV"),
        (b"hang", "too-slow", "no answer within 3 s"),
        (b"loop", "too-slow", "takes too long"),
        (b"hog", "crashes-the-decoder", "exit code 1"),
    ],
)
def test_one_payload_is_lost_and_named(files, order, reason, detail):
    paths = files(*[b""] * 6)
    payloads = [path.read_bytes() for path in paths]
    payloads[2] = order
    program = [sys.executable, "-c", WILD, "loot"]
    timeout = 3.0 if order == b"hang" else 100.0
    answers = list(examine_bytes(payloads, program=program, timeout=timeout))
    assert (answers[2].reason, detail in answers[2].detail) == (reason, True)
    others = [a for k, a in enumerate(answers) if k != 2]
    assert [a.sha256 for a in others] == [
        examine_file(p).sha256 for k, p in enumerate(paths) if k != 2
    ]


def test_payloads_larger_than_a_pipe():
    """Neither side waits for the other to read."""
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    payloads = [encoded(pil_image(np.roll(noise, k)), "BMP") for k in range(6)]
    answers = list(examine_bytes(payloads, workers=1, program=sandbox.PREVIEWER))
    assert [a.size for a in answers] == [len(payload) for payload in payloads]


def test_a_worker_that_takes_nothing_is_given_up():
    """It says that it is ready and never reads: the parent does not wait to write."""
    code = "import sys, time; sys.stdout.write('striate\\n'); sys.stdout.flush()"
    program = [sys.executable, "-c", f"{code}; time.sleep(60)"]
    began = time.monotonic()
    answers = list(examine_bytes([bytes(1 << 20)] * 2, program=program, timeout=1.0))
    assert [a.reason for a in answers] == ["too-slow"] * 2
    assert time.monotonic() - began < 30


def test_what_cannot_be_read_is_an_answer(files):
    [path] = files(b"")

    def read(name):
        if name == "sound":
            return path.read_bytes()
        raise UndecodableError("unreadable", "the line is dead")

    names = ["a", "sound", *"bcdefgh"]
    answers = list(examine_payloads(names, read))
    lost = UnusableFile(reason="unreadable", detail="the line is dead")
    assert answers[1].sha256 == examine_file(path).sha256
    assert [a for k, a in enumerate(answers) if k != 1] == [lost] * 8


def test_few_payloads_are_held(files):
    [path] = files(b"")
    sound, held, most = path.read_bytes(), [], []

    class Payload(bytes):
        def __del__(self):
            held.pop()

    def read(name):
        payload = Payload(sound)
        held.append(name)
        most.append(len(held))
        return payload

    names = [str(number) for number in range(100)]
    answers = list(examine_payloads(names, read, workers=1))
    assert all(isinstance(a, ExaminedImage) for a in answers)
    assert held == []
    # Those read ahead, those on their way to the worker, and the one in between.
    assert max(most) <= prefetch.READ_AHEAD + sandbox.QUEUED_PAYLOADS + 1


def test_the_wait_for_bytes_is_no_workers_fault(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sandbox, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def request(index):
        now[0] += 70
        return worker.PAYLOAD, b"late"

    pool = sandbox._WorkerPool(1, request, 1, (), 60.0, 1)
    pool.workers = [SimpleNamespace(last_activity=95.0)]
    assert pool.fetch(0) == (worker.PAYLOAD, b"late")
    assert pool.workers[0].last_activity == 165.0


def test_files_are_read_a_few_ahead():
    started, unpacked = [], threading.Event()

    def read(name):
        started.append(name)
        unpacked.wait(10)
        if name == "2":
            raise UndecodableError("missing", "no such file")
        if name == "3":
            raise KeyError(name)
        return name.encode()

    read_ahead = prefetch.Prefetcher([str(k) for k in range(50)], read, timeout=0.2)
    late = UnusableFile(reason="too-slow", detail="not read within 0 s")
    assert read_ahead(0) == late
    assert sorted(started) == ["0", "1", "2", "3"][: prefetch.READ_AHEAD]
    unpacked.set()
    assert read_ahead(1) == b"1"
    assert read_ahead(2) == UnusableFile(reason="missing", detail="no such file")
    with pytest.raises(KeyError):  # a fault of the program, not of the file
        read_ahead(3)
    assert read_ahead(1) == b"1"  # again, because a worker died that had it


def test_a_request_cut_short_is_not_answered(monkeypatch):
    monkeypatch.setattr(worker, "_grant_seconds", lambda: None)
    requests = io.BytesIO(worker.REQUEST_HEAD.pack(worker.PAYLOAD, 9) + b"half")
    answers = io.BytesIO()
    worker.serve(examine_file, requests, answers)
    assert answers.getvalue() == worker.READY


def test_where_a_file_is():
    assert Path(sandbox.WORKER[0]).exists()
