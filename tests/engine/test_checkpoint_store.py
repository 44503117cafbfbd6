"""Checkpoint store: failed writes and damaged files (faults A4 and A5)."""

import errno
import hashlib
import json
import os
import random
from contextlib import contextmanager
from pathlib import Path

import pytest

from striate.core.errors import StorageError
from striate.core.folders import remove_leftovers
from striate.engine import checkpoint_store
from striate.engine.checkpoint_store import (
    MANIFEST,
    CheckpointStore,
    DamagedCheckpointError,
    read_manifest,
)
from support.power_loss import in_memory


def contents(step):
    draw = random.Random(step)
    parts = ("model.safetensors", "optimizer.safetensors", "state.json")
    return [(name, draw.randbytes(400)) for name in parts]


def write(store, step):
    return store.write(step, 0, contents(step), size=1200, metadata={"step": step})


@pytest.fixture
def memory():
    with in_memory() as folder:
        yield folder


@pytest.fixture
def store(memory):
    store = CheckpointStore(memory / "last")
    for step in (1, 2):
        write(store, step)
    return store


def names(store):
    return sorted(path.name for path in store.root.iterdir())


STEPS = [f"step-{step:08d}-epoch-0000" for step in range(10)]


def test_two_newest_checkpoints_are_kept(store):
    assert names(store) == ["LATEST", STEPS[1], STEPS[2]]
    write(store, 3)
    assert names(store) == ["LATEST", STEPS[2], STEPS[3]]
    assert (store.root / "LATEST").read_text() == f"{STEPS[3]}\n"
    store.prune(1)
    assert names(store) == ["LATEST", STEPS[3]]


def test_intact_checkpoint_is_deleted_only_for_intact_ones(store):
    """A new sitting trusts what it has read or written itself, and nothing else."""
    (store.root / STEPS[2] / "state.json").write_bytes(b"?")
    fresh = CheckpointStore(store.root)
    checkpoint, _ = fresh.newest()
    assert checkpoint.metadata["step"] == 1
    write(fresh, 5)
    assert names(fresh) == ["LATEST", STEPS[1], STEPS[5]]


def test_damaged_checkpoint_of_the_same_name_is_replaced(store):
    (store.root / STEPS[2] / "state.json").write_bytes(b"?")
    fresh = CheckpointStore(store.root)
    assert fresh.newest()[0].metadata["step"] == 1
    write(fresh, 2)
    assert CheckpointStore(store.root).newest()[0].metadata["step"] == 2


def test_checkpoints_are_sorted_by_number(memory):
    store = CheckpointStore(memory)
    for steps, epochs in ((99_999_999, 2), (100_000_000, 2), (100_000_000, 10_000)):
        store.write(steps, epochs, [], size=0, metadata={"at": [steps, epochs]})
        assert store.newest()[0].metadata["at"] == [steps, epochs]
    (memory / "step-x").mkdir()
    (memory / "step-00000001-epoch-0001-copy").mkdir()
    assert store.newest()[0].metadata["at"] == [100_000_000, 10_000]


def test_newest_of_an_empty_store(memory):
    assert CheckpointStore(memory / "none").newest() == (None, [])


# --- A5: what was written is no longer what is there


def damage(path, kind, draw):
    """Change one file; return whether that changed it at all."""
    before = path.read_bytes()
    at, bit = draw.randrange(len(before)), 1 << draw.randrange(8)
    after = {
        "flip": before[:at] + bytes([before[at] ^ bit]) + before[at + 1 :],
        "cut": before[:at],
        "zeros": before[:at] + bytes(len(before) - at),
        "longer": before + b"\n",
        "gone": b"",
    }[kind]
    path.unlink() if kind == "gone" else path.write_bytes(after)
    return after != before


def one_damage(memory, number):
    draw = random.Random(number)
    store = CheckpointStore(memory / str(number))
    for step in (1, 2):
        write(store, step)
    target = draw.choice(sorted((store.root / STEPS[2]).iterdir()))
    kind = draw.choice(["flip", "flip", "flip", "cut", "zeros", "longer", "gone"])
    if not damage(target, kind, draw):
        return
    checkpoint, skipped = CheckpointStore(store.root).newest()
    assert len(skipped) == 1, (number, kind, target.name)
    assert skipped[0].startswith(f"{STEPS[2]}: {target.name} ")
    assert list(checkpoint.files.items()) == contents(1)


def test_200_damaged_checkpoints_are_detected_and_skipped(memory):
    for number in range(200):
        one_damage(memory, number)


@pytest.mark.slow
def test_5000_damaged_checkpoints_are_detected_and_skipped(memory):
    for number in range(200, 5200):
        one_damage(memory, number)


def test_that_bites(memory, monkeypatch):
    """Without the comparison of hashes a flipped bit is read as if it were right."""
    monkeypatch.setattr(checkpoint_store.hashlib, "sha256", lambda payload: Same())
    with pytest.raises(AssertionError):
        test_200_damaged_checkpoints_are_detected_and_skipped(memory)


class Same:
    """A hash that finds everything equal."""

    def hexdigest(self):
        return "0" * 64


def test_every_flipped_bit_of_the_manifest_is_detected(store):
    """Also those that change no meaning: it is compared as text."""
    path = store.root / STEPS[2] / MANIFEST
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedCheckpointError, match=MANIFEST):
            read_manifest(path.parent)


def test_all_damaged_checkpoints_are_named(store):
    for name in (STEPS[1], STEPS[2]):
        (store.root / name / "state.json").unlink()
    checkpoint, skipped = CheckpointStore(store.root).newest()
    assert checkpoint is None
    assert skipped == [
        f"{STEPS[2]}: state.json is missing",
        f"{STEPS[1]}: state.json is missing",
    ]


def test_unreadable_file_is_named(store, monkeypatch):
    real = Path.read_bytes

    def rotten(path):
        if path.name == "model.safetensors" and STEPS[2] in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", rotten)
    checkpoint, skipped = store.newest()
    assert skipped == [
        f"{STEPS[2]}: model.safetensors cannot be read: Input/output error"
    ]
    assert checkpoint.metadata["step"] == 1


def manifest_text(body):
    checksum = hashlib.sha256((json.dumps(body, indent=2) + "\n").encode()).hexdigest()
    return json.dumps({**body, "checksum": checksum}, indent=2) + "\n"


GOOD = {"format": checkpoint_store.FORMAT, "files": {}, "metadata": {}}
BAD_MANIFESTS = {
    "another format": ({**GOOD, "format": "2"}, "not of the format"),
    "no files": ({**GOOD, "files": 5}, "not of the format"),
    "a file that is a number": ({**GOOD, "files": {"a": 3}}, "not of the format"),
    "no length": ({**GOOD, "files": {"a": {"sha256": ""}}}, "not of the format"),
    "no metadata": ({**GOOD, "metadata": []}, "not of the format"),
    "up and out": (
        {**GOOD, "files": {"../x": {"bytes": 1, "sha256": ""}}},
        "has an unsafe path: ../x",
    ),
    "absolute": (
        {**GOOD, "files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}},
        "has an unsafe path: /etc/passwd",
    ),
    "the folder itself": (
        {**GOOD, "files": {"..": {"bytes": 1, "sha256": ""}}},
        ".. is missing",
    ),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_invalid_manifest_with_valid_checksum(store, name):
    body, message = BAD_MANIFESTS[name]
    (store.root / STEPS[2] / MANIFEST).write_text(manifest_text(body))
    checkpoint, skipped = CheckpointStore(store.root).newest()
    assert message in skipped[0]
    assert checkpoint.metadata["step"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("{}", "does not match its checksum"),
        ("x" * (checkpoint_store.MAX_MANIFEST_BYTES + 1), "is too large"),
    ],
)
def test_malformed_manifest(store, text, message):
    (store.root / STEPS[2] / MANIFEST).write_text(text)
    assert message in CheckpointStore(store.root).newest()[1][0]


# --- A4: the disk refuses


REFUSALS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir")


def refuse(monkeypatch, at, number):
    """Let the nth call that changes something fail, and all writes after it."""
    calls = []

    def refusing(real):
        def call(*words, **options):
            if real is not os.open or words[1] & os.O_WRONLY:
                calls.append(real.__name__)
                if len(calls) - 1 >= at:
                    raise OSError(number, os.strerror(number))
            return real(*words, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    return calls


def save_on(store, at, number):
    """Save while the nth call is refused; return the calls, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        calls = refuse(patch, at, number)
        try:
            write(store, 3)
        except StorageError as error:
            return calls, str(error)
    return calls, ""


@pytest.mark.parametrize("number", REFUSALS)
def test_failed_write_leaves_earlier_checkpoints_intact(memory, number):
    """At each of the calls of a save in turn, until one is never reached."""
    messages = []
    while True:
        store = CheckpointStore(memory / str(len(messages)))
        for step in (1, 2):
            write(store, step)
        calls, message = save_on(store, len(messages), number)
        checkpoint, skipped = CheckpointStore(store.root).newest()
        assert checkpoint.metadata["step"] in (2, 3)
        assert skipped == []
        assert list(checkpoint.files.items()) == contents(checkpoint.metadata["step"])
        assert not [name for name in names(store) if name.startswith(".step-00000003")]
        if len(calls) <= len(messages):
            break
        messages.append(message)
    assert checkpoint.metadata["step"] == 3
    refused = [message for message in messages if message]
    assert len(refused) > 15
    for message in refused:
        assert "bytes needed, " in message
        assert " free)" in message
        is_full = number in (errno.ENOSPC, errno.EDQUOT)
        assert ("free some space or choose another --out" in message) == is_full
        assert "choose another --out" in message


@contextmanager
def unprivileged_user():
    """Be a user who may not write everywhere, if one is not already."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def test_read_only_folder(store):
    store.root.parent.chmod(0o755)
    store.root.chmod(0o555)
    refused = pytest.raises(StorageError, match="permission denied")
    with unprivileged_user(), refused:
        write(store, 3)
    store.root.chmod(0o755)
    assert store.newest()[0].metadata["step"] == 2


def test_disk_that_returns_other_bytes(store, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda h, b: real(h, bytes(len(b))))
    with pytest.raises(StorageError, match="read back differs from the one written"):
        write(store, 3)
    monkeypatch.undo()
    checkpoint, skipped = store.newest()
    assert checkpoint.metadata["step"] == 2
    assert skipped[0].startswith(STEPS[3])
    write(store, 4)
    assert names(store) == ["LATEST", STEPS[2], STEPS[4]]


def test_old_checkpoint_that_cannot_be_deleted(store, monkeypatch):
    def refuse(path):
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(checkpoint_store, "remove_folder", refuse)
    write(store, 3)
    assert names(store) == ["LATEST", *STEPS[1:4]]


def test_remove_leftovers_deletes_only_its_own_files(memory):
    ours = [".step-1.0123abcd", ".manifest.json.deadbeef"]
    others = [".git", ".hidden", ".x.0123ABCD", "plain.0123abcd"]
    for name in (*ours, *others):
        (memory / name).mkdir()
        (memory / name / "file").write_text("x")
    (memory / ".note.00000000").write_text("x")
    remove_leftovers(memory)
    assert sorted(os.listdir(memory)) == sorted(others)
