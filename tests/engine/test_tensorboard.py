"""Event files read back: by their published framing here, by TensorBoard in `twins`."""

from __future__ import annotations

import errno
import json
import struct
import sys

import pytest
from torch import nn

from striate.core.errors import StorageError
from striate.core.files import read_csv
from striate.engine import tensorboard as room
from striate.engine.loop import EpochDone, StepDone
from striate.engine.tensorboard import TensorBoard


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, bit by bit, as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder):
    """Read every event of a folder's files; lengths and checksums must be right."""
    from tensorboardX.proto.event_pb2 import Event

    assert crc32c(b"123456789") == 0xE3069283  # the checksum's own published value
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            head, body, foot = data[8:12], data[12 : 12 + length], data[12 + length :]
            assert struct.unpack("<I", head) == (masked(data[:8]),)
            assert struct.unpack("<I", foot[:4]) == (masked(body),)
            found.append(Event.FromString(body))
            data = foot[4:]
    return found


def scalars(folder, tag):
    """Return (step, value) of a tag."""
    return [
        (event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.tag == tag
    ]


def step(number, loss=0.5):
    return StepDone(0, number, number, loss, 0.01, 8)


def epoch(number=0):
    return EpochDone(
        epoch=number,
        train_loss=0.4,
        val_loss=0.3,
        val_accuracy=0.75,
        val_balanced=0.7,
        lr=0.01,
        best=True,
    )


def test_it_says_what_the_journal_says(striate, shared_folder, tmp_path):
    run = tmp_path / "run"
    words = ("--epochs", "2", "--batch-size", "8", "--quiet", "--out", run)
    assert striate("train", shared_folder, *words, "--tensorboard").code == 0
    lines = (run / "events.jsonl").read_text().splitlines()
    journal = [json.loads(line) for line in lines]
    train, val = run / "tensorboard" / "train", run / "tensorboard" / "val"
    assert events(train)[0].file_version == "brain.Event:2"
    steps, losses = zip(*scalars(train, "loss"), strict=True)
    assert list(steps) == [line["step"] for line in journal]
    assert losses == pytest.approx([line["loss"] for line in journal], abs=1e-6)
    rates = [rate for _, rate in scalars(train, "learning_rate")]
    assert rates == pytest.approx([line["lr"] for line in journal], abs=1e-8)
    rows = read_csv(run / "results.csv")
    ends, accuracies = zip(*scalars(val, "accuracy"), strict=True)
    assert list(ends) == [3, 7]  # four steps an epoch
    expected = [float(row["val_accuracy"]) for row in rows]
    assert accuracies == pytest.approx(expected, abs=1e-6)
    assert len(scalars(val, "loss")) == 2


def test_watching_changes_nothing(striate, shared_folder, tmp_path):
    words = ("--epochs", "1", "--batch-size", "8", "--quiet")
    for name, more in (("plain", ()), ("watched", ("--tensorboard",))):
        out = tmp_path / name
        assert striate("train", shared_folder, *words, *more, "--out", out).code == 0
    weights = [
        (tmp_path / name / "weights" / "best.safetensors").read_bytes()
        for name in ("plain", "watched")
    ]
    assert weights[0] == weights[1]
    assert not (tmp_path / "plain" / "tensorboard").exists()


def test_without_the_package_nothing_begins(refused, monkeypatch, shared_folder):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    said = refused(shared_folder, "--tensorboard")
    assert "need the package tensorboardX" in said
    assert "pip install 'striate[tensorboard]'" in said


def test_python_is_told_likewise(monkeypatch):
    import striate as st
    from striate.core.errors import SettingError

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(SettingError, match="tensorboardX"):
        st.train(model, st.load_data("digits"), tensorboard=True)


def test_a_full_disk_is_told_and_ends_the_run(tmp_path, monkeypatch):
    """The package's own writer would block for good once its queue is full."""
    board = TensorBoard(tmp_path)

    def refuse(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board._files["train"], "write_event", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        board.on_step(step(0))
    board.close()


def test_a_long_epoch_can_be_watched(tmp_path, monkeypatch):
    board = TensorBoard(tmp_path)
    board.on_step(step(0))
    before = scalars(tmp_path / "train", "loss")
    monkeypatch.setattr(room, "PATIENCE", -1.0)
    board.on_step(step(1))
    after = scalars(tmp_path / "train", "loss")
    assert (len(before), len(after)) == (0, 2)
    board.close()


def test_a_run_that_goes_on_takes_back_later_steps(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    board = TensorBoard(tmp_path, begun=5)
    for number in (5, 6):
        board.on_step(step(number))
    board.on_epoch(epoch())
    board.close()
    for split in ("train", "val"):
        marks = [e for e in events(tmp_path / split) if e.HasField("session_log")]
        assert [(m.step, m.session_log.status) for m in marks] == [
            (5, SessionLog.START)
        ]


def test_tensorboard_itself_reads_them(tmp_path):
    reason = "tensorboard is not installed (make twins)"
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    first = TensorBoard(tmp_path)
    for number in range(6):
        first.on_step(step(number, loss=1.0))
    first.on_epoch(epoch())
    first.close()
    for path in tmp_path.rglob("events*"):  # files sort by the second of their birth
        path.rename(path.with_name("events.out.tfevents.1000000000.before"))
    again = TensorBoard(tmp_path, begun=4)
    for number in (4, 5):
        again.on_step(step(number, loss=0.5))
    again.on_epoch(epoch())
    again.close()
    read = {}
    for split in ("train", "val"):
        read[split] = accumulator.EventAccumulator(str(tmp_path / split)).Reload()
    assert read["train"].Tags()["scalars"] == ["loss", "learning_rate"]
    assert read["val"].Tags()["scalars"] == ["loss", "accuracy"]
    points = [(e.step, e.value) for e in read["train"].Scalars("loss")]
    assert points == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 0.5), (5, 0.5)]
