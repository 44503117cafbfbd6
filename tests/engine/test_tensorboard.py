"""TensorBoard event files, read back here and by tensorboard itself."""

from __future__ import annotations

import errno
import json
import struct
import sys

import pytest
from torch import nn

from striate.core.errors import StorageError
from striate.core.files import read_csv
from striate.engine import tensorboard
from striate.engine.callbacks import EpochResult, StepResult
from striate.engine.tensorboard import TensorBoardLogger


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
    parsed = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            head, body, foot = data[8:12], data[12 : 12 + length], data[12 + length :]
            assert struct.unpack("<I", head) == (masked(data[:8]),)
            assert struct.unpack("<I", foot[:4]) == (masked(body),)
            parsed.append(Event.FromString(body))
            data = foot[4:]
    return parsed


def scalars(folder, tag):
    """Return (step, value) of a tag."""
    return [
        (event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.tag == tag
    ]


def step_result(number, loss=0.5):
    return StepResult(0, number, number, loss, 0.01, 8)


def epoch_result(number=0):
    return EpochResult(
        epoch=number,
        train_loss=0.4,
        val_loss=0.3,
        val_accuracy=0.75,
        val_balanced_accuracy=0.7,
        lr=0.01,
        best=True,
    )


def test_event_files_equal_the_csv_files(striate, shared_folder, tmp_path):
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
    assert list(ends) == [2, 5]  # three steps an epoch
    expected = [float(row["val_accuracy"]) for row in rows]
    assert accuracies == pytest.approx(expected, abs=1e-6)
    assert len(scalars(val, "loss")) == 2


def test_tensorboard_changes_no_result(striate, shared_folder, tmp_path):
    words = ("--epochs", "1", "--batch-size", "8", "--quiet")
    for name, flags in (("plain", ()), ("watched", ("--tensorboard",))):
        out = tmp_path / name
        assert striate("train", shared_folder, *words, *flags, "--out", out).code == 0
    weights = [
        (tmp_path / name / "weights" / "best.safetensors").read_bytes()
        for name in ("plain", "watched")
    ]
    assert weights[0] == weights[1]
    assert not (tmp_path / "plain" / "tensorboard").exists()


def test_missing_tensorboardx_is_an_error_before_training(
    refused, monkeypatch, shared_folder
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    message = refused(shared_folder, "--tensorboard")
    assert "need the package tensorboardX" in message
    assert "pip install 'striate[tensorboard]'" in message


def test_missing_tensorboardx_is_an_error_in_python(monkeypatch):
    import striate as st
    from striate.core.errors import SettingError

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(SettingError, match="tensorboardX"):
        st.train(model, st.load_data("digits"), tensorboard=True)


def test_full_disk_ends_the_run_with_a_message(tmp_path, monkeypatch):
    """The package's own writer would block for good once its queue is full."""
    logger = TensorBoardLogger(tmp_path)

    def refuse(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logger._files["train"], "write_event", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        logger.on_step_end(step_result(0))
    logger.close()


def test_events_are_flushed_within_an_epoch(tmp_path, monkeypatch):
    logger = TensorBoardLogger(tmp_path)
    logger.on_step_end(step_result(0))
    before = scalars(tmp_path / "train", "loss")
    monkeypatch.setattr(tensorboard, "FLUSH_SECONDS", -1.0)
    logger.on_step_end(step_result(1))
    after = scalars(tmp_path / "train", "loss")
    assert (len(before), len(after)) == (0, 2)
    logger.close()


def test_resumed_run_starts_a_new_session(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    logger = TensorBoardLogger(tmp_path, initial_step=5)
    for number in (5, 6):
        logger.on_step_end(step_result(number))
    logger.on_epoch_end(epoch_result())
    logger.close()
    for split in ("train", "val"):
        sessions = [e for e in events(tmp_path / split) if e.HasField("session_log")]
        assert [(m.step, m.session_log.status) for m in sessions] == [
            (5, SessionLog.START)
        ]


def test_tensorboard_reads_the_event_files(tmp_path):
    reason = "tensorboard is not installed (make twins)"
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    first = TensorBoardLogger(tmp_path)
    for number in range(6):
        first.on_step_end(step_result(number, loss=1.0))
    first.on_epoch_end(epoch_result())
    first.close()
    for path in tmp_path.rglob("events*"):  # files sort by the second of their birth
        path.rename(path.with_name("events.out.tfevents.1000000000.before"))
    resumed = TensorBoardLogger(tmp_path, initial_step=4)
    for number in (4, 5):
        resumed.on_step_end(step_result(number, loss=0.5))
    resumed.on_epoch_end(epoch_result())
    resumed.close()
    accumulators = {}
    for split in ("train", "val"):
        accumulators[split] = accumulator.EventAccumulator(
            str(tmp_path / split)
        ).Reload()
    assert accumulators["train"].Tags()["scalars"] == ["loss", "learning_rate"]
    assert accumulators["val"].Tags()["scalars"] == ["loss", "accuracy"]
    points = [(e.step, e.value) for e in accumulators["train"].Scalars("loss")]
    assert points == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 0.5), (5, 0.5)]
