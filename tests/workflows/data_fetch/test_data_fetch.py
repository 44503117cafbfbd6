"""`striate data fetch`: complete and verified, or nothing and the next step in words.

A server on this machine takes the publisher's place.
"""

import gzip
import hashlib
import io
import os
import struct
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from striate.core.errors import DataError, StorageError, UnknownNameError
from striate.data.find_source import find_source
from striate.data.sources.downloads import (
    PUBLIC_DATASETS,
    PublicDataset,
    RemoteFile,
)
from striate.workflows.data_fetch import fetch
from striate.workflows.data_fetch.fetch import fetch_data
from support.images import encoded, pil_image, stripes


def idx(array):
    sides = struct.pack(f">{array.ndim}I", *array.shape)
    payload = bytes((0, 0, 8, array.ndim)) + sides + array.tobytes()
    return gzip.compress(payload)


def idx_files():
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8)
    labels = (np.arange(40) % 10).astype(np.uint8)
    pairs = {"images-idx3": images, "labels-idx1": labels}
    return {
        f"{split}-{kind}-ubyte.gz": idx(array)
        for split in ("train", "t10k")
        for kind, array in pairs.items()
    }


def photo_archive(extra=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for kind, name in enumerate(("glass", "paper")):
            for i in range(4):
                image = encoded(pil_image(stripes(kind, i, 16, 16, 3)), "JPEG")
                archive.writestr(f"photos/{name}/{i}.jpg", image)
        archive.writestr("photos/.DS_Store", b"x")
        archive.writestr("__MACOSX/photos/._0.jpg", b"x")
        for name, payload in extra:
            archive.writestr(name, payload)
    return file.getvalue()


class Publisher(ThreadingHTTPServer):
    """Serves `files`; `cut` is the share of a file after which it hangs up."""

    cut = 1.0
    files: dict[str, bytes]

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.requests = {}, 0

    def dataset(self, files, **options):
        """Return a data set of these files at this server."""
        self.files = files
        url = f"http://127.0.0.1:{self.server_port}"
        remote = tuple(
            RemoteFile(
                url=f"{url}/{name}",
                sha256=hashlib.sha256(payload).hexdigest(),
                size=len(payload),
            )
            for name, payload in files.items()
        )
        return PublicDataset(about="images", license="CC0", files=remote, **options)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        payload = self.server.files.get(self.path[1:])
        if payload is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload[: int(self.server.cut * len(payload))])

    def log_message(self, *words):
        """Print nothing."""


@pytest.fixture
def publisher():
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's data folder; no data set of this machine is found."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "system"))
    return tmp_path / "home/datasets"


@pytest.fixture
def fashion(publisher, monkeypatch, home):
    dataset = publisher.dataset(idx_files())
    monkeypatch.setitem(PUBLIC_DATASETS, "fashion-mnist", dataset)
    return dataset


@pytest.fixture
def photos(publisher, monkeypatch, home):
    files = {"photos.zip": photo_archive()}
    dataset = publisher.dataset(files, archive_root="photos")
    monkeypatch.setitem(PUBLIC_DATASETS, "trashnet", dataset)
    return dataset


def test_idx_files_are_fetched_and_found_by_name(striate, fashion, home, publisher):
    said = striate("data", "fetch", "fashion-mnist")
    assert said.code == 0
    assert "fashion-mnist downloaded and verified" in said.out
    assert str(home / "fashion-mnist") in said.out
    assert "license  CC0" in said.out
    assert os.listdir(home) == ["fashion-mnist"]
    assert find_source("fashion-mnist").arrays.shape == (80, 6, 6, 1)
    requests = publisher.requests
    said = striate("data", "fetch", "fashion-mnist")
    assert "is on this machine already" in said.out
    assert publisher.requests == requests


def test_photographs_are_unpacked(striate, photos, home):
    found = striate("data", "fetch", "trashnet", "--json").json
    assert found == {
        "name": "trashnet",
        "folder": str(home / "trashnet"),
        "downloaded": True,
        "license": "CC0",
    }
    assert os.listdir(home) == ["trashnet"]
    source = find_source("trashnet")
    assert source.labels.names == ("glass", "paper")
    assert (len(source.records), source.ignored) == (8, ())


def test_the_list(striate, fashion, home):
    said = striate("data", "fetch")
    assert said.code == 0
    assert "2,527 color photographs of waste" in said.out
    assert "42.8 MB" in said.out
    (first, second) = striate("data", "fetch", "--json").json
    assert (first["name"], first["on_this_machine"]) == ("fashion-mnist", False)
    assert second["license"] == "MIT, Gary Thung"


def test_progress_counts_the_bytes_of_all_files(fashion):
    ticks = []
    fetch_data("fashion-mnist", lambda *pair: ticks.append(pair))
    assert ticks[-1] == (fashion.size, fashion.size)
    assert ticks == sorted(ticks)


def refusal(name, home):
    """Return the error; nothing is left of the download."""
    with pytest.raises(DataError) as caught:
        fetch_data(name)
    assert os.listdir(home) == []
    return str(caught.value)


def test_a_download_that_breaks_off(fashion, home, publisher, striate):
    publisher.cut = 0.5
    message = refusal("fashion-mnist", home)
    assert "could not be downloaded: the connection broke off" in message
    assert "run the command again" in message
    publisher.cut = 1.0
    assert striate("data", "fetch", "fashion-mnist").code == 0


def test_a_shorter_file(fashion, home, publisher):
    publisher.files["t10k-images-idx3-ubyte.gz"] = b"short"
    message = refusal("fashion-mnist", home)
    assert "the download of t10k-images-idx3-ubyte.gz was cut short: 5 of" in message
    assert "run the command again" in message


@pytest.mark.parametrize("more", [b"", b"and more"])
def test_another_file_at_the_address(photos, home, publisher, more):
    size = len(publisher.files["photos.zip"])
    publisher.files["photos.zip"] = bytes(size) + more
    message = refusal("trashnet", home)
    assert "the download is not photos.zip: its SHA-256 begins" in message
    assert f"expected {photos.files[0].sha256[:8]}" in message
    assert "the file was changed there" in message


def test_a_file_that_is_gone(photos, home, publisher):
    publisher.files.clear()
    message = refusal("trashnet", home)
    assert "photos.zip could not be downloaded: Not Found" in message


def test_no_network(photos, home, publisher, monkeypatch):
    (file,) = photos.files
    nowhere = replace(file, url="http://127.0.0.1:9/photos.zip")
    offline = replace(photos, files=(nowhere,))
    monkeypatch.setitem(PUBLIC_DATASETS, "trashnet", offline)
    message = refusal("trashnet", home)
    assert "could not be downloaded" in message
    assert "check the network connection" in message
    assert "give its folder as DATA" in message


def test_a_full_disk(fashion, home, monkeypatch):
    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_download", full)
    with pytest.raises(StorageError, match="the disk is full"):
        fetch_data("fashion-mnist")
    assert os.listdir(home) == []


def test_what_a_killed_download_left_is_removed(fashion, home):
    (home / ".fashion-mnist.0123abcd").mkdir(parents=True)
    (home / ".fashion-mnist.0123abcd/part").write_bytes(b"x")
    (home / "other").mkdir()
    fetch_data("fashion-mnist")
    assert sorted(os.listdir(home)) == ["fashion-mnist", "other"]


def test_no_file_is_unpacked_outside(publisher, monkeypatch, home, tmp_path):
    extra = [("photos/../../../../evil.txt", b"x"), ("/evil.txt", b"x")]
    files = {"photos.zip": photo_archive(extra)}
    dataset = publisher.dataset(files, archive_root="photos")
    monkeypatch.setitem(PUBLIC_DATASETS, "trashnet", dataset)
    fetch_data("trashnet")
    outside = [p for p in tmp_path.rglob("evil.txt") if home not in p.parents]
    assert outside == []
    assert not Path("/evil.txt").exists()


def test_an_archive_that_grows(publisher, monkeypatch, home):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photos/a/1.png", bytes(1 << 20))
    dataset = publisher.dataset({"p.zip": file.getvalue()}, archive_root="photos")
    monkeypatch.setitem(PUBLIC_DATASETS, "trashnet", dataset)
    assert "would unpack to 1,048,576 bytes" in refusal("trashnet", home)


def test_a_wrong_name(striate):
    with pytest.raises(UnknownNameError, match="fashion-mnist"):
        fetch_data("fashion_mnist")
    assert striate("data", "fetch", "digits").code == 2


@pytest.mark.parametrize("name", ["fashion-mnist", "trashnet"])
def test_training_on_a_set_that_is_not_here_names_the_command(refused, home, name):
    assert f"striate data fetch {name}" in refused(name)


def test_every_address_is_pinned_to_a_commit():
    for dataset in PUBLIC_DATASETS.values():
        for file in dataset.files:
            assert file.url.startswith("https://")
            assert len(file.sha256) == 64
            commit = file.url.split("/")[5]
            assert len(commit) == 40
