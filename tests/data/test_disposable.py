"""Workers that crash, hang and swallow memory: one picture each, named, and no more.

The workers here misbehave on purpose, on pictures whose bytes ask for it. Taken out one
by one, each guard leaves its test red or hanging: the obituary, the patience, the limit
of processor time, the limit of memory, the replacement after many pictures.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pictures import encoded, image, stripes
from striate.core.errors import StriateError
from striate.data.check import disposable, worker
from striate.data.check.disposable import examine_files
from striate.data.check.examine import Examined, Refused, examine_file

# A worker that does what a file tells it to.
WILD = """
import ctypes, os, sys, time
import striate.data.check.worker as worker
from striate.data.check.examine import examine_file

worker.SECONDS = 1
worker.MEMORY = 1 << 30

def examine(path):
    order = path.read_bytes()
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
    return examine_file(path)

worker.confine()
worker.serve(examine, sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.fixture
def files(tmp_path):
    """Write files with these bytes; an empty order means a sound picture."""

    def make(*orders):
        paths = []
        for number, order in enumerate(orders):
            path = tmp_path / f"{number:03d}"
            sound = encoded(image(stripes(number, number, 12, 10)))
            path.write_bytes(order or sound)
            paths.append(path)
        return paths

    return make


def looked(paths, **options):
    program = [sys.executable, "-c", WILD, str(paths[0].parent / "loot")]
    return list(examine_files(paths, program=program, **options))


def test_answers_come_in_order(files):
    paths = files(*[b""] * 40)
    answers = list(examine_files(paths, workers=2))
    assert [a.facts for a in answers] == [examine_file(p).facts for p in paths]
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
def test_one_picture_is_lost_and_named(files, order, reason, detail):
    paths = files(b"", b"", order, b"", b"", b"", b"", b"", b"", b"")
    # The limit of processor time must come first, however busy the machine is.
    answers = looked(paths, patience=3.0 if order == b"hang" else 100.0)
    assert isinstance(answers[2], Refused)
    assert answers[2].reason == reason
    assert detail in answers[2].detail
    others = [a for k, a in enumerate(answers) if k != 2]
    assert all(isinstance(a, Examined) for a in others)
    expected = [examine_file(p).sha256 for k, p in enumerate(paths) if k != 2]
    assert [a.sha256 for a in others] == expected


def test_memory_is_refused_not_taken(files):
    """The worker's own allocation fails; the machine never feels it."""
    answers = looked(files(b"", b"hog", b""))
    assert [type(a) for a in answers] == [Examined, Refused, Examined]
    assert answers[1].reason == "crashes-the-decoder"


def test_a_worker_cannot_write_a_file(files, tmp_path):
    """Even taken over by a hostile picture it cannot change the user's files."""
    answers = looked(files(b"", b"write", b""))
    assert isinstance(answers[2], Examined)
    assert isinstance(answers[1], Refused)
    loot = tmp_path / "loot"
    assert not loot.exists() or loot.read_bytes() == b""


def test_many_crashes_in_a_row(files):
    answers = looked(files(*[b"crash"] * 4, b""), workers=2)
    assert [type(a) for a in answers] == [*[Refused] * 4, Examined]


def test_workers_are_replaced_after_their_share(files, monkeypatch):
    hired = []
    real = subprocess.Popen

    def count(*words, **options):
        hired.append(1)
        return real(*words, **options)

    monkeypatch.setattr(disposable.subprocess, "Popen", count)
    answers = list(examine_files(files(*[b""] * 9), workers=1, recycled=4))
    assert all(isinstance(a, Examined) for a in answers)
    assert len(hired) == 3


def test_no_process_is_left_behind(files, monkeypatch):
    made = []
    real = subprocess.Popen

    def keep(*words, **options):
        made.append(real(*words, **options))
        return made[-1]

    monkeypatch.setattr(disposable.subprocess, "Popen", keep)
    stream = examine_files(files(*[b""] * 8), workers=1)
    next(stream)
    stream.close()  # as when the user stops half way
    assert [one.poll() is not None for one in made] == [True]


def test_a_worker_that_cannot_start_is_an_error(files):
    with pytest.raises(StriateError, match="does not start") as caught:
        list(examine_files(files(b""), program=[sys.executable, "-c", "1/0"]))
    assert "check that Python can import striate" in caught.value.fix


def test_a_worker_without_a_parent_ends(files):
    """Its input ends with the parent, whatever killed that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "striate.data.check.worker"],
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
        "from striate.data.check.worker import MEMORY, confine\n"
        "confine()\n"
        "assert resource.getrlimit(resource.RLIMIT_AS)[0] <= MEMORY\n"
        "assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_picture_that_vanishes(files):
    paths = files(b"", b"")
    paths[1].unlink()
    answers = list(examine_files(paths))
    assert [type(a) for a in answers] == [Examined, Refused]
    assert answers[1].reason == "missing"


def test_serve_answers_in_process(tmp_path, files, monkeypatch):
    """The loop itself, without a process: what comes out is what went in."""
    import io

    # A limit of processor time would end this very process some tests later.
    monkeypatch.setattr(worker, "_grant_seconds", lambda: None)

    [path] = files(b"")
    name = str(path).encode()
    requests = io.BytesIO(worker.LENGTH.pack(len(name)) + name)
    answers = io.BytesIO()
    worker.serve(examine_file, requests, answers)
    said = answers.getvalue()
    assert said.startswith(worker.READY)
    sizes = [
        worker.LENGTH.unpack_from(said, len(worker.READY) + at)[0] for at in (0, 4)
    ]
    head = len(worker.READY) + 8
    text, blob = said[head : head + sizes[0]], said[head + sizes[0] :]
    assert len(blob) == sizes[1]
    assert disposable.unpacked(text, blob).facts == examine_file(path).facts


def test_patience_is_per_picture_not_per_batch(files, monkeypatch):
    """Many pictures may take longer together than one may alone: here a second each."""
    real, answered = disposable.unpacked, []

    def a_second_later(*said):
        answered.append(said)
        return real(*said)

    clock = SimpleNamespace(monotonic=lambda: float(len(answered)))
    monkeypatch.setattr(disposable, "time", clock)
    monkeypatch.setattr(disposable, "unpacked", a_second_later)
    answers = list(examine_files(files(*[b""] * 12), workers=1, patience=2.0))
    assert clock.monotonic() == 12.0
    assert all(isinstance(a, Examined) for a in answers)


def test_where_a_file_is():
    assert Path(disposable.WORKER[0]).exists()
