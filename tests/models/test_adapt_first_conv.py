"""Weights for other channels, and public files: found, fetched, verified."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from striate.core.errors import WeightsError
from striate.models.adapt_first_conv import adaptation_text, adapted, adapted_statistics
from striate.models.catalogue import model_entries
from striate.models.downloading import PARTIAL, download, local_file, location
from striate.models.pretrained_registry import PRETRAINED, PretrainedFile
from striate.models.weights import load_pretrained
from striate.run.create_model import create_model


def test_gray_answers_as_its_three_equal_channels_did():
    kernel = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    gray = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    expected = F.conv2d(gray.expand(-1, 3, -1, -1), kernel)
    assert torch.allclose(F.conv2d(gray, adapted(kernel, 1)), expected, atol=1e-12)


@pytest.mark.parametrize("channels", [2, 4, 5, 6, 12])
def test_more_channels_give_outputs_of_equal_size(channels):
    draw = torch.Generator().manual_seed(channels)
    kernel = torch.randn(64, 3, 3, 3, generator=draw)
    x = torch.randn(64, 3, 8, 8, generator=draw)
    more = torch.randn(64, channels, 8, 8, generator=draw) + 1
    before = F.conv2d(x + 1, kernel).mean((0, 2, 3))
    after = F.conv2d(more, adapted(kernel, channels)).mean((0, 2, 3))
    assert after.shape == before.shape
    if channels % 3 == 0:  # every old channel stands in as often
        assert torch.allclose(before, after, atol=0.5)
    assert adapted(kernel, channels).shape == (64, channels, 3, 3)
    times = 3 / channels
    assert torch.equal(
        adapted(kernel, channels)[:, -1], kernel[:, (channels - 1) % 3] * times
    )


def test_statistics_follow_the_same_rule():
    assert adapted_statistics((0.485, 0.456, 0.406), 1) == (0.449,)
    assert adapted_statistics((0.229, 0.224, 0.225), 1) == (0.226,)
    assert adapted_statistics((0.1, 0.2, 0.3), 5) == (0.1, 0.2, 0.3, 0.1, 0.2)
    assert adapted_statistics((), 3) == ()
    assert adaptation_text(3, 3) == ""
    assert "for 4 channels, times 3/4" in adaptation_text(3, 4)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_takes_weights_of_other_channels(tmp_path, channels):
    save_file(
        create_model("cifar_resnet20", seed=0).state_dict(), tmp_path / "a.safetensors"
    )
    model = create_model("cifar_resnet20", in_chans=channels, num_classes=4, seed=1)
    load_pretrained(model, tmp_path / "a.safetensors", head=False)
    ours = create_model("cifar_resnet20", seed=0)
    assert torch.equal(model.conv1.weight, adapted(ours.conv1.weight, channels))
    inner = model.layer3[0].state_dict()
    assert all(torch.equal(v, inner[n]) for n, v in ours.layer3[0].state_dict().items())


SMALL = [
    n.name for n in model_entries() if n.image.height <= 32 and n.image.channels == 3
]


@pytest.mark.parametrize("name", SMALL[::4])
def test_heads_are_replaced_for_any_class_count(tmp_path, name):
    save_file(create_model(name, seed=0).state_dict(), tmp_path / "a.safetensors")
    for classes in (1, 2, 300):
        model = create_model(name, num_classes=classes, seed=1)
        classifier = model.get_classifier()
        weight = classifier.weight.clone()
        load_pretrained(model, tmp_path / "a.safetensors", head=False)
        assert torch.equal(classifier.weight, weight)


class Server:
    """Serves one payload on loopback; can break off, or ignore where to go on."""

    def __init__(self, payload, breaks=0, ranges=True):
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range", "")
                outer.asked.append(asked)
                start = int(asked[6:-1]) if asked and ranges else 0
                if start >= len(payload):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(payload) - start))
                self.end_headers()
                end = len(payload) // 2 if len(outer.asked) <= breaks else len(payload)
                self.wfile.write(payload[start:end])

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def public(monkeypatch):
    """Return what makes public weights that a server has."""

    def make(server, payload, digits=64):
        host = f"http://127.0.0.1:{server.server.server_address[1]}/"
        monkeypatch.setattr("striate.models.pretrained_registry._HOST", host)
        sha256 = hashlib.sha256(payload).hexdigest()[:digits]
        return PretrainedFile(network="resnet18", file="a.pth", sha256=sha256)

    return make


PAYLOAD = bytes(range(256)) * 9000
BROKEN = r"broke off|incomplete|more expected"


def test_a_download_is_verified_and_kept(public, tmp_path):
    with Server(PAYLOAD) as server:
        weights = public(server, PAYLOAD)
        assert location(weights, tmp_path) == "not downloaded"
        path = local_file(weights, tmp_path)
        assert path.read_bytes() == PAYLOAD
        assert local_file(weights, tmp_path) == path
        assert server.asked == [""]
    assert location(weights, tmp_path) == "cache"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_a_download_that_broke_off_goes_on_where_it_was(public, tmp_path):
    with Server(PAYLOAD, breaks=1) as server:
        weights = public(server, PAYLOAD, digits=8)
        with pytest.raises(
            WeightsError, match=r"broke off|incomplete|more expected"
        ) as told:
            download(weights, tmp_path / "a.pth")
        assert not (tmp_path / "a.pth").exists()
        assert "run the command again to continue the download" in told.value.fix
        assert (tmp_path / f"a.pth{PARTIAL}").stat().st_size == len(PAYLOAD) // 2
        assert download(weights, tmp_path / "a.pth").read_bytes() == PAYLOAD
        assert server.asked == ["", f"bytes={len(PAYLOAD) // 2}-"]


def test_two_at_once_fetch_once(public, tmp_path):
    """The second waits for the first, and finds what it has fetched."""
    with Server(PAYLOAD) as server, ThreadPoolExecutor(4) as pool:
        weights = public(server, PAYLOAD)
        paths = [tmp_path / "a.pth"] * 4
        found = list(pool.map(download, [weights] * 4, paths))
        assert found == paths
        assert paths[0].read_bytes() == PAYLOAD
        assert server.asked == [""]


def test_an_empty_answer_is_no_file(public, tmp_path):
    with Server(b"", ranges=False) as server:
        server.server.RequestHandlerClass.do_GET = lambda self: (
            self.send_response(200),
            self.send_header("Content-Length", "0"),
            self.end_headers(),
        )
        with pytest.raises(WeightsError, match=r"the download is not a\.pth"):
            download(public(server, PAYLOAD), tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_go_on_is_asked_for_all(public, tmp_path):
    (tmp_path / f"a.pth{PARTIAL}").write_bytes(PAYLOAD[:100])
    with Server(PAYLOAD, ranges=False) as server:
        path = download(public(server, PAYLOAD), tmp_path / "a.pth")
        assert path.read_bytes() == PAYLOAD


def test_a_whole_part_needs_no_more_bytes(public, tmp_path):
    (tmp_path / f"a.pth{PARTIAL}").write_bytes(PAYLOAD)
    with Server(PAYLOAD) as server:
        assert download(public(server, PAYLOAD), tmp_path / "a.pth").is_file()


def test_a_corrupt_download_is_refused_and_gone(public, tmp_path):
    wrong = PAYLOAD[:-1] + b"x"
    with Server(wrong) as server:
        weights = public(server, PAYLOAD)
        with pytest.raises(WeightsError, match="the download is not"):
            download(weights, tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_rotten_copy_in_the_cache_is_fetched_again(public, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"rotten")
    with Server(PAYLOAD) as server:
        assert local_file(public(server, PAYLOAD), tmp_path).read_bytes() == PAYLOAD


def test_offline_the_way_out_is_a_path(public, tmp_path):
    with Server(PAYLOAD) as server:
        weights = public(server, PAYLOAD)
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        download(weights, tmp_path / "a.pth")
    assert caught.value.fix.startswith("download a.pth by hand")
    assert "--pretrained PATH" in caught.value.fix
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WeightsError, match="no cache"):
        local_file(replace(weights, file="b.pth"), None)


def test_every_public_file_says_what_it_is():
    for name in PRETRAINED:
        file = PRETRAINED[name]
        assert file.url.startswith("https://")
        assert file.sha256[:8] in file.file
        assert len(file.mean) == len(file.std) == 3
