"""The cache: decoded once, never stale, complete or absent, within its limit.

Guards taken out once, each test then red: the checksum in `open_pack`, the marker being
last, the SHA-256 at decoding, the two seconds of `facts.MIN_AGE`, the eviction's order.
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

from striate.core.preprocess_config import Preprocess
from striate.data import file_index, scan
from striate.data.cache import (
    build_pack,
    cache_folder,
    decode_dataset,
    decoded_images,
    free_memory,
)
from striate.data.cache.cache_folder import Cache, open_cache
from striate.data.cache.decoded_images import (
    PackBuilder,
    ReusableRows,
    list_packs,
    open_pack,
    pack_key,
)
from striate.data.decode import jpeg_decoder
from striate.data.load import load_data
from striate.data.load_options import LoadOptions
from support.images import encoded, pil_image, snapshot, stripes, write_folder


@pytest.fixture
def photos(tmp_path):
    """Color JPEGs with old modification times."""
    root = write_folder(tmp_path / "photos", size=(24, 32), channels=3, suffix=".jpg")
    return aged(root)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _no_set_is_small(monkeypatch):
    monkeypatch.setattr(scan, "SMALL_SET", 0)


def aged(root):
    """Set the file times two seconds back, so that the index stores their facts."""
    return root


@pytest.fixture
def later(monkeypatch):
    """Make the clock run an hour ahead, so that no file counts as just written."""
    real = time.time_ns
    monkeypatch.setattr(file_index.time, "time_ns", lambda: real() + 3600 * 10**9)


@pytest.fixture
def decoded(monkeypatch):
    """Count the files that are decoded."""
    calls = []
    real = build_pack.decode_at_sizes

    def counting(payload, sizes):
        calls.append(payload)
        return real(payload, sizes)

    monkeypatch.setattr(build_pack, "decode_at_sizes", counting)
    monkeypatch.setattr(decode_dataset, "decode_at_sizes", counting)
    return calls


@pytest.fixture
def read(monkeypatch):
    """Count the files that are opened."""
    from striate.data.sources import files

    calls = []
    real = files.read_file

    def counting(path):
        calls.append(path)
        return real(path)

    monkeypatch.setattr(files, "read_file", counting)
    return calls


def same(first, other):
    assert first.rows == other.rows
    assert first.preprocess == other.preprocess
    for name, subset in first.subsets.items():
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
    """A second write within one tick of a coarse clock does not change the stamp."""
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


def test_undecodable_files_are_remembered(photos, store, decoded, later):
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
    assert second.num_files == 25


def test_a_changed_file_between_scan_and_decoding(photos, store, monkeypatch, later):
    """No pack is named after bytes that were never decoded."""
    real = build_pack.read_in_order
    new = encoded(pil_image(stripes(0, 77, 24, 32, 3)), "JPEG")
    old = (photos / "across/05.jpg").read_bytes()

    def late(source, index, work):
        (photos / "across/05.jpg").write_bytes(new)
        return real(source, index, work)

    monkeypatch.setattr(build_pack, "read_in_order", late)
    data = load_data(photos, image_size=16, cache=store)
    assert [(s.path, s.reason) for s in data.quarantined] == [
        ("across/05.jpg", "changed-since-scan")
    ]
    assert data.num_files == 24
    monkeypatch.undo()
    (photos / "across/05.jpg").write_bytes(old)
    same(
        load_data(photos, image_size=16, cache=store),
        load_data(photos, image_size=16, cache="off"),
    )


@pytest.mark.parametrize("name", ["pixels.u8", "hashes.bin", "pack.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "empty"])
def test_a_damaged_pack_is_built_again(photos, store, name, harm):
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


def test_a_damaged_file_index(photos, store, later):
    first = load_data(photos, image_size=16, cache=store)
    index = store / "facts.sqlite"
    index.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    same(first, load_data(photos, image_size=16, cache=store))
    with sqlite3.connect(index) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (24,)


def test_an_index_that_is_too_large_is_started_again(tmp_path, monkeypatch, later):
    from striate.data.file_index import FileFacts, FileIndex
    from striate.data.sources.files import Stamp

    index = FileIndex(tmp_path / "facts.sqlite")
    stamp = Stamp("1 2 3 4", 1)
    index.update([(b"one", stamp, FileFacts("aa", (1, 2, 3)))])
    refused = FileFacts("bb", None, ("damaged", "why"))
    index.update([(b"two", stamp, refused)])
    assert index.lookup({b"two": stamp, b"three": stamp}) == {b"two": refused}
    assert index.lookup({b"two": Stamp("1 2 3 5", 1)}) == {}
    monkeypatch.setattr(file_index, "MAX_INDEX_BYTES", 10)
    index.update([(b"three", stamp, refused)])
    stamps = {b"one": stamp, b"two": stamp, b"three": stamp}
    assert set(index.lookup(stamps)) == {b"three"}


CHILD = """
import sys, time
from striate.data import scan
from striate.data.cache import decoded_images as packs
from striate.data.load import load_data
scan.SMALL_SET = 0
packs._ROWS_PER_SYNC = 4
real, rows = packs.PackBuilder.add, 0
def slow(self, row, sha256, content):
    global rows
    real(self, row, sha256, content)
    rows += 1
    print("row", flush=True)
    time.sleep(600 if str(rows) == sys.argv[3] else 0.01)
packs.PackBuilder.add = slow
load_data(sys.argv[1], image_size=16, cache=sys.argv[2])
print("done", flush=True)
"""


@pytest.mark.parametrize(
    "rows", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 16, 24))]
)
def test_a_killed_build_is_continued(photos, store, decoded, later, rows):
    """SIGKILL during a build; the next run decodes only the rows not yet synced.

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
    (unfinished,) = (store / "packs").iterdir()
    assert unfinished.name.startswith(".building-")
    whole = load_data(photos, image_size=16, cache=store)
    assert 24 - rows <= len(decoded) <= 24 - rows + rows % 4 + 4
    same(whole, load_data(photos, image_size=16, cache="off"))
    (pack,) = (store / "packs").iterdir()
    assert pack.name != unfinished.name


def test_two_runs_at_once(photos, store):
    """Both build; the second uses the pack of the first."""
    command = [sys.executable, "-c", CHILD, photos, store, "none"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert all(words.endswith(b"done\n") for words in outputs)
    assert len(list((store / "packs").iterdir())) == 1
    same(
        load_data(photos, image_size=16, cache=store),
        load_data(photos, image_size=16, cache="off"),
    )


def test_another_run_finishes_the_same_pack_first(photos, store):
    size = Preprocess(channels=3, height=4, width=4)
    row = torch.arange(48).byte().view(4, 4, 3)
    with PackBuilder(store, size) as first, PackBuilder(store, size) as second:
        first.add(row, "a" * 64, "c" * 24)
        second.add(row, "a" * 64, "c" * 24)
        folder = second.finish(["a" * 64], {})
        assert first.finish(["a" * 64], {}) == folder
    assert [p.name for p in store.iterdir()] == [pack_key(size, ["a" * 64])]
    assert torch.equal(open_pack(folder).pixels[0], row)
    assert open_pack(folder).content == ("c" * 24,)


def test_rows_are_listed_after_their_sync(store, monkeypatch):
    """A disk error on the sync thread stops the build."""
    size = Preprocess(channels=1, height=1, width=1)
    row = torch.ones(1, 1, 1).byte()
    refusing, stamps = threading.Event(), []

    def sync(number):
        stamps.append(number)
        if not refusing.wait(30) or len(stamps) > 1:
            raise OSError(28, "no space left on device")

    monkeypatch.setattr(decoded_images, "_ROWS_PER_SYNC", 2)
    monkeypatch.setattr(decoded_images.os, "fdatasync", sync)
    with PackBuilder(store, size) as builder:
        for name in "abc":
            builder.add(row, name * 64, "c" * 24)
        (folder,) = store.iterdir()
        assert (folder / decoded_images.HASHES).stat().st_size == 0
        refusing.set()
        builder._wait_for_sync()
        hash_rows = np.fromfile(folder / decoded_images.HASHES, decoded_images._ROW)
        assert hash_rows["sha256"].astype(str).tolist() == ["a" * 64, "b" * 64]
        with pytest.raises(OSError, match="no space"):
            builder.finish(["a" * 64], {})
    assert len(np.fromfile(folder / decoded_images.HASHES, decoded_images._ROW)) == 2
    assert not (folder / decoded_images.MARKER).exists()


def test_large_rows_are_synced_by_bytes(store, monkeypatch):
    monkeypatch.setattr(decoded_images, "_BYTES_PER_SYNC", 40)
    size = Preprocess(channels=1, height=4, width=4)
    with PackBuilder(store, size) as builder:
        for name in "abc":
            builder.add(torch.ones(4, 4, 1).byte(), name * 64, "c" * 24)
        builder._wait_for_sync()
        (folder,) = store.iterdir()
        assert (
            len(np.fromfile(folder / decoded_images.HASHES, decoded_images._ROW)) == 2
        )


def test_a_running_build_is_not_removed(store):
    size = Preprocess(channels=1, height=1, width=1)
    packs_folder = store / "packs"
    builder = PackBuilder(packs_folder, size)
    builder.add(torch.ones(1, 1, 1).byte(), "a" * 64, "c" * 24)
    builder._flush()
    builder._wait_for_sync()
    builder._close()
    (own,) = packs_folder.iterdir()
    # As if another process, which is alive, were building.
    other = own.with_name(own.name.rpartition("-")[0] + f"-{os.getppid()}")
    own.rename(other)
    ReusableRows(packs_folder, size, {"a" * 64}).clear()
    assert other.exists()
    assert list_packs(packs_folder) == []
    other_host = other.with_name(".building-k-otherhost-1")
    other.rename(other_host)
    assert list_packs(packs_folder) == []
    other_host.rename(own)  # and as if we had crashed before
    donors = ReusableRows(packs_folder, size, {"a" * 64})
    assert donors.get("a" * 64)[1] == "c" * 24
    assert donors.get("b" * 64) is None
    donors.clear()
    assert list(packs_folder.iterdir()) == []


def test_the_least_recently_used_pack_is_removed_first(photos, store, tmp_path):
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
    assert (
        sum(weight for _, weight, _ in list_packs(store / "packs")) < 2.9 * size + 9000
    )


def test_a_set_larger_than_the_cache_is_not_cached(photos, store):
    data = load_data(photos, image_size=16, cache=store, cache_gb=1e-5)
    assert not (store / "packs").exists()
    same(data, load_data(photos, image_size=16, cache="off"))


def test_a_full_disk_disables_the_cache(photos, store, monkeypatch):
    def full(self, *row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_images.PackBuilder, "add", full)
    data = load_data(photos, image_size=16, cache=store)
    same(data, load_data(photos, image_size=16, cache="off"))


def test_files_that_keep_changing_are_not_cached(photos, store, monkeypatch):
    monkeypatch.setattr(build_pack, "_build", lambda *words: {})
    data = load_data(photos, image_size=16, cache=store)
    same(data, load_data(photos, image_size=16, cache="off"))


def test_the_cache_folder(tmp_path, monkeypatch):
    assert open_cache("off") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert open_cache().folder == tmp_path / "own/striate"
    assert open_cache(cache_folder.AUTO, 2).limit == 2 * 10**9
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_cache().folder == tmp_path / "home/.cache/striate"
    (tmp_path / "file").write_text("in the way")
    assert open_cache(str(tmp_path / "file")) is None
    monkeypatch.setattr(cache_folder.os, "access", lambda *words: False)
    assert open_cache() is None


def test_free_space_on_the_disk(tmp_path, monkeypatch):
    place = Cache(folder=tmp_path, limit=10**15)
    free = shutil.disk_usage(tmp_path).free
    assert place.fits(10**6)
    assert not place.fits(free)
    assert not Cache(folder=tmp_path, limit=5).fits(6)


def test_a_small_set_is_not_cached(photos, store, monkeypatch):
    monkeypatch.setattr(scan, "SMALL_SET", 4 << 20)
    load_data(photos, image_size=16, cache=store)
    assert list(store.iterdir()) == []


def test_user_files_are_unchanged(photos, store):
    before = snapshot(photos)
    load_data(photos, image_size=16, cache=store)
    load_data(photos, image_size=16, cache=store)
    assert snapshot(photos) == before


def test_rows_of_large_splits_are_mapped_not_copied(photos, store, monkeypatch):
    from striate.data.cache import image_rows as rows

    plain = load_data(photos, image_size=16, cache="off")
    monkeypatch.setattr(rows, "MAX_COPY_BYTES", 0)
    mapped = load_data(photos, image_size=16, cache=store)
    train = mapped.subset("train").pixels
    assert isinstance(train, rows.IndexedRows)
    (folder,) = (store / "packs").iterdir()
    maps = Path("/proc/self/maps").read_text()
    assert str(folder) in maps
    same(plain, mapped)
    again = rows.take_rows(train, [2, 0])
    assert torch.equal(again[0], train[2])


def test_two_sizes_from_one_decoding(photos, store, decoded, later):
    """The larger size, for crops, comes from the same decoding."""
    both = load_data(
        photos, image_size=16, options=LoadOptions(margin=1.25), cache=store
    )
    assert len(decoded) == 24
    larger = both.subset("train").larger
    assert larger.shape[1:] == (20, 20, 3)
    assert both.subset("val").larger is None
    load_data(photos, image_size=16, cache=store)
    load_data(photos, image_size=20, cache=store)
    assert len(decoded) == 24
    off = load_data(
        photos, image_size=16, options=LoadOptions(margin=1.25), cache="off"
    )
    assert torch.equal(off.subset("train").larger[:], larger[:])
    same(both, off)


def test_images_are_decoded_lazily_when_nothing_fits(photos, store, monkeypatch):
    plain = load_data(photos, image_size=16, cache="off")
    monkeypatch.setattr(free_memory, "SHARE", 24 * 16 * 16 * 3 / 1.5 / (1 << 40))
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 1 << 40)
    monkeypatch.setattr(decode_dataset, "BATCH", 1)
    lazy = load_data(photos, image_size=16, cache="off")
    assert type(lazy.subset("train").pixels).__name__ == "LazyPixels"
    same(plain, lazy)


def test_the_pack_key_depends_on_the_rules(monkeypatch):
    """Without the rules in a pack's key old pixels would be used as new ones."""
    size = Preprocess(channels=1, height=2, width=2)
    before = decoded_images.geometry_key(size)
    monkeypatch.setattr(decoded_images, "RULES", decoded_images.RULES + 1)
    assert decoded_images.geometry_key(size) != before
    # Likewise: other values are another RULES.
    assert jpeg_decoder.REDUCED == ((4, 4), (2, 3))
    assert jpeg_decoder.LARGE_JPEG == 1_500_000
    assert np.dtype(decoded_images._ROW).itemsize == 88
