"""Remote data: object stores in memory and a web server on this machine."""

import functools
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from striate.core.errors import DataError
from striate.data.batches import Batches
from striate.data.decode.decode import UndecodableError
from striate.data.load import load_data
from striate.data.shards import load as shards_load
from striate.data.shards.index import LocalShards
from striate.data.sources import remote
from striate.data.sources.remote import (
    RemoteFiles,
    download_file,
    open_filesystem,
    read_remote,
)
from support.images import encoded, pil_image, stripes, write_folder, write_table
from support.tar_shards import write_shards


def upload(place, folder, root):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place.pipe(f"{root}/{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture
def server(tmp_path):
    """A web server of `tmp_path/web` that records its requests."""
    root = tmp_path / "web"
    root.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            requests.append((self.command, self.path))

    handler = functools.partial(Handler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as batches:
        thread = threading.Thread(target=batches.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{batches.server_address[1]}", requests
        batches.shutdown()
        thread.join()


def same(first, second):
    assert [(r.path, r.label, r.split) for r in first.rows] == [
        (r.path, r.label, r.split) for r in second.rows
    ]
    for name, subset in first.subsets.items():
        assert torch.equal(subset.pixels[:], second.subset(name).pixels[:])


@pytest.mark.parametrize("is_split", [False, True])
def test_a_remote_folder(memory, tmp_path, is_split):
    local = tmp_path / "photos"
    for split in ("train", "val") if is_split else ("",):
        write_folder(local / split, seed=len(split))
    upload(memory, local, "/bucket/photos")
    memory.pipe("/bucket/photos/.hidden/x.png", b"x")
    memory.pipe("/bucket/photos/readme.md", b"x")
    far = load_data("memory://bucket/photos")
    near = load_data(local)
    same(far, near)
    assert far.origin == "memory://bucket/photos"
    assert {(s.path, s.reason) for s in far.ignored} == {
        (".hidden/x.png", "hidden"),
        ("readme.md", "not-in-a-class-folder"),
    }


def test_a_remote_table(memory, tmp_path):
    table = write_table(tmp_path / "t")
    upload(memory, tmp_path / "t", "/bucket")
    same(load_data("memory://bucket/table.csv"), load_data(table))


def test_unreadable_remote_files(memory):
    files = RemoteFiles("memory://bucket")
    memory.pipe("/bucket/empty.png", b"")
    for path, reason in (("gone.png", "missing"), ("empty.png", "not-an-image")):
        with pytest.raises(UndecodableError, match=reason):
            files.read(path)
    assert files.stamp("gone.png") is None
    assert files.stamp("empty.png").size == 0
    assert files.name("a").endswith(b"bucket/a")


def test_errors_of_file_systems(memory, monkeypatch):
    memory.pipe("/bucket/a.png", b"12345")
    files = RemoteFiles("memory://bucket")
    monkeypatch.setattr(remote, "MAX_BYTES", 4)
    with pytest.raises(UndecodableError, match="too-large: 5 bytes"):
        files.read("a.png")

    def broken(*words, **options):
        raise ConnectionResetError("the line is dead")

    monkeypatch.setattr(type(memory), "cat_file", broken)
    with pytest.raises(UndecodableError, match="unreadable: ConnectionResetError"):
        files.read("a.png")
    monkeypatch.setattr(type(memory), "find", broken)
    with pytest.raises(
        DataError, match="the address cannot be listed: ConnectionResetError"
    ):
        read_remote("memory://bucket")


def test_a_remote_set_is_read_once(memory, tmp_path, monkeypatch):
    from striate.data import scan

    monkeypatch.setattr(scan, "SMALL_SET", 0)
    upload(memory, write_folder(tmp_path / "photos"), "/bucket/photos")
    first = load_data("memory://bucket/photos")
    calls = []
    real = type(memory).cat_file
    monkeypatch.setattr(
        type(memory), "cat_file", lambda *w, **o: calls.append(w) or real(*w, **o)
    )
    again = load_data("memory://bucket/photos")
    same(first, again)
    assert not calls


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("memory://nothing/there", "the address has no files"),
        ("nonsense://a/b", "nonsense"),
        ("simplecache::memory://a", "images cannot be read from 'simplecache::"),
        ("reference://a", "images cannot be read from"),
        ("memory://nothing.csv", "FileNotFoundError"),
        ("memory://p-{0..1}.tar", "FileNotFoundError"),
        ("s3://bucket/photos", "s3fs"),
    ],
)
def test_invalid_addresses(striate, memory, address, match):
    result = striate("train", address)
    assert result.code == 2
    assert match in result.err
    assert "where" in result.err


def test_a_folder_without_classes(memory):
    memory.pipe("/bucket/loose.png", encoded(pil_image(stripes(0, 1))))
    with pytest.raises(DataError, match="no class folders"):
        read_remote("memory://bucket")


def test_shards_from_a_web_server(server, tmp_path, monkeypatch):
    root, address, requests = server
    write_shards(root, count=3)
    monkeypatch.setattr(shards_load, "MOST_HELD", 0)
    far = load_data(f"{address}/p-{{000..002}}.tar")
    near = load_data(root)
    assert [r.content for r in far.rows] == [r.content for r in near.rows]
    subset = far.subset("train")
    batches = Batches(subset=subset, preprocess=far.preprocess, batch_size=8)
    labels = torch.cat([y for epoch in (0, 1) for _, y in batches(epoch)])
    assert len(labels) == 2 * len(subset)
    load_data(f"{address}/p-{{000..002}}.tar")
    assert requests.count(("GET", "/p-001.tar")) == 1
    assert requests.count(("HEAD", "/p-001.tar")) == 2


def test_a_changed_remote_shard_is_downloaded_again(memory, tmp_path):
    root = write_shards(tmp_path / "a", count=1)
    upload(memory, root, "/bucket")
    first = load_data("memory://bucket/p-000.tar")
    upload(memory, write_shards(tmp_path / "b", count=1, first=700, each=40), "/bucket")
    second = load_data("memory://bucket/p-000.tar")
    assert (first.num_files, second.num_files) == (30, 40)


def test_old_downloads_are_removed(memory, tmp_path):
    upload(memory, write_shards(tmp_path / "a", count=4, each=4), "/bucket")
    size = len(memory.cat_file("/bucket/p-000.tar"))
    local_shards = LocalShards(tmp_path / "copies", int(2.5 * size))
    for number in (0, 1, 2, 3, 0):
        path = local_shards.path(f"memory://bucket/p-00{number}.tar")
        assert path.stat().st_size == size
        assert len(list((tmp_path / "copies").iterdir())) <= 2
    local_shards.remove_copy("memory://bucket/p-000.tar")
    assert not path.exists()


def test_downloads_are_complete_or_absent(memory, tmp_path, monkeypatch):
    memory.pipe("/a.tar", b"12345")

    def half(self, source, target, **options):
        Path(target).write_bytes(b"123")
        raise OSError("the line broke")

    monkeypatch.setattr(type(memory), "get_file", half)
    with pytest.raises(DataError, match="the line broke"):
        download_file("memory://a.tar", tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_predicting_needs_no_address():
    assert np.all([not remote.is_remote(p) for p in ("a/b.png", "C:/x", Path("x"))])
    assert open_filesystem("memory://a/b/")[1] == "/a/b"


def test_splits_beside_classes_are_refused(memory):
    """Read as classes, `train` and `test` would be learned as two classes."""
    for name in ("train/a/0.png", "test/a/0.png", "extra/a/0.png"):
        memory.pipe(f"/set/{name}", encoded(pil_image(stripes(0, 5))))
    with pytest.raises(
        DataError, match="some folders are not train, val or test: extra"
    ):
        read_remote("memory://set")
