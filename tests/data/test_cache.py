"""The cache: decoded once, never stale, whole or not there, no larger than allowed.

Guards taken out once, each test then red: the checksum in `open_pack`, the marker being
last, the SHA-256 at decoding, the two seconds of `facts.RACY`, the eviction's order.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from striate.core.preprocess import Preprocess
from striate.data import file_index as facts
from striate.data import scan
from striate.data.cache import build_pack as packing
from striate.data.cache import cache_folder as cache_room
from striate.data.cache import decoded_images as packs
from striate.data.cache import free_memory as memory
from striate.data.cache import materialize as develop
from striate.data.cache.cache_folder import Cache, open_cache
from striate.data.cache.decoded_images import (
    Builder,
    Donors,
    open_pack,
    pack_key,
    weigh,
)
from striate.data.decode import decode
from striate.data.load import load_data
from support.images import encoded, pil_image, snapshot, stripes, write_folder


@pytest.fixture
def photos(tmp_path):
    """Color JPEGs that were written long ago."""
    root = write_folder(tmp_path / "photos", size=(24, 32), channels=3, suffix=".jpg")
    return aged(root)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _no_set_is_small(monkeypatch):
    monkeypatch.setattr(scan, "SMALL", 0)


def aged(root):
    """Let the racy two seconds be over: facts compare with the clock, not we."""
    return root


@pytest.fixture
def later(monkeypatch):
    """Make the clock run an hour ahead, so that no file counts as just written."""
    real = time.time_ns
    monkeypatch.setattr(facts.time, "time_ns", lambda: real() + 3600 * 10**9)


@pytest.fixture
def decoded(monkeypatch):
    """Count the files that are decoded."""
    seen = []
    real = packing.look_at_sizes

    def counting(payload, sizes):
        seen.append(payload)
        return real(payload, sizes)

    monkeypatch.setattr(packing, "look_at_sizes", counting)
    monkeypatch.setattr(develop, "look_at_sizes", counting)
    return seen


@pytest.fixture
def read(monkeypatch):
    """Count the files that are opened."""
    from striate.data.sources import files

    seen = []
    real = files.read_file

    def counting(path):
        seen.append(path)
        return real(path)

    monkeypatch.setattr(files, "read_file", counting)
    return seen


def same(one, other):
    assert one.rows == other.rows
    assert one.preprocess == other.preprocess
    for name, subset in one.subsets.items():
        assert torch.equal(subset.pixels[:], other.subsets[name].pixels[:])
        assert torch.equal(subset.labels, other.subsets[name].labels)


def test_a_second_run_neither_reads_nor_decodes(photos, store, decoded, read, later):
    first = load_data(photos, image_size=16, cache=store)
    assert (len(decoded), len(read)) == (24, 48)  # once for the hash, once for pixels
    second = load_data(photos, image_size=16, cache=store)
    assert (len(decoded), len(read)) == (24, 48)
    same(first, second)
    same(first, load_data(photos, image_size=16, cache="off"))


def test_other_settings_are_other_images(photos, store, decoded, later):
    rules = {"resize": "pad", "background": 7, "in_chans": 1, "white_level": 9999}
    for rule, value in rules.items():
        load_data(photos, image_size=16, cache=store, **{rule: value})
    assert len(decoded) == 4 * 24
    load_data(photos, image_size=16, cache=store, resize="pad", normalize="imagenet")
    assert len(decoded) == 4 * 24  # mean and deviation are not in the pixels


def test_a_changed_file_alone_is_decoded_again(photos, store, decoded, later):
    load_data(photos, image_size=16, cache=store)
    path = photos / "across/03.jpg"
    stamp = path.stat()
    path.write_bytes(encoded(pil_image(stripes(0, 77, 24, 32, 3)), "JPEG"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a careful tool would
    decoded.clear()
    again = load_data(photos, image_size=16, cache=store)
    assert len(decoded) == 1
    same(again, load_data(photos, image_size=16, cache="off"))


def test_a_file_written_a_moment_ago_is_not_trusted(photos, store, read):
    """Within one tick of a coarse clock a second write leaves the stamp as it is."""
    load_data(photos, image_size=16, cache=store)
    read.clear()
    load_data(photos, image_size=16, cache=store)
    assert len(read) == 24  # hashed again, all of them


def test_new_and_renamed_files(photos, store, decoded, later):
    load_data(photos, image_size=16, cache=store)
    decoded.clear()
    (photos / "across/00.jpg").rename(photos / "across/zz.jpg")
    pil_image(stripes(1, 99, 24, 32, 3)).save(photos / "down/99.jpg")
    again = load_data(photos, image_size=16, cache=store)
    assert len(decoded) == 1
    same(again, load_data(photos, image_size=16, cache="off"))


def test_what_cannot_be_decoded_is_remembered_too(photos, store, decoded, later):
    whole = (photos / "across/00.jpg").read_bytes()
    (photos / "across/00.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    (photos / "across/01.jpg").write_bytes(b"no image")
    shutil.copy(photos / "down/00.jpg", photos / "down/copy.jpg")
    first = load_data(photos, image_size=16, cache=store)
    decoded.clear()
    second = load_data(photos, image_size=16, cache=store)
    assert not decoded
    reasons = {s.path: s.reason for s in second.quarantined}
    assert reasons.pop("across/00.jpg") in ("truncated", "damaged")
    assert reasons == {"across/01.jpg": "not-an-image"}
    assert second.quarantined == first.quarantined
    same(second, load_data(photos, image_size=16, cache="off"))
    assert second.seen == 25


def test_a_changed_file_between_scan_and_decoding(photos, store, monkeypatch, later):
    """The pack is not made under the name of bytes that nobody decoded."""
    real = packing.stream
    new = encoded(pil_image(stripes(0, 77, 24, 32, 3)), "JPEG")
    old = (photos / "across/05.jpg").read_bytes()

    def late(source, index, work):
        (photos / "across/05.jpg").write_bytes(new)
        return real(source, index, work)

    monkeypatch.setattr(packing, "stream", late)
    data = load_data(photos, image_size=16, cache=store)
    assert [(s.path, s.reason) for s in data.quarantined] == [
        ("across/05.jpg", "changed-since-scan")
    ]
    assert data.seen == 24
    monkeypatch.undo()
    (photos / "across/05.jpg").write_bytes(old)
    same(
        load_data(photos, image_size=16, cache=store),
        load_data(photos, image_size=16, cache="off"),
    )


@pytest.mark.parametrize("name", ["pixels.u8", "known.bin", "pack.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "empty"])
def test_a_damaged_pack_is_made_again(photos, store, name, harm):
    first = load_data(photos, image_size=16, cache=store)
    (folder,) = (store / "packs").iterdir()
    path = folder / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": raw, "cut": raw[: len(raw) // 2], "empty": b""}[harm])
    same(first, load_data(photos, image_size=16, cache=store))
    same(first, load_data(photos, image_size=16, cache=store))
    assert len(list((store / "packs").iterdir())) == 1


def test_a_damaged_book_of_facts(photos, store, later):
    first = load_data(photos, image_size=16, cache=store)
    book = store / "facts.sqlite"
    book.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    same(first, load_data(photos, image_size=16, cache=store))
    with sqlite3.connect(book) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (24,)


def test_a_book_that_grew_too_large_is_begun_anew(tmp_path, monkeypatch, later):
    from striate.data.file_index import Fact, Facts
    from striate.data.sources.files import Stamp

    book = Facts(tmp_path / "facts.sqlite")
    stamp = Stamp("1 2 3 4", 1)
    book.note([(b"one", stamp, Fact("aa", (1, 2, 3)))])
    refused = Fact("bb", None, ("damaged", "why"))
    book.note([(b"two", stamp, refused)])
    assert book.known({b"two": stamp, b"three": stamp}) == {b"two": refused}
    assert book.known({b"two": Stamp("1 2 3 5", 1)}) == {}
    monkeypatch.setattr(facts, "LARGEST", 10)
    book.note([(b"three", stamp, refused)])
    asked = {b"one": stamp, b"two": stamp, b"three": stamp}
    assert set(book.known(asked)) == {b"three"}


CHILD = """
import sys, time
from striate.data import scan
from striate.data.cache import decoded_images as packs
from striate.data.load import load_data
scan.SMALL = 0
packs._TOGETHER = 4
real, rows = packs.Builder.add, 0
def slow(self, row, sha256, content):
    global rows
    real(self, row, sha256, content)
    rows += 1
    print("row", flush=True)
    time.sleep(600 if str(rows) == sys.argv[3] else 0.01)
packs.Builder.add = slow
load_data(sys.argv[1], image_size=16, cache=sys.argv[2])
print("done", flush=True)
"""


@pytest.mark.parametrize(
    "rows", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 16, 24))]
)
def test_a_killed_build_is_taken_up_again(photos, store, decoded, later, rows):
    """SIGKILL while packing; the next run decodes only what had not settled.

    That is what waits and, at most, the stretch that the disk is at.
    """
    # It waits there: a busy machine might let it finish first.
    command = [sys.executable, "-c", CHILD, photos, store, str(rows)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(rows):
        assert child.stdout.readline() == "row\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (left,) = (store / "packs").iterdir()
    assert left.name.startswith(".building-")
    whole = load_data(photos, image_size=16, cache=store)
    assert 24 - rows <= len(decoded) <= 24 - rows + rows % 4 + 4
    same(whole, load_data(photos, image_size=16, cache="off"))
    (pack,) = (store / "packs").iterdir()
    assert pack.name != left.name


def test_two_runs_at_once(photos, store):
    """Both build; the first to finish wins, the other takes its pack."""
    command = [sys.executable, "-c", CHILD, photos, store, "none"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    said = [child.communicate(timeout=60)[0] for child in children]
    assert all(words.endswith(b"done\n") for words in said)
    assert len(list((store / "packs").iterdir())) == 1
    same(
        load_data(photos, image_size=16, cache=store),
        load_data(photos, image_size=16, cache="off"),
    )


def test_another_finished_while_we_built(photos, store):
    size = Preprocess(channels=3, height=4, width=4)
    row = torch.arange(48).byte().view(4, 4, 3)
    with Builder(store, size) as ours, Builder(store, size) as theirs:
        ours.add(row, "a" * 64, "c" * 24)
        theirs.add(row, "a" * 64, "c" * 24)
        folder = theirs.finish(["a" * 64], {})
        assert ours.finish(["a" * 64], {}) == folder
    assert [p.name for p in store.iterdir()] == [pack_key(size, ["a" * 64])]
    assert torch.equal(open_pack(folder).pixels[0], row)
    assert open_pack(folder).content == ("c" * 24,)


def test_rows_are_named_when_the_disk_has_them(store, monkeypatch):
    """And a disk that refuses, on the thread that waits for it, stops the build."""
    size = Preprocess(channels=1, height=1, width=1)
    row = torch.ones(1, 1, 1).byte()
    refusing, asked = threading.Event(), []

    def sync(number):
        asked.append(number)
        if not refusing.wait(30) or len(asked) > 1:
            raise OSError(28, "no space left on device")

    monkeypatch.setattr(packs, "_TOGETHER", 2)
    monkeypatch.setattr(packs.os, "fdatasync", sync)
    with Builder(store, size) as builder:
        for name in "abc":
            builder.add(row, name * 64, "c" * 24)
        (folder,) = store.iterdir()
        assert (folder / packs.KNOWN).stat().st_size == 0
        refusing.set()
        builder._settled()
        known = np.fromfile(folder / packs.KNOWN, packs._ROW)
        assert known["sha256"].astype(str).tolist() == ["a" * 64, "b" * 64]
        with pytest.raises(OSError, match="no space"):
            builder.finish(["a" * 64], {})
    assert len(np.fromfile(folder / packs.KNOWN, packs._ROW)) == 2
    assert not (folder / packs.MARKER).exists()


def test_large_rows_settle_by_their_bytes(store, monkeypatch):
    monkeypatch.setattr(packs, "_WAITING", 40)
    size = Preprocess(channels=1, height=4, width=4)
    with Builder(store, size) as builder:
        for name in "abc":
            builder.add(torch.ones(4, 4, 1).byte(), name * 64, "c" * 24)
        builder._settled()
        (folder,) = store.iterdir()
        assert len(np.fromfile(folder / packs.KNOWN, packs._ROW)) == 2


def test_a_build_that_still_runs_is_left_alone(store):
    size = Preprocess(channels=1, height=1, width=1)
    packs_folder = store / "packs"
    builder = Builder(packs_folder, size)
    builder.add(torch.ones(1, 1, 1).byte(), "a" * 64, "c" * 24)
    builder._settle()
    builder._settled()
    builder._close()
    (mine,) = packs_folder.iterdir()
    # As if another process, which is alive, were building.
    other = mine.with_name(mine.name.rpartition("-")[0] + f"-{os.getppid()}")
    mine.rename(other)
    Donors(packs_folder, size, {"a" * 64}).clear()
    assert other.exists()
    assert weigh(packs_folder) == []
    elsewhere = other.with_name(".building-k-otherhost-1")
    other.rename(elsewhere)
    assert weigh(packs_folder) == []
    elsewhere.rename(mine)  # and as if we had crashed before
    donors = Donors(packs_folder, size, {"a" * 64})
    assert donors.get("a" * 64)[1] == "c" * 24
    assert donors.get("b" * 64) is None
    donors.clear()
    assert list(packs_folder.iterdir()) == []


def test_the_longest_unused_goes_first(photos, store, tmp_path):
    size = 24 * 16 * 16 * 3
    limit = 2.9 * size / 1e9
    for number, side in enumerate((16, 15, 14, 16, 13)):
        load_data(photos, image_size=side, cache=store, cache_gb=limit)
        for marker in (store / "packs").glob("*/pack.json"):
            if time.time() - marker.stat().st_mtime < 60:
                os.utime(marker, (number - 10**6,) * 2)
    sides = set()
    for marker in (store / "packs").glob("*/pack.json"):
        sides.add(json.loads(marker.read_text())["shape"][1])
    assert sides == {16, 14, 13}  # 16 was used again after 15
    assert sum(weight for _, weight, _ in weigh(store / "packs")) < 2.9 * size + 9000


def test_a_set_larger_than_the_cache_does_without(photos, store):
    data = load_data(photos, image_size=16, cache=store, cache_gb=1e-5)
    assert not (store / "packs").exists()
    same(data, load_data(photos, image_size=16, cache="off"))


def test_a_full_disk_does_without(photos, store, monkeypatch):
    def full(self, *row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packs.Builder, "add", full)
    data = load_data(photos, image_size=16, cache=store)
    same(data, load_data(photos, image_size=16, cache="off"))


def test_files_that_never_keep_still_do_without(photos, store, monkeypatch):
    monkeypatch.setattr(packing, "_build", lambda *words: {})
    data = load_data(photos, image_size=16, cache=store)
    same(data, load_data(photos, image_size=16, cache="off"))


def test_where_the_cache_lies(tmp_path, monkeypatch):
    assert open_cache("off") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert open_cache().folder == tmp_path / "own/striate"
    assert open_cache(cache_room.AUTO, 2).limit == 2 * 10**9
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_cache().folder == tmp_path / "home/.cache/striate"
    (tmp_path / "file").write_text("in the way")
    assert open_cache(str(tmp_path / "file")) is None
    monkeypatch.setattr(cache_room.os, "access", lambda *words: False)
    assert open_cache() is None


def test_room_on_the_disk(tmp_path, monkeypatch):
    place = Cache(folder=tmp_path, limit=10**15)
    free = shutil.disk_usage(tmp_path).free
    assert place.fits(10**6)
    assert not place.fits(free)
    assert not Cache(folder=tmp_path, limit=5).fits(6)


def test_a_small_set_leaves_no_trace(photos, store, monkeypatch):
    monkeypatch.setattr(scan, "SMALL", 4 << 20)
    load_data(photos, image_size=16, cache=store)
    assert list(store.iterdir()) == []


def test_user_files_stay_as_they_are(photos, store):
    before = snapshot(photos)
    load_data(photos, image_size=16, cache=store)
    load_data(photos, image_size=16, cache=store)
    assert snapshot(photos) == before


def test_rows_of_large_splits_are_mapped_not_copied(photos, store, monkeypatch):
    from striate.data.cache import pixel_rows as rows

    plain = load_data(photos, image_size=16, cache="off")
    monkeypatch.setattr(rows, "COPIED", 0)
    mapped = load_data(photos, image_size=16, cache=store)
    train = mapped.subset("train").pixels
    assert isinstance(train, rows.SomeRows)
    (folder,) = (store / "packs").iterdir()
    maps = Path("/proc/self/maps").read_text()
    assert str(folder) in maps
    same(plain, mapped)
    again = rows.some(train, [2, 0])
    assert torch.equal(again[0], train[2])


def test_two_sizes_from_one_reading(photos, store, decoded, later):
    """The larger one, for crops, comes from the same decoding."""
    both = load_data(photos, image_size=16, margin=1.25, cache=store)
    assert len(decoded) == 24
    larger = both.subset("train").larger
    assert larger.shape[1:] == (20, 20, 3)
    assert both.subset("val").larger is None
    load_data(photos, image_size=16, cache=store)
    load_data(photos, image_size=20, cache=store)
    assert len(decoded) == 24
    off = load_data(photos, image_size=16, margin=1.25, cache="off")
    assert torch.equal(off.subset("train").larger[:], larger[:])
    same(both, off)


def test_when_nothing_fits_images_are_decoded_when_wanted(photos, store, monkeypatch):
    plain = load_data(photos, image_size=16, cache="off")
    monkeypatch.setattr(memory, "SHARE", 24 * 16 * 16 * 3 / 1.5 / (1 << 40))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 40)
    monkeypatch.setattr(develop, "BATCH", 1)
    lazy = load_data(photos, image_size=16, cache="off")
    assert type(lazy.subset("train").pixels).__name__ == "LazyPixels"
    same(plain, lazy)


def test_the_pixels_of_preprocessing_rules(monkeypatch):
    """Without the rules in a pack's key old pixels would pass for new ones."""
    size = Preprocess(channels=1, height=2, width=2)
    before = packs.geometry_key(size)
    monkeypatch.setattr(packs, "RULES", 2)
    assert packs.geometry_key(size) != before
    # Likewise: other values are another RULES.
    assert decode.REDUCED == ((4, 4), (2, 3))
    assert decode.LARGE_JPEG == 1_500_000
    assert np.dtype(packs._ROW).itemsize == 88
