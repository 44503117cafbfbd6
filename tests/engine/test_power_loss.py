"""Checkpoints survive a power failure at any moment (faults A2 and A3)."""

import tempfile
from pathlib import Path

import pytest

from striate.engine.checkpoint_store import CheckpointStore
from support.power_loss import crashes, found, in_memory, lay_out, watched

PLACE = "weights/last"


def contents(step):
    """Files of a checkpoint: larger than a sector, and different every time."""
    return [
        ("model.safetensors", bytes([step]) * 1300),
        ("optimizer.safetensors", bytes([100 + step]) * 700),
        ("state.json", b'{"step": %d}' % step),
    ]


def write(store, step):
    store.write(step, step // 2, contents(step), size=2000, metadata={"step": step})


@pytest.fixture
def memory():
    with in_memory() as folder:
        yield folder


def record(disk, monkeypatch, steps=5):
    """Note the calls of some checkpoints, of which all but two are let go again."""
    disk.mkdir(exist_ok=True)
    with watched(disk, monkeypatch) as log:
        store = CheckpointStore(disk / PLACE)
        for step in range(1, steps + 1):
            write(store, step)
            log.mark()
    return log


def test_simulated_disk_equals_the_real_one(memory, monkeypatch):
    """What it says is left if nothing fails is what really lies there."""
    log = record(memory / "disk", monkeypatch)
    last = [crash for crash in crashes(log) if crash.after == len(log.calls)]
    assert last[1].how == "everything"
    assert last[1].tree == found(log.root)


def check(crash, log, memory):
    """Load what a crash left: the newest that was whole, or the one being written."""
    done = sum(mark <= crash.after for mark in log.marks)
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        lay_out(crash.tree, Path(folder))
        store = CheckpointStore(Path(folder, PLACE))
        checkpoint, skipped = store.newest()
        assert all(": " in reason for reason in skipped)
        step = checkpoint.metadata["step"] if checkpoint else 0
        assert done <= step <= done + 1, (crash.after, crash.how)
        if checkpoint:
            assert list(checkpoint.files.items()) == contents(step)
        write(store, 9)  # and life goes on, with nothing left lying about
        assert [p for p in store.root.iterdir() if p.name.startswith(".")] == []
        assert store.newest()[0].metadata["step"] == 9


def test_power_failure_loses_at_most_the_save_in_progress(memory, monkeypatch):
    log = record(memory / "disk", monkeypatch)
    count = 0
    for crash in crashes(log):
        check(crash, log, memory)
        count += 1
    assert count > 1000


def nothing(*_):
    """Do nothing, in place of a sync."""


def without_data_syncs(log):
    for call in log.calls:
        if call.kind == "sync data":
            call.inode = -1


@pytest.mark.parametrize("gone", ["folders.sync_folder", "files.sync_folder", "data"])
def test_that_bites(memory, monkeypatch, gone):
    """With any one kind of sync taken out, some crash loses what was saved."""

    def all_of_them():
        for crash in crashes(log):
            check(crash, log, memory)

    with monkeypatch.context() as patch:
        if gone != "data":
            patch.setattr(f"striate.core.{gone}", nothing)
        log = record(memory / "disk", monkeypatch, steps=3)
    if gone == "data":
        without_data_syncs(log)
    with pytest.raises(AssertionError):
        all_of_them()
