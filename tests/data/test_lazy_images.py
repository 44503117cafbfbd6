"""Lazily decoded images: the same by threads and processes, and never a hang.

Guards taken out once, each test then red: the SHA-256 at reading, the limit on losses,
the watch on the parent, the kill of hung processes, the time limit.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from striate.core.errors import DataError, WorkerError
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import Augment, augmentation
from striate.data.batches import Batches
from striate.data.cache import decode_dataset, decode_workers, free_memory, lazy_images
from striate.data.cache.lazy_images import EncodedFiles, LazyPixels
from striate.data.decode.preprocess import file_to_input
from striate.data.load import load_data
from striate.data.scan import scan_files
from striate.data.sources.folder import read_folder
from striate.data.subset import Subset
from support.images import encoded, pil_image, stripes, write_folder

SIZE = Preprocess(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", size=(12, 10), channels=3, suffix=".jpg")


def lazily(photos, **options):
    source = read_folder(photos)
    scan = scan_files(source)
    originals = EncodedFiles(
        files=source.reader,
        paths=tuple(record.path for record in source.records),
        hashes=scan.hashes,
    )
    return LazyPixels(originals, SIZE, **options)


def batches(pixels, seed=0, **options):
    paths = [pixels.originals.path(row) for row in range(len(pixels))]
    subset = Subset.of(pixels, list(range(len(pixels))), paths)
    return Batches(subset=subset, preprocess=SIZE, batch_size=5, seed=seed, **options)


def test_lazy_pixels_are_indexed_like_a_tensor(photos):
    pixels = lazily(photos)
    files = sorted(photos.rglob("*.jpg"))
    whole = torch.stack([file_to_input(path.read_bytes(), SIZE) for path in files])
    assert tuple(pixels.shape) == tuple(whole.shape)
    assert len(pixels) == 24
    assert torch.equal(pixels[3], whole[3])
    assert torch.equal(pixels[2:20:3], whole[2:20:3])
    assert torch.equal(pixels[torch.tensor([5, 0])], whole[[5, 0]])
    assert torch.equal(pixels.take([7, 1])[:], whole[[7, 1]])


AUGMENTS = {
    "none": Augment(),
    "moved": Augment(shift=0.25, flip="horizontal"),
    "six": augmentation("six"),
    "cropped": Augment(crop=0.3, flip="both"),
}


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_draws_are_equal_between_worker_counts(photos, name, count):
    """D7: random draws differ between epochs and samples, not between loaders."""
    pixels = lazily(photos)
    in_memory = Subset.of(pixels[:], list(range(24)), [str(i) for i in range(24)])
    resident = Batches(
        subset=in_memory, preprocess=SIZE, batch_size=5, augment=AUGMENTS[name]
    )
    lazy_ones = batches(lazily(photos, workers=count), augment=AUGMENTS[name])
    for epoch in (0, 1):
        for (x, y), (u, v) in zip(resident(epoch), lazy_ones(epoch), strict=True):
            assert torch.equal(y, v)
            assert torch.equal(x, u)


@pytest.mark.parametrize(
    "start", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)]
)
def test_start_methods_of_processes(photos, start):
    pixels = lazily(photos, workers=2)
    indices = torch.arange(24).split(7)
    decoded = list(decode_workers.decode_with_workers(pixels, indices, start=start))
    assert torch.equal(torch.cat([m.pixels for m in decoded]), pixels[:])
    assert torch.equal(torch.cat([m.index for m in decoded]), torch.arange(24))


def children():
    """Return the worker processes, by their parent."""
    me, pids = os.getpid(), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == me and words[0] != "Z":
            pids.append(int(stat.parent.name))
    return pids


def test_a_killed_process_is_named_and_leaves_no_orphan(photos, monkeypatch):
    before = set(children())
    decode = lazy_images.file_to_input

    def slowly(payload, preprocess):
        time.sleep(0.2)  # or the other process has done it all before death is noticed
        return decode(payload, preprocess)

    monkeypatch.setattr(lazy_images, "file_to_input", slowly)
    decoded = decode_workers.decode_with_workers(
        lazily(photos, workers=2), torch.arange(24).split(1), start="fork"
    )
    next(decoded)
    (first, *_) = set(children()) - before
    os.kill(first, signal.SIGKILL)
    while first in children():  # before the other one has done it all
        time.sleep(0.01)
    with pytest.raises(WorkerError, match="died or was killed") as caught:
        list(decoded)
    assert caught.value.where == "--workers"
    assert "--workers 0" in caught.value.fix
    assert set(children()) <= before


def test_a_hung_decoder_is_named_and_leaves_no_orphan(photos, monkeypatch):
    before = set(children())

    def forever(payload, preprocess):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(lazy_images, "file_to_input", forever)
    decoded = decode_workers.decode_with_workers(
        lazily(photos, workers=1), torch.arange(24).split(6), timeout=0.5, start="fork"
    )
    with pytest.raises(WorkerError, match="no batch was decoded within 0 s"):
        next(decoded)
    assert set(children()) <= before


def test_an_interrupted_epoch_leaves_no_process(photos):
    before = set(children())
    decoded = decode_workers.decode_with_workers(
        lazily(photos, workers=2), torch.arange(24).split(1), start="fork"
    )
    next(decoded)
    decoded.close()
    assert set(children()) <= before
    threads = threading.active_count()
    iterator = iter(batches(lazily(photos))(0))
    next(iterator)
    iterator.close()
    assert threading.active_count() == threads


def test_an_epoch_may_be_left_while_a_process_still_begins(
    photos, monkeypatch, tmp_path
):
    """A worker that waits for work holds the queue's lock, and is killed with it.

    Where only those that had reported their number were killed, the other waited for
    the lock for good, and the run for it.
    """
    begin = decode_workers._begin

    def slowly(*args):
        try:
            (tmp_path / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(0.5)
        begin(*args)

    monkeypatch.setattr(decode_workers, "_begin", slowly)
    before = set(children())
    decoded = decode_workers.decode_with_workers(
        lazily(photos, workers=2), torch.arange(24).split(1), start="fork"
    )
    next(decoded)
    leaving = threading.Thread(target=decoded.close, daemon=True)
    leaving.start()
    leaving.join(20)
    assert not leaving.is_alive()
    assert set(children()) <= before


PARENT = """
import sys, time, torch
sys.path.insert(0, sys.argv[2])
from test_lazy_images import decode_workers, lazily
from pathlib import Path
decoded = decode_workers.decode_with_workers(
    lazily(Path(sys.argv[1]), workers=2), torch.arange(24).split(1), start="fork")
next(decoded)
from test_lazy_images import children
print(*children(), flush=True)
time.sleep(60)
"""


def test_a_killed_parent_leaves_no_orphan(photos):
    here = Path(__file__).parent
    path = f"{os.environ.get('PYTHONPATH', '')}:{here.parent}"
    child = subprocess.Popen(
        [sys.executable, "-c", PARENT, photos, here],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    numbers = [int(word) for word in child.stdout.readline().split()]
    child.kill()
    child.wait()
    child.stdout.close()
    assert len(numbers) >= 1
    deadline = time.monotonic() + 60
    while any(_runs(number) for number in numbers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(number) for number in numbers)


def _runs(number):
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().split(")")[1][:3]
    except OSError:
        return False


# --- files that do not keep still (C4, C13)


def harm(path, harm_kind):
    raw = bytearray(path.read_bytes())
    if harm_kind == "gone":
        path.unlink()
    elif harm_kind == "one byte":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif harm_kind == "eight bytes":
        raw[30:38] = b"\0\1\2\3\4\5\6\7"
        path.write_bytes(raw)
    elif harm_kind == "zero hole":
        raw[len(raw) // 3 : len(raw) // 2] = bytes(len(raw) // 2 - len(raw) // 3)
        path.write_bytes(raw)
    else:
        path.write_bytes(encoded(pil_image(stripes(1, 5, 12, 10, 3)), "JPEG"))


HARMS = ["gone", "one byte", "eight bytes", "zero hole", "another image"]


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("harm_kind", HARMS)
def test_training_survives_a_few_lost_files(photos, harm_kind, count):
    """A lost image is replaced by another of its batch, with that label."""
    pixels = lazily(photos, workers=count, replace_lost=True)
    whole = pixels[:]
    harm(photos / "across/04.jpg", harm_kind)
    labels = []
    for x, y in batches(pixels)(0):
        again = (x.permute(0, 2, 3, 1) * 0.2 + 0.5).mul(255).round().byte()
        assert torch.equal(again, whole[y])
        labels += y.tolist()
    assert len(labels) == 24
    assert set(range(24)) - set(labels) == {4}
    (lost,) = pixels.lost
    assert lost.path == "across/04.jpg"
    assert lost.reason == ("missing" if harm_kind == "gone" else "changed-since-scan")
    list(batches(pixels)(1))
    assert len(pixels.lost) == 1  # each is counted once


@pytest.mark.parametrize("count", [0, 2])
def test_a_deleted_folder_stops_the_run(photos, count):
    pixels = lazily(photos, workers=count, replace_lost=True)
    epochs = batches(pixels)
    decoded = epochs(0)
    next(decoded)
    shutil.rmtree(photos)
    rest = chain(decoded, epochs(1))  # workers may have read the first epoch ahead
    with pytest.raises(DataError, match="of 24 images can no longer be read") as e:
        list(rest)
    assert "missing (no such file)" in e.value.what
    assert e.value.where.endswith(".jpg")


def test_evaluation_is_complete_or_stops(photos):
    pixels = lazily(photos)
    harm(photos / "down/02.jpg", "one byte")
    with pytest.raises(DataError, match=r"1 of 24 images .* changed-since-scan"):
        list(batches(pixels, shuffle=False)(0))
    with pytest.raises(DataError, match="changed-since-scan"):
        pixels[14]


def test_a_whole_batch_that_is_lost_stops(photos, monkeypatch):
    monkeypatch.setattr(lazy_images, "MAX_LOST", 100)
    pixels = lazily(photos, replace_lost=True)
    for path in (photos / "across").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="5 of 24"):
        list(batches(pixels, shuffle=False)(0))


@pytest.fixture
def nothing_fits(monkeypatch):
    """Simulate memory for a few 8×8 images, but not for the set."""
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 24 * 8 * 8 * 3)
    monkeypatch.setattr(decode_dataset, "BATCH", 1)


@pytest.mark.parametrize("count", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_training_a_set_larger_than_memory(striate, photos, nothing_fits, count):
    result = striate(
        *("train", photos, "--image-size", "8", "--epochs", "2", "--batch-size", "8"),
        *("--cache", "off", "--out", "run", "--workers", count, "--json"),
    )
    assert result.code == 0
    assert striate("evaluate", "run", "--json").code == 0


@pytest.mark.parametrize("harm_kind", ["gone", "one byte"])
def test_a_message_about_a_file_changed_since_training(striate, photos, harm_kind):
    """C4: the test split is evaluated without the file, with a message."""
    striate("train", photos, "--image-size", "8", "--epochs", "1", "--out", "run")
    rows = Path("run/split.csv").read_text().splitlines()
    test = next(r.split(",")[0] for r in rows if ",test," in r)
    assert all(len(r.split(",")[5]) == 64 for r in rows[1:])
    harm(photos / test, harm_kind)
    result = striate("evaluate", "run")
    assert result.code == 1
    reason = "missing" if harm_kind == "gone" else "changed-since-scan"
    assert f"not used: {test}: {reason}" in result.out.replace("\n", "")


def test_only_the_training_split_replaces_lost_images(photos, nothing_fits):
    data = load_data(photos, image_size=8, cache="off", workers=1)
    assert data.subset("train").pixels.replace_lost
    assert data.subset("train").pixels.workers == 1
    assert not data.subset("val").pixels.replace_lost
    assert data.preprocess.mean
