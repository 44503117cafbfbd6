"""Fault F4: Ctrl-C, a terminal that closes, a parent that is killed."""

import json
import os
import pty
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from striate.core.errors import RunError
from striate.core.files import read_json
from striate.engine.checkpoint_store import CheckpointStore
from striate.engine.signals import catch_stop_signals
from striate.engine.weights_io import assign_weights, tensors_from_bytes
from striate.run.run import Run
from support.forks import HELD
from support.images import snapshot

PATIENCE = 120  # seconds: machines are busy


def words(images, run, epochs=9999):
    settings = "--epochs", str(epochs), "--batch-size", "8", "--save-every", "0"
    return "train", images, *settings, "--out", run


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
    sealed, passed_over = CheckpointStore(run / "weights/last").newest()
    return sealed is not None and passed_over == []


def hidden(run):
    return list(Path(run).rglob(".*"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_one_signal_saves_and_stops(forks, shared_folder, tmp_path, number, code):
    run, images = tmp_path / "run", snapshot(shared_folder)
    pid = forks.start(*words(shared_folder, run))
    until(lambda: steps(run) > 6)
    before = steps(run)
    os.kill(pid, number)
    assert forks.end(pid) == code
    said = forks.said.read_text()
    assert "stopped on request after step " in said
    assert f"resume exactly with: striate train --resume {run}" in said
    assert "Traceback" not in said
    assert steps(run) >= before
    assert read_json(run / "manifest.json")["status"] == "stopped"
    assert hidden(run) == []
    assert snapshot(shared_folder) == images


def test_the_saved_state_can_be_read(forks, shared_folder, tmp_path):
    path = tmp_path / "run"
    pid = forks.start(*words(shared_folder, path), hold=tmp_path / "held")
    until((tmp_path / "held").exists)
    os.kill(pid, signal.SIGINT)
    (tmp_path / "held").unlink()
    assert forks.end(pid) == 130
    sealed, passed_over = CheckpointStore(path / "weights/last").newest()
    assert passed_over == []
    position = json.loads(sealed.files["state.json"])["train_state"]
    assert (position["epoch"], position["step"]) == (1, HELD - 1)  # not that one
    run = Run(path)
    assign_weights(
        run.model, tensors_from_bytes(sealed.files["model.safetensors"], "x"), "x"
    )
    with pytest.raises(RunError, match="the test split was not evaluated"):
        run.predictions("test")


def test_a_second_signal_stops_at_once(forks, shared_folder, tmp_path):
    """The second Ctrl-C waits until the first was handled."""
    run, held = tmp_path / "run", tmp_path / "held"
    pid = forks.start(*words(shared_folder, run), hold=held)
    until(held.exists)
    os.kill(pid, signal.SIGINT)
    until(lambda: held.read_text() == "asked")
    os.kill(pid, signal.SIGINT)
    assert forks.end(pid) == 130
    said = forks.said.read_text()
    assert said.endswith("stopped\n")
    assert "Traceback" not in said
    manifest = read_json(run / "manifest.json")
    assert manifest["status"] == "stopped"
    assert manifest["reason"] == "KeyboardInterrupt()"


def test_a_closed_terminal(forks, shared_folder, tmp_path):
    """The system sends SIGHUP, and the output can no longer be written."""
    run, shown = tmp_path / "run", []
    mine, theirs = pty.openpty()
    pid = forks.start(*words(shared_folder, run), terminal=os.ttyname(theirs))
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


def test_a_killed_parent_process(forks, shared_folder, tmp_path):
    """The output is no longer read; the run still finishes."""
    run, held = tmp_path / "run", tmp_path / "held"
    parent = forks.start(*words(shared_folder, run, 3), parent=True, hold=held)
    until(held.exists)
    child = read_json(run / ".lock")["pid"]
    assert child != parent
    os.kill(parent, signal.SIGKILL)
    assert forks.end(parent) == -signal.SIGKILL
    held.unlink()
    until(lambda: not Path(f"/proc/{child}").exists())
    record = read_json(run / "manifest.json")
    assert (record["status"], record["epochs"]) == ("done", 3)


# --- in this process


@pytest.fixture
def handlers():
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where tests run under nohup
    yield {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ignored_signals_stay_ignored(handlers):
    """`nohup` means it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with catch_stop_signals() as asked:
        signal.raise_signal(signal.SIGHUP)
        assert not asked()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_closing_terminal_sends_sighup_twice(handlers):
    """The shell and the system both send SIGHUP; the second must not kill."""
    with catch_stop_signals() as asked:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert asked.exit_code == 129
    assert {n: signal.getsignal(n) for n in handlers} == handlers


def test_the_second_signal_reaches_the_old_handler(handlers):
    met = []
    signal.signal(signal.SIGTERM, lambda number, frame: met.append(number))
    with catch_stop_signals() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert met == []
        signal.raise_signal(signal.SIGTERM)
        assert met == [signal.SIGTERM]
        assert asked.exit_code == 143
