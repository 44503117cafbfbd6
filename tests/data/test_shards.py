"""Shards: what WebDataset writes is read, nothing is held, the order is a function.

Guards taken out once, each test then red: the checksum of the bytes, the stamp of a
shard, the links in a tar, the last batch of one, the bucket by content.
"""

import copy
import csv
import os
import tarfile
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.core.errors import DataError
from striate.data import batches as batches_module
from striate.data.batches import Batches
from striate.data.cache.lazy_images import LazyPixels
from striate.data.decode.preprocess import file_to_input
from striate.data.load import load_data
from striate.data.shards import index as shards
from striate.data.shards import load as shards_load
from striate.data.shards.tars import is_shards, shard_names, split_of_shard, tar_members
from striate.data.sources.source import Skipped
from striate.run.run import load_run
from support.images import encoded, pil_image, snapshot, stripes
from support.tar_shards import KINDS, add, write_shards


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


@pytest.fixture
def streamed(monkeypatch):
    """Stream every set, as if it were too large for memory."""
    monkeypatch.setattr(shards_load, "MOST_HELD", 0)


@pytest.mark.parametrize("layout", ["cls", "json", "folder"])
def test_each_layout_gives_the_same_set(tmp_path, layout):
    data = load_data(write_shards(tmp_path / layout, layout=layout))
    assert data.labels.names == KINDS
    assert data.num_files == len(data.rows) == 120
    assert str(data.preprocess.spec) == "8×8×1"
    for row in data.rows:
        shard, _, offset = row.path.rpartition("#")
        with open(shard, "rb") as file:
            file.seek(int(offset))
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_loaded_and_streamed_sets_are_equal(folder, request):
    in_memory = load_data(folder, seed=3)
    request.getfixturevalue("streamed")
    streamed = load_data(folder, seed=3)
    assert isinstance(streamed.subset("train").pixels, LazyPixels)
    assert isinstance(in_memory.subset("train").pixels, torch.Tensor)
    assert {r.path: (r.split, r.label, r.content) for r in in_memory.rows} == {
        r.path: (r.split, r.label, r.content) for r in streamed.rows
    }
    assert in_memory.preprocess == streamed.preprocess
    for name, subset in streamed.subsets.items():
        own = in_memory.subset(name)
        assert list(subset.paths) == list(own.paths)
        assert torch.equal(subset.labels, own.labels)
        assert torch.equal(subset.pixels[:], own.pixels)
    assert streamed.rows[0] == next(iter(streamed.rows))
    assert streamed.rows[-1:] == list(streamed.rows)[-1:]
    assert len(streamed.rows[100:]) == 20
    every = list(streamed.rows)
    assert [streamed.rows[i - 120] for i in range(120)] == every
    for outside in (120, -121):
        with pytest.raises(IndexError):
            streamed.rows[outside]
    paths = streamed.subset("train").paths
    assert paths[-1] == list(paths)[-1]
    assert paths[:2] == list(paths)[:2]
    with pytest.raises(IndexError):
        paths[len(paths)]


def test_images_are_counted_from_the_end_too(folder, streamed):
    """Negative indexes count from the end, as in a tensor."""
    pixels = load_data(folder).subset("train").pixels
    count, whole = len(pixels), pixels[:]
    assert torch.equal(pixels[-1], whole[-1])
    assert torch.equal(pixels[torch.tensor([-1, 0, -count])], whole[[-1, 0, -count]])
    assert torch.equal(pixels.take([-2])[0], whole[-2])
    for outside in (count, -count - 1):
        with pytest.raises(
            IndexError, match=f"index {outside} is out of range: {count} images"
        ):
            pixels[outside]


def test_the_split_belongs_to_the_content(tmp_path, streamed):
    """More shards, other names, another order: no image moves (D6)."""
    few = load_data(write_shards(tmp_path / "few", count=2), seed=1)
    write_shards(tmp_path / "more", count=3, name="z-{:03d}.tar")
    more = load_data(tmp_path / "more", seed=1)
    old = {row.content: row.split for row in few.rows}
    new = {row.content: row.split for row in more.rows}
    assert all(new[content] == split for content, split in old.items())
    other = load_data(tmp_path / "more", seed=2)
    assert {row.content: row.split for row in other.rows} != new


def test_shards_that_name_their_split(tmp_path, streamed):
    root = write_shards(tmp_path / "s", count=2, name="photos-train-{:03d}.tar")
    write_shards(root, count=1, name="photos-test-{:03d}.tar", first=5000)
    data = load_data(root)
    splits = Counter((row.split, "-test-" in row.path) for row in data.rows)
    assert splits[("test", True)] == 30
    assert splits[("val", False)] > 0
    assert splits[("test", False)] == splits[("val", True)] == 0


def test_twins_under_two_labels(tmp_path, streamed):
    root = write_shards(tmp_path / "s")
    same = encoded(pil_image(stripes(0, 2)))
    with tarfile.open(root / "p-009.tar", "w") as tar:
        add(tar, "down/again.png", same)
        add(tar, "across/again.png", encoded(pil_image(stripes(0, 4))))
    data = load_data(root)
    reasons = Counter(skip.reason for skip in data.quarantined)
    assert reasons == {"two-labels": 2}
    assert data.num_files == 122
    contents = {}
    for row in data.rows:
        contents.setdefault(row.content, set()).add(row.split)
    assert all(len(splits) == 1 for splits in contents.values())


def test_what_else_may_be_in_a_tar(tmp_path, streamed):
    root = write_shards(tmp_path / "s", count=2)
    outside = tmp_path / "secret.png"
    outside.write_bytes(encoded(pil_image(stripes(0, 1))))
    with tarfile.open(root / "odd.tar", "w") as tar:
        add(tar, "across/cut.png", encoded(pil_image(stripes(0, 5)))[:-20])
        add(tar, "across/notes.txt", b"words")
        add(tar, "loose.png", encoded(pil_image(stripes(0, 6))))
        add(tar, "bad.json", b"{")
        add(tar, "bad.png", encoded(pil_image(stripes(0, 7))))
        add(tar, "long.cls", b"x" * (1 << 17))
        add(tar, "code.pyd", b"cposix\nsystem\n.")
        for kind, name in (
            (tarfile.SYMTYPE, "across/l.png"),
            (tarfile.LNKTYPE, "k.png"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, str(outside)
            tar.addfile(link)
        add(tar, "../../down/up.png", encoded(pil_image(stripes(1, 8))))
        tar.addfile(tarfile.TarInfo("across/empty.png"))
    before = snapshot(tmp_path)
    data = load_data(root)
    assert snapshot(tmp_path) == before
    skipped = {(Path(s.path).name, s.reason) for s in data.quarantined}
    assert skipped == {
        ("cut.png", "truncated"),
        ("notes.txt", "not-read-here"),
        ("code.pyd", "not-read-here"),
        ("loose.png", "no-label"),
        ("bad.json", "no-label"),
        ("bad.png", "no-label"),
        ("long.cls", "no-label"),
        ("l.png", "not-a-file"),
        ("k.png", "not-a-file"),
        ("empty.png", "not-an-image"),
    }
    assert len(data.rows) == 61


def test_a_scan_goes_on_where_it_stopped(folder, monkeypatch, streamed, tmp_path):
    real, names = shards._scan, []

    def stopping(path, *words):
        names.append(path.name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return real(path, *words)

    monkeypatch.setattr(shards, "_scan", stopping)
    with pytest.raises(KeyboardInterrupt):
        load_data(folder)
    first = load_data(folder)
    assert names == [f"p-00{n}.tar" for n in (0, 1, 2, 2, 3)]
    assert len(load_data(folder).rows) == len(first.rows)
    assert len(names) == 5
    write_shards(folder, count=1, each=20, first=900)  # p-000 is another now
    assert load_data(folder).num_files == 110
    assert names[5:] == ["p-000.tar"]
    for path in (Path(os.environ["XDG_CACHE_HOME"]) / "striate/index").glob("*.rows"):
        path.write_bytes(path.read_bytes()[:-1])
    load_data(folder)
    assert len(names) == 10


def test_without_a_cache_nothing_is_left(folder, streamed, tmp_path):
    import gc
    import tempfile

    before = set(Path(tempfile.gettempdir()).glob("striate-*"))
    data = load_data(folder, cache="off")
    subset = data.subset("val")
    assert len(
        list(Batches(subset=subset, preprocess=data.preprocess, batch_size=8)(0))
    )
    del data, subset
    gc.collect()
    assert set(Path(tempfile.gettempdir()).glob("striate-*")) <= before


@pytest.mark.parametrize("harm", ["other bytes", "gone"])
def test_a_shard_that_changes_meanwhile_stops_the_run(folder, streamed, harm):
    data = load_data(folder)
    path = folder / "p-001.tar"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(path.stat().st_size))
    subset = data.subset("train")
    batches_made = Batches(subset=subset, preprocess=data.preprocess, batch_size=8)
    reason = "missing" if harm == "gone" else "changed-since-scan"
    with pytest.raises(DataError, match=reason):
        list(batches_made(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_once_by_any_means(folder, streamed, workers):
    data = load_data(folder, workers=workers)
    subset = data.subset("train")
    batches_made = Batches(
        subset=subset, preprocess=data.preprocess, batch_size=16, seed=5
    )
    orders = []
    for epoch in (0, 1):
        batches = list(batches_made(epoch))
        assert len(batches) == len(batches_made)
        index = torch.cat(list(batches_made.indices(epoch)))
        assert sorted(index.tolist()) == list(range(len(subset)))
        assert torch.equal(torch.cat([y for _, y in batches]), subset.labels[index])
        orders.append(index.tolist())
    assert orders[0] != orders[1]
    still = Batches(
        subset=subset, preprocess=data.preprocess, batch_size=16, shuffle=False
    )
    assert torch.cat(list(still.indices(3))).tolist() == list(range(len(subset)))


def test_a_shard_is_asked_for_whole(folder, streamed, monkeypatch):
    """Once for all its images, so that the disk reads sequentially."""
    calls = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: calls.append(words[1:]))
    data = load_data(folder, image_size=16, cache="off", normalize="none")
    for _ in Batches(
        subset=data.subset("train"), preprocess=data.preprocess, batch_size=4
    )(0):
        pass
    assert calls == [(0, 0, os.POSIX_FADV_WILLNEED)] * len(list(folder.iterdir()))


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=9),
    st.integers(1, 17),
    st.integers(0, 2),
    st.integers(1, 60),
)
def test_mixed_blocks(sizes, batch, epoch, most):
    """As for sets in memory: all images once, no batch of one, the stated length."""
    edges = np.cumsum([0, *sizes]).tolist()
    blocks = tuple(pairwise(edges))
    before = batches_module.SHUFFLE_BUFFER
    batches_module.SHUFFLE_BUFFER = most
    try:
        batches_made = list(
            batches_module.cut_batches(
                batches_module.shuffled_blocks(blocks, 0, epoch), batch
            )
        )
        again = list(
            batches_module.cut_batches(
                batches_module.shuffled_blocks(blocks, 0, epoch), batch
            )
        )
    finally:
        batches_module.SHUFFLE_BUFFER = before
    assert all(map(torch.equal, batches_made, again))
    total = sum(sizes)
    assert sorted(chain.from_iterable(b.tolist() for b in batches_made)) == list(
        range(total)
    )
    full, rest = divmod(total, batch)
    merged = batch > 1 and rest == 1 and full > 0
    assert len(batches_made) == full + (rest > 0 and not merged)
    if batch > 1 and total > 1:
        assert all(1 < len(b) <= batch + 1 for b in batches_made)


def test_training_on_shards(striate, folder, streamed):
    pattern = f"{folder}/p-{{000..003}}.tar"
    result = striate("train", pattern, "--epochs", "2", "--out", "run", "--json")
    assert result.code == 0
    assert Path("run/split.csv").read_text().count("\n") == 121
    again = striate("evaluate", "run", "--json")
    assert again.code == 0
    assert again.json["accuracy"] == result.json["accuracy"]
    other = striate("evaluate", "run", "--data", folder / "p-001.tar", "--json")
    assert other.json["count"] == 30


def test_streamed_images_cannot_be_oversampled(striate, folder, streamed):
    pattern = f"{folder}/p-{{000..003}}.tar"
    result = striate("train", pattern, "--class-weights", "sampling", "--epochs", "1")
    assert result.code == 2
    assert "the images are streamed in order" in result.err
    assert "use --class-weights auto or loss" in result.err


@pytest.mark.parametrize("shares", [["--val-fraction", "0.3"], ["--folds", "4"]])
def test_training_images_are_never_evaluated(striate, folder, shares):
    """The record has the requested split, so reading again splits the same."""
    options = [*shares, *(["--fold", "2"] if "--folds" in shares else [])]
    words = ["--epochs", "1", "--test-fraction", "0.1", "--out", "run"]
    result = striate("train", f"{folder}/p-{{000..003}}.tar", *words, *options)
    assert result.code == 0
    with open("run/split.csv", newline="") as file:
        split_by_path = {
            row["image_path"]: row["split"] for row in csv.DictReader(file)
        }
    again = load_run("run").data
    assert {row.path: row.split for row in again.rows} == split_by_path
    assert load_run("run").recipe.folds == (4 if "--folds" in shares else None)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("nowhere-{000..003}.tar", "missing shards: 4 of 4"),
        ("p-{3..1}.tar", "expands to 0 shards"),
        ("p-{0..99999999}.tar", "expands to 100,000,000 shards"),
        ("page.tar", "the shard cannot be read"),
        ("one.tar", "1 class in 1 shard;"),
        ("none.tar", "0 classes in 1 shard;"),
    ],
)
def test_invalid_shards(striate, tmp_path, data, match):
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 999)
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        add(tar, "across/0.png", encoded(pil_image(stripes(0, 5))))
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    result = striate("train", data)
    assert result.code == 2
    assert match in result.err


def test_missing_splits_and_classes(tmp_path):
    root = write_shards(tmp_path / "a", count=1, name="train-{:03d}.tar")
    with tarfile.open(root / "val-000.tar", "w") as tar:
        add(tar, "aslant/0.png", encoded(pil_image(stripes(2, 5))))
    with pytest.raises(DataError, match=r"the val split has classes .*'aslant'"):
        load_data(root)
    (root / "val-000.tar").unlink()
    with pytest.raises(DataError, match="the val split has no images"):
        load_data(root, val_fraction=1e-9)


def test_a_truncated_shard_is_named(tmp_path):
    root = write_shards(tmp_path / "s", count=1)
    path = root / "p-000.tar"
    path.write_bytes(path.read_bytes()[:700])
    skipped: list[Skipped] = []
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(tar_members(path, skipped))
    assert caught.value.where == str(path)


def test_a_damaged_header_is_not_the_end(folder):
    """tarfile stops there without an error; the images behind it would be lost."""
    path = folder / "p-001.tar"
    bytes_ = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        place = tar.getmembers()[20].offset
    bytes_[place + 100] ^= 0xFF
    path.write_bytes(bytes_)
    with pytest.raises(DataError, match=f"the header at byte {place:,} is damaged"):
        load_data(folder)


def test_names(tmp_path):
    write_shards(tmp_path / "s", count=2)
    assert is_shards(tmp_path / "s")
    assert [Path(n).name for n in shard_names(tmp_path / "s")] == [
        "p-000.tar",
        "p-001.tar",
    ]
    (tmp_path / "s/readme.md").touch()
    assert not is_shards(tmp_path / "s")
    assert not is_shards(tmp_path / "nowhere")
    assert split_of_shard("a/b-val-01.tar") == "val"
    assert split_of_shard("valley-01.tar") is None


def test_images_are_those_of_the_files(folder, streamed):
    data = load_data(folder, image_size=6)
    subset = data.subset("val")
    originals = subset.pixels.originals
    for i in (0, len(subset) - 1):
        batches_made = file_to_input(originals.payload(i), data.preprocess)
        assert torch.equal(subset.pixels[i], batches_made)
    sent = copy.deepcopy(originals)  # as processes get it
    assert sent.payload(0) == originals.payload(0)


def test_shards_written_by_webdataset(tmp_path):
    """The writer of WebDataset, where it is installed."""
    wds = pytest.importorskip("webdataset")
    with wds.TarWriter(str(tmp_path / "w-000.tar")) as sink:
        for i in range(20):
            sink.write(
                {
                    "__key__": f"sample{i:04d}",
                    "png": encoded(pil_image(stripes(i % 2, i))),
                    "cls": i % 2,
                }
            )
    data = load_data(tmp_path / "w-000.tar")
    assert data.labels.names == ("0", "1")
    assert len(data.rows) == 20
