"""A bundle is read as it was written, and only if every byte is right."""

import errno
import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from striate.core.errors import RunError, StorageError
from striate.exporters.bundle.arrays import arrays_from_bytes, arrays_to_bytes
from striate.exporters.bundle.check_bundle import check_bundle
from striate.exporters.bundle.errors import BundleError
from striate.exporters.bundle.read import open_bundle
from striate.exporters.bundle.stored_zip import StoredZip, stored_zip
from striate.exporters.bundle.strict_json import json_from_bytes, json_to_bytes
from striate.exporters.bundle.write import bundle_bytes, write_bundle
from striate.exporters.graph_network import GraphNetwork
from support.images import snapshot
from support.small_bundles import small_contents, small_graph

PAYLOAD = bundle_bytes(small_contents())


def written(tmp_path, **changes):
    path = tmp_path / "cat.striate"
    write_bundle(small_contents(**changes), path)
    return path


def test_a_bundle_is_read_as_it_was_written(tmp_path):
    contents = small_contents()
    bundle = open_bundle(written(tmp_path))
    assert bundle.graph.as_dict() == contents.graph.as_dict()
    assert bundle.graph.constants.keys() == contents.graph.constants.keys()
    for name, value in contents.graph.constants.items():
        assert np.array_equal(bundle.graph.constants[name], value)
    assert bundle.preprocess == contents.preprocess
    assert bundle.classes == contents.classes
    assert bundle.calibration == contents.calibration
    assert bundle.certificate == contents.certificate
    assert bundle.provenance == contents.provenance
    assert bundle.card == contents.card
    assert bundle.golden_names == ["00.jpg", "01.jpg"]
    assert bundle.golden_image("01.jpg") == b"\xff\xd8second"
    assert np.array_equal(bundle.golden_arrays["logits"], np.ones((2, 2)))
    assert bundle.target_names == ["model.onnx", "web/index.html"]
    assert bundle.target("web/index.html") == b"<html>"
    assert bundle.manifest["versions"] == {"striate": "0.1.0"}
    assert "2 classes" in repr(bundle)


def test_the_same_contents_give_the_same_bytes(tmp_path):
    path = written(tmp_path)
    assert path.read_bytes() == PAYLOAD
    images = small_contents().golden_images
    other = small_contents(golden_images=dict(reversed(images.items())))
    assert bundle_bytes(other) == PAYLOAD


def test_other_programs_read_it(tmp_path):
    with zipfile.ZipFile(written(tmp_path)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        weights = load_arrays(archive.read("weights.safetensors"))
    assert weights.keys() == small_graph().constants.keys()


def test_the_network_of_a_bundle_computes_the_same(tmp_path):
    image = torch.rand(3, 1, 6, 6)
    graph = open_bundle(written(tmp_path)).graph
    logits = GraphNetwork(graph)(image)
    assert torch.equal(logits, GraphNetwork(small_graph())(image))


def test_reading_needs_no_torch():
    """The server reads bundles without torch."""
    code = (
        "import sys\n"
        "import striate.exporters.bundle.read, striate.exporters.bundle.minisign\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_all_entries_are_extracted(tmp_path):
    bundle = open_bundle(written(tmp_path))
    bundle.extract(tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert files == {name: bundle.read(name) for name in bundle.entry_names}
    assert os.listdir(tmp_path / "new") == ["out"]


def test_nothing_that_exists_is_replaced(tmp_path):
    path = written(tmp_path)
    with pytest.raises(RunError, match="already exists"):
        write_bundle(small_contents(), path)
    write_bundle(small_contents(card="new"), path, overwrite=True)
    bundle = open_bundle(path)
    assert bundle.card == "new"
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("", "link"):
        with pytest.raises(RunError, match="folder already exists"):
            bundle.extract(tmp_path / name)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = written(tmp_path)
    bundle, before = open_bundle(path), snapshot(tmp_path)
    written_bytes = []
    real_write = os.write

    def full(handle, payload):
        written_bytes.append(len(payload))
        if sum(written_bytes) > 3000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(handle, payload)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_bundle(small_contents(card="new"), path, overwrite=True)
    written_bytes.clear()
    with pytest.raises(StorageError, match="the disk is full"):
        bundle.extract(tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_a_file_that_changes_after_the_check_is_refused(tmp_path):
    path = written(tmp_path)
    bundle = open_bundle(path)
    path.write_bytes(bundle_bytes(small_contents(targets={"model.onnx": b"evil"})))
    with pytest.raises(BundleError, match=r"targets/model.onnx' has changed"):
        bundle.target("model.onnx")
    path.unlink()
    with pytest.raises(BundleError, match="cannot be read") as caught:
        bundle.extract(tmp_path / "out")
    assert caught.value.where == str(path)
    assert os.listdir(tmp_path) == []


def test_an_unknown_entry(tmp_path):
    with pytest.raises(BundleError, match="no entry 'targets/other'") as caught:
        open_bundle(written(tmp_path)).target("other")
    assert "targets/model.onnx" in caught.value.fix


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
def test_what_is_no_file(tmp_path, kind):
    path = tmp_path / "cat.striate"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.where == str(path)
    assert caught.value.fix


UNFIT = {
    "two classes for three outputs": {"classes": ("a", "b", "c")},
    "the same class twice": {"classes": ("a", "a")},
    "no golden images": {"golden_images": {}},
    "rows of golden arrays": {
        "golden_arrays": {"inputs": np.zeros((3, 1, 6, 6), np.float32)}
    },
    "a type without a name": {
        "golden_arrays": {"inputs": np.zeros((2, 1, 6, 6), np.complex64)}
    },
    "a path that leaves the folder": {"targets": {"../model.onnx": b""}},
    "NaN in the certificate": {"certificate": {"max_difference": float("nan")}},
    "a terminal's control characters": {"card": "\x1b[2Jnice"},
    "a NaN weight": {
        "graph": small_graph().with_nodes(
            small_graph().nodes,
            {
                "c.weight": np.full((4, 1, 3, 3), np.nan, np.float32),
                "fc.weight": np.ones((2, 4), np.float32),
            },
        )
    },
}


@pytest.mark.parametrize("changes", UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_read_is_not_written(tmp_path, changes):
    with pytest.raises(BundleError):
        write_bundle(small_contents(**changes), tmp_path / "cat.striate")
    assert os.listdir(tmp_path) == []


def test_nan_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "striate.exporters.bundle.write.refuse_nonfinite", lambda *_: None
    )
    path = written(tmp_path, **UNFIT["a NaN weight"])
    with pytest.raises(BundleError, match=r"weights.safetensors: array 'c.weight'"):
        _ = open_bundle(path).graph


@given(st.integers(0, len(PAYLOAD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused(position, difference):
    damaged = bytearray(PAYLOAD)
    damaged[position] ^= difference
    with pytest.raises(BundleError):
        check_bundle(io.BytesIO(damaged), len(damaged))


def test_every_changed_bit_of_the_headers_is_refused():
    """What is no content: here no hash helps."""
    archive = StoredZip(io.BytesIO(PAYLOAD), len(PAYLOAD))
    inside = {
        position
        for entry in archive.entries
        for position in range(entry.start, entry.start + entry.size)
    }
    outside = sorted({*range(len(PAYLOAD))} - inside)
    assert len(outside) > 1000
    for position in outside:
        damaged = bytearray(PAYLOAD)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(BundleError):
            check_bundle(io.BytesIO(damaged), len(damaged))


@given(st.integers(0, len(PAYLOAD) - 1))
def test_a_file_that_is_cut_short_is_refused(length):
    with pytest.raises(BundleError):
        check_bundle(io.BytesIO(PAYLOAD[:length]), length)


@given(st.binary(min_size=1, max_size=40), st.booleans())
def test_data_before_or_after_it_is_refused(data, before):
    payload = data + PAYLOAD if before else PAYLOAD + data
    with pytest.raises(BundleError):
        check_bundle(io.BytesIO(payload), len(payload))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXTS | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=20)
@given(VALUES)
def test_json_values_survive(value):
    assert json_from_bytes(json_to_bytes(value), "a.json") == value


def test_undecodable_class_names_survive():
    payload = json_to_bytes(["\udcff"])
    assert payload.isascii()
    assert json_from_bytes(payload, "a.json") == ["\udcff"]


ARRAYS = st.dictionaries(
    TEXTS,
    st.sampled_from(("<f4", "<f8", "<i8", "<i4", "i1", "u1", "?", ">f4")).flatmap(
        lambda dtype: st.lists(st.integers(1, 3), max_size=3).map(
            lambda shape: (
                np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
            )
        )
    ),
    min_size=1,
    max_size=4,
)


@given(ARRAYS)
def test_arrays_survive(arrays):
    payload = arrays_to_bytes(arrays)
    for loaded in (arrays_from_bytes(payload, "a"), load_arrays(payload)):
        assert loaded.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype.newbyteorder("<")


def test_arrays_of_other_programs_are_read():
    arrays = {"b": np.ones((2, 3), np.float32), "a": np.arange(5)}
    loaded = arrays_from_bytes(save_arrays(arrays), "a")
    assert np.array_equal(loaded["a"], arrays["a"])


NAMES = st.from_regex(r"[a-y]{1,5}z?|[a-y]{1,5}zz/[a-z]{1,3}", fullmatch=True)


@given(st.dictionaries(NAMES, st.binary(max_size=20), min_size=1, max_size=4))
def test_zip_files_survive(files):
    payload = stored_zip(list(files.items()))
    archive = StoredZip(io.BytesIO(payload), len(payload))
    archive.check()
    assert {e.name: archive.read(e) for e in archive.entries} == files
    with zipfile.ZipFile(io.BytesIO(payload)) as other:
        assert {name: other.read(name) for name in other.namelist()} == files
