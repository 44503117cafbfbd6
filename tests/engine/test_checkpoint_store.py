"""Faults A4 and A5: a disk that refuses, and a disk that forgets."""

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
from striate.engine import checkpoint_store as room
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


def write(vault, step):
    return vault.write(step, 0, contents(step), size=1200, facts={"step": step})


@pytest.fixture
def memory():
    with in_memory() as folder:
        yield folder


@pytest.fixture
def vault(memory):
    made = CheckpointStore(memory / "last")
    for step in (1, 2):
        write(made, step)
    return made


def names(vault):
    return sorted(path.name for path in vault.root.iterdir())


STEPS = [f"step-{step:08d}-epoch-0000" for step in range(10)]


def test_the_two_newest_are_kept(vault):
    assert names(vault) == ["LATEST", STEPS[1], STEPS[2]]
    write(vault, 3)
    assert names(vault) == ["LATEST", STEPS[2], STEPS[3]]
    assert (vault.root / "LATEST").read_text() == f"{STEPS[3]}\n"
    vault.prune(1)
    assert names(vault) == ["LATEST", STEPS[3]]


def test_a_sound_one_goes_only_for_a_sound_one(vault):
    """A new sitting trusts what it has read or written itself, and nothing else."""
    (vault.root / STEPS[2] / "state.json").write_bytes(b"?")
    fresh = CheckpointStore(vault.root)
    sealed, _ = fresh.newest()
    assert sealed.facts["step"] == 1
    write(fresh, 5)
    assert names(fresh) == ["LATEST", STEPS[1], STEPS[5]]


def test_an_unsound_one_of_the_same_name_is_replaced(vault):
    (vault.root / STEPS[2] / "state.json").write_bytes(b"?")
    fresh = CheckpointStore(vault.root)
    assert fresh.newest()[0].facts["step"] == 1
    write(fresh, 2)
    assert CheckpointStore(vault.root).newest()[0].facts["step"] == 2


def test_steps_are_numbers_not_words(memory):
    vault = CheckpointStore(memory)
    for steps, epochs in ((99_999_999, 2), (100_000_000, 2), (100_000_000, 10_000)):
        vault.write(steps, epochs, [], size=0, facts={"at": [steps, epochs]})
        assert vault.newest()[0].facts["at"] == [steps, epochs]
    (memory / "step-x").mkdir()
    (memory / "step-00000001-epoch-0001-copy").mkdir()
    assert vault.newest()[0].facts["at"] == [100_000_000, 10_000]


def test_nothing_is_there(memory):
    assert CheckpointStore(memory / "none").newest() == (None, [])


# --- A5: what was written is no longer what is there


def damage(path, how, draw):
    """Change one file; return whether that changed it at all."""
    before = path.read_bytes()
    at, bit = draw.randrange(len(before)), 1 << draw.randrange(8)
    after = {
        "flip": before[:at] + bytes([before[at] ^ bit]) + before[at + 1 :],
        "cut": before[:at],
        "zeros": before[:at] + bytes(len(before) - at),
        "longer": before + b"\n",
        "gone": b"",
    }[how]
    path.unlink() if how == "gone" else path.write_bytes(after)
    return after != before


def one_damage(memory, number):
    draw = random.Random(number)
    vault = CheckpointStore(memory / str(number))
    for step in (1, 2):
        write(vault, step)
    target = draw.choice(sorted((vault.root / STEPS[2]).iterdir()))
    how = draw.choice(["flip", "flip", "flip", "cut", "zeros", "longer", "gone"])
    if not damage(target, how, draw):
        return
    sealed, passed_over = CheckpointStore(vault.root).newest()
    assert len(passed_over) == 1, (number, how, target.name)
    assert passed_over[0].startswith(f"{STEPS[2]}: {target.name} ")
    assert list(sealed.files.items()) == contents(1)


def test_200_damages_are_each_named_and_passed_over(memory):
    for number in range(200):
        one_damage(memory, number)


@pytest.mark.slow
def test_5000_damages_are_each_named_and_passed_over(memory):
    for number in range(200, 5200):
        one_damage(memory, number)


def test_that_bites(memory, monkeypatch):
    """Without the comparison of hashes a flipped bit is read as if it were right."""
    monkeypatch.setattr(room.hashlib, "sha256", lambda payload: Same())
    with pytest.raises(AssertionError):
        test_200_damages_are_each_named_and_passed_over(memory)


class Same:
    """A hash that finds everything equal."""

    def hexdigest(self):
        return "0" * 64


def test_every_bit_of_the_manifest_counts(vault):
    """Also those that change no meaning: it is compared as text."""
    path = vault.root / STEPS[2] / MANIFEST
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedCheckpointError, match=MANIFEST):
            read_manifest(path.parent)


def test_when_none_is_sound_all_are_named(vault):
    for name in (STEPS[1], STEPS[2]):
        (vault.root / name / "state.json").unlink()
    sealed, passed_over = CheckpointStore(vault.root).newest()
    assert sealed is None
    assert passed_over == [
        f"{STEPS[2]}: state.json is missing",
        f"{STEPS[1]}: state.json is missing",
    ]


def test_a_file_that_cannot_be_read_is_named(vault, monkeypatch):
    real = Path.read_bytes

    def rotten(path):
        if path.name == "model.safetensors" and STEPS[2] in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", rotten)
    sealed, passed_over = vault.newest()
    assert passed_over == [
        f"{STEPS[2]}: model.safetensors cannot be read: Input/output error"
    ]
    assert sealed.facts["step"] == 1


def sealed_text(body):
    seal = hashlib.sha256((json.dumps(body, indent=2) + "\n").encode()).hexdigest()
    return json.dumps({**body, "seal": seal}, indent=2) + "\n"


GOOD = {"format": room.FORMAT, "files": {}, "facts": {}}
HOSTILE = {
    "another format": ({**GOOD, "format": "2"}, "not of the format"),
    "no files": ({**GOOD, "files": 5}, "not of the format"),
    "a file that is a number": ({**GOOD, "files": {"a": 3}}, "not of the format"),
    "no length": ({**GOOD, "files": {"a": {"sha256": ""}}}, "not of the format"),
    "no facts": ({**GOOD, "facts": []}, "not of the format"),
    "up and out": (
        {**GOOD, "files": {"../x": {"bytes": 1, "sha256": ""}}},
        "names a file outside: ../x",
    ),
    "absolute": (
        {**GOOD, "files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}},
        "names a file outside: /etc/passwd",
    ),
    "the folder itself": (
        {**GOOD, "files": {"..": {"bytes": 1, "sha256": ""}}},
        ".. is missing",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_made_by_hand(vault, name):
    body, told = HOSTILE[name]
    (vault.root / STEPS[2] / MANIFEST).write_text(sealed_text(body))
    sealed, passed_over = CheckpointStore(vault.root).newest()
    assert told in passed_over[0]
    assert sealed.facts["step"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("{}", "does not match its seal"),
        ("x" * (room.MAX_MANIFEST_BYTES + 1), "bytes long"),
    ],
)
def test_a_manifest_that_is_none(vault, text, told):
    (vault.root / STEPS[2] / MANIFEST).write_text(text)
    assert told in CheckpointStore(vault.root).newest()[1][0]


# --- A4: the disk refuses


REFUSALS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir")


def refuse(monkeypatch, at, number):
    """Let the nth call that changes something fail, and all writes after it."""
    met = []

    def refusing(real):
        def call(*words, **options):
            if real is not os.open or words[1] & os.O_WRONLY:
                met.append(real.__name__)
                if len(met) - 1 >= at:
                    raise OSError(number, os.strerror(number))
            return real(*words, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    return met


def save_on(vault, at, number):
    """Save while the nth call is refused; return the calls, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        met = refuse(patch, at, number)
        try:
            write(vault, 3)
        except StorageError as error:
            return met, str(error)
    return met, ""


@pytest.mark.parametrize("number", REFUSALS)
def test_a_disk_that_refuses_anything_spares_what_is_there(memory, number):
    """At each of the calls of a save in turn, until one is never reached."""
    said = []
    while True:
        vault = CheckpointStore(memory / str(len(said)))
        for step in (1, 2):
            write(vault, step)
        met, told = save_on(vault, len(said), number)
        sealed, passed_over = CheckpointStore(vault.root).newest()
        assert sealed.facts["step"] in (2, 3)
        assert passed_over == []
        assert list(sealed.files.items()) == contents(sealed.facts["step"])
        assert not [name for name in names(vault) if name.startswith(".step-00000003")]
        if len(met) <= len(said):
            break
        said.append(told)
    assert sealed.facts["step"] == 3
    refused = [told for told in said if told]
    assert len(refused) > 15
    for told in refused:
        assert "bytes needed, " in told
        assert " free)" in told
        assert "free some space or choose another --out" in told


@contextmanager
def nobody():
    """Be a user who may not write everywhere, if one is not already."""
    was = os.geteuid()
    os.seteuid(65534 if was == 0 else was)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_folder_that_may_not_be_written(vault):
    vault.root.parent.chmod(0o755)
    vault.root.chmod(0o555)
    refused = pytest.raises(StorageError, match="writing here is not permitted")
    with nobody(), refused:
        write(vault, 3)
    vault.root.chmod(0o755)
    assert vault.newest()[0].facts["step"] == 2


def test_a_disk_that_gives_back_something_else(vault, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda h, b: real(h, bytes(len(b))))
    with pytest.raises(StorageError, match="gave back other bytes than it got"):
        write(vault, 3)
    monkeypatch.undo()
    sealed, passed_over = vault.newest()
    assert sealed.facts["step"] == 2
    assert passed_over[0].startswith(STEPS[3])
    write(vault, 4)
    assert names(vault) == ["LATEST", STEPS[2], STEPS[4]]


def test_an_old_one_that_cannot_be_taken_away_stays(vault, monkeypatch):
    def refuse(path):
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(room, "remove_folder", refuse)
    write(vault, 3)
    assert names(vault) == ["LATEST", *STEPS[1:4]]


def test_only_our_own_leftovers_are_swept(memory):
    mine = [".step-1.0123abcd", ".manifest.json.deadbeef"]
    theirs = [".git", ".hidden", ".x.0123ABCD", "plain.0123abcd"]
    for name in (*mine, *theirs):
        (memory / name).mkdir()
        (memory / name / "file").write_text("x")
    (memory / ".note.00000000").write_text("x")
    remove_leftovers(memory)
    assert sorted(os.listdir(memory)) == sorted(theirs)
