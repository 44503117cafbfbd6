"""Fault F4: Ctrl-C, a terminal that closes, a parent that is killed."""

import os
import pty
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from forks import Forks
from pictures import write_folder
from power import in_memory
from striate.core.files import read_json
from striate.engine.interrupt import polite_interrupt
from striate.engine.vault import Vault

PATIENCE = 120  # seconds: machines are busy


@pytest.fixture(scope="module")
def forks():
    with in_memory() as folder, Forks(folder) as started:
        write_folder(folder / "stripes", count=20)
        started.pictures = folder / "stripes"
        yield started


def words(forks, run, epochs):
    settings = "--epochs", str(epochs), "--batch-size", "8", "--save-every", "0"
    return "train", forks.pictures, *settings, "--out", run


def until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def steps(run):
    """Return how many steps the newest checkpoint is after."""
    found = [path.name for path in Path(run).glob("weights/last/step-*")]
    return int(max(found, default="step-00000000-epoch-0000")[5:13])


def is_sound(run):
    sealed, passed_over = Vault(run / "weights/last").newest()
    return sealed is not None and passed_over == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_asked_once_it_saves_and_goes(forks, tmp_path, number, code):
    run = tmp_path / "run"
    pid = forks.start(*words(forks, run, 9999))
    until(lambda: steps(run) > 2)
    before = steps(run)
    os.kill(pid, number)
    assert forks.end(pid) == code
    said = forks.said.read_text()
    assert f"go on, exactly: striate train --resume {run}" in said
    assert "Traceback" not in said
    assert steps(run) >= before
    assert is_sound(run)
    assert read_json(run / "manifest.json")["status"] == "stopped"


def test_a_terminal_that_closes(forks, tmp_path):
    """The system says so by SIGHUP, and takes away the place to write to."""
    run, shown = tmp_path / "run", []
    mine, theirs = pty.openpty()
    pid = forks.start(*words(forks, run, 9999), terminal=os.ttyname(theirs))
    os.set_blocking(mine, False)

    def going():
        with suppress(BlockingIOError):
            shown.append(os.read(mine, 1 << 16))
        return steps(run) > 5

    until(going)
    os.close(theirs)
    os.close(mine)
    assert forks.end(pid) == 129
    assert b"stripes" in b"".join(shown)
    assert is_sound(run)
    assert read_json(run / "manifest.json")["status"] == "stopped"


def test_a_parent_that_is_killed(forks, tmp_path):
    """Nobody reads any more; the run is no worse for it, and ends by itself."""
    run = tmp_path / "run"
    parent = forks.start(*words(forks, run, 12), parent=True)
    until(lambda: steps(run) > 2)
    child = read_json(run / ".lock")["pid"]
    assert child != parent
    os.kill(parent, signal.SIGKILL)
    assert forks.end(parent) == -signal.SIGKILL
    until(lambda: not Path(f"/proc/{child}").exists())
    record = read_json(run / "manifest.json")
    assert (record["status"], record["epochs"]) == ("done", 12)


# --- in this process


@pytest.fixture
def handlers():
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_ignored_stays_ignored(handlers):
    """`nohup` means it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with polite_interrupt() as asked:
        signal.raise_signal(signal.SIGHUP)
        assert not asked()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_terminal_says_twice_that_it_closes(handlers):
    """The shell and the system both send SIGHUP; the second must not kill."""
    with polite_interrupt() as asked:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert asked.exit_code == 129
    assert {n: signal.getsignal(n) for n in handlers} == handlers


def test_the_second_of_a_kind_is_heard_at_once(handlers):
    met = []
    signal.signal(signal.SIGTERM, lambda number, frame: met.append(number))
    with polite_interrupt() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert met == []
        signal.raise_signal(signal.SIGTERM)
        assert met == [signal.SIGTERM]
        assert asked.exit_code == 143
