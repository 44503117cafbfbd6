"""Bundles that attack the reader: refused fast, with little memory, without traces."""

import hashlib
import io
import json
import os
import stat
import struct
import time
import tracemalloc
import zipfile
import zlib
from itertools import pairwise

import pytest

from striate.exporters.bundle.check_bundle import FORMAT, check_bundle
from striate.exporters.bundle.errors import BundleError
from striate.exporters.bundle.read import open_bundle
from striate.exporters.bundle.stored_zip import StoredZip, stored_zip
from striate.exporters.bundle.write import bundle_bytes
from support.images import snapshot
from support.small_bundles import small_contents

SOUND = bundle_bytes(small_contents())
FIXED_TIME = 1980, 1, 1, 0, 0, 0


def files(**changes) -> dict[str, bytes]:
    """The files of a sound bundle, without the manifest; None removes a file."""
    archive = StoredZip(io.BytesIO(SOUND), len(SOUND))
    sound = {entry.name: archive.read(entry) for entry in archive.entries[1:]}
    return sound | changes


def manifest(contents, **changes) -> bytes:
    entries = [
        {"name": name, "size": len(p), "sha256": hashlib.sha256(p).hexdigest()}
        for name, p in contents
    ]
    fields = {"format": FORMAT, "entries": entries, "versions": {}}
    return json.dumps(fields | changes).encode()


def sealed(changes, **fields) -> bytes:
    """A bundle with changed files whose manifest and headers are right."""
    contents = [(k, v) for k, v in files(**changes).items() if v is not None]
    return stored_zip([("manifest.json", manifest(contents, **fields)), *contents])


def foreign(change=lambda info: info, extra=(), method=zipfile.ZIP_STORED) -> bytes:
    """A bundle by another zip program, with a changed or an additional entry."""
    buffer = io.BytesIO()
    everything = [("manifest.json", manifest(files().items())), *files().items()]
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, payload in [*everything, *extra]:
            info = zipfile.ZipInfo(name, FIXED_TIME)
            info.external_attr, info.compress_type = 0o100644 << 16, method
            if name == "card.md":
                change(info)
            archive.writestr(info, payload)
    return buffer.getvalue()


def added(name, payload=b"evil") -> bytes:
    return foreign(extra=[(name, payload)])


def raw_added(name: bytes) -> bytes:
    """An additional entry whose name no zip program would write."""
    stand_in = b"x" * len(name)
    return added(stand_in.decode()).replace(stand_in, name)


def linked(mode: int) -> bytes:
    def change(info):
        info.external_attr = (mode | 0o777) << 16

    return foreign(change)


def patched(offset, value, fmt="<I", payload=SOUND) -> bytes:
    """A changed number in the end record (offset below 0) or at an offset."""
    position = offset if offset >= 0 else len(payload) + offset
    damaged = bytearray(payload)
    struct.pack_into(fmt, damaged, position, value)
    return bytes(damaged)


def central(offset, value, fmt="<H", name=b"card.md") -> bytes:
    """A changed number in the directory's record of an entry."""
    position = SOUND.rindex(name) - 46 + offset
    return patched(position, value, fmt)


def encrypted() -> bytes:
    local = SOUND.index(b"card.md# Cats") - 30
    damaged = bytearray(central(8, 1))
    damaged[local + 6] |= 1
    return bytes(damaged)


def sizes(size: int) -> bytes:
    """Both headers of an entry lie about its size in the same way."""
    local = SOUND.index(b"card.md# Cats") - 30
    payload = patched(local + 18, size)
    payload = patched(local + 22, size, payload=payload)
    position = SOUND.rindex(b"card.md") - 46
    payload = patched(position + 20, size, payload=payload)
    return patched(position + 24, size, payload=payload)


def many(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"targets/{number}"), b"")
    return buffer.getvalue()


def overlapping() -> bytes:
    """Two records of the directory give the same bytes to two entries."""
    archive = StoredZip(io.BytesIO(SOUND), len(SOUND))
    weights = next(e for e in archive.entries if e.name == "weights.safetensors")
    return central(42, weights.offset, "<I")


def disagreeing() -> bytes:
    """The header before the contents has another name than the directory."""
    return SOUND.replace(b"card.md# Cats", b"card.mx# Cats")


def gap() -> bytes:
    archive = StoredZip(io.BytesIO(SOUND), len(SOUND))
    last = archive.entries[-1]
    return SOUND[: last.start] + b"evil" + SOUND[last.start :]


def with_json(name: str, text: str | bytes) -> bytes:
    payload = text.encode() if isinstance(text, str) else text
    return sealed({name: payload})


def network(change) -> bytes:
    fields = json.loads(files()["network.json"])
    fields = change(fields) or fields
    return with_json("network.json", json.dumps(fields))


def node(index, **changes):
    """Change a node of the network."""
    return network(lambda fields: fields["nodes"][index].update(changes))


def attrs(index, **changes):
    return network(lambda fields: fields["nodes"][index]["attrs"].update(changes))


def shape(name, value):
    return network(lambda fields: fields["shapes"].update({name: value}))


def a_million_nodes() -> bytes:
    return with_json("network.json", '{"nodes":[' + "{}," * 1_000_000 + "{}]}")


def a_chain(count) -> bytes:
    def change(fields):
        names = ["input", *(str(n) for n in range(count)), "logits"]
        fields["nodes"] = [
            {"kind": "relu", "inputs": [a], "output": b, "attrs": {}, "layer": ""}
            for a, b in pairwise(names)
        ]

    return network(change)


def weights(header, data=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    return sealed({"weights.safetensors": struct.pack("<Q", length) + text + data})


def array(start, end, dims, dtype="F32"):
    return {"dtype": dtype, "shape": dims, "data_offsets": [start, end]}


CONV = array(0, 144, [4, 1, 3, 3])
NO_BUNDLE, PATH = "no bundle", "not a plain relative path"
CASES = {
    # the file
    "empty": (lambda: b"", NO_BUNDLE),
    "a pickle": (lambda: b"\x80\x04\x95" + bytes(40), NO_BUNDLE),
    "zeros": (lambda: bytes(5000), NO_BUNDLE),
    "an empty zip": (lambda: b"PK\5\6" + bytes(18), NO_BUNDLE),
    "data before it": (lambda: b"#!/bin/sh\n" + SOUND, NO_BUNDLE),
    "data after it": (lambda: SOUND + b"evil", "cut short, or other data"),
    "a zip behind it": (lambda: SOUND + many(3), "directory is not at its end"),
    "a comment": (lambda: patched(-2, 4, "<H") + b"evil", "cut short"),
    "cut short": (lambda: SOUND[: len(SOUND) // 2], "cut short"),
    "the last byte is missing": (lambda: SOUND[:-1], "cut short"),
    "a gap before the last entry": (gap, "not at its end"),
    # entries
    "traversal": (lambda: added("../../evil"), PATH),
    "traversal inside": (lambda: added("targets/../../evil"), PATH),
    "traversal by backslash": (lambda: raw_added(b"targets\\..\\..\\evil"), PATH),
    "absolute path": (lambda: added("/root/evil"), PATH),
    "drive": (lambda: added("C:/evil"), PATH),
    "Windows device": (lambda: added("targets/nul.txt"), PATH),
    "a folder": (lambda: added("targets/x/"), PATH),
    "hidden file": (lambda: added("targets/.profile"), PATH),
    "zero byte": (lambda: raw_added(b"targets/a\0.png"), PATH),
    "letters in NFC": (lambda: added("targets/\u00e9"), PATH),
    "letters in NFD": (lambda: added("targets/e\u0301"), PATH),
    "right-to-left mark": (lambda: added("targets/\u202egnp.exe"), PATH),
    "long name": (lambda: added("targets/" + "a" * 30_000), "not valid|too long"),
    "a file is a folder": (lambda: added("targets/web"), "same file"),
    "case collision": (lambda: added("targets/MODEL.onnx"), "same file"),
    "symbolic link": (lambda: linked(stat.S_IFLNK), "not a file"),
    "block device": (lambda: linked(stat.S_IFBLK), "not a file"),
    "pipe": (lambda: linked(stat.S_IFIFO), "not a file"),
    "duplicate name": (
        lambda: raw_added(b"targets/model.onnx"),
        "same file",
    ),
    "encrypted": (encrypted, "encrypted"),
    "compressed": (lambda: foreign(method=zipfile.ZIP_DEFLATED), "is compressed"),
    "bzip2": (lambda: foreign(method=zipfile.ZIP_BZIP2), "is compressed"),
    "unknown method": (lambda: central(10, 99), "is compressed"),
    "file comment": (lambda: central(32, 5), "not valid|header"),
    "another time": (lambda: central(12, 7), "header that no bundle has"),
    "another system": (lambda: central(4, 0), "header that no bundle has"),
    "a million members": (lambda: patched(-14, 65_535, "<H"), "entries"),
    "two counts": (lambda: patched(-12, 65_535, "<H"), "entries"),
    "600 members": (lambda: many(600), "600 entries"),
    "overlap": (overlapping, "overlaps"),
    "other name in the local header": (disagreeing, "differs from the directory"),
    "size lies: huge": (lambda: sizes(2**31), "overlaps|gap"),
    "size lies: small": (lambda: sizes(1), "overlaps|gap"),
    "two sizes": (lambda: central(20, 9, "<I"), "two sizes"),
    "zip64": (lambda: central(24, 2**32 - 1, "<I"), "zip64"),
    "zip64 directory": (lambda: patched(-6, 2**32 - 1), "directory"),
    "another checksum": (lambda: central(16, 1, "<I"), "differs from"),
    # the manifest
    "no manifest": (lambda: stored_zip(list(files().items())), "first entry"),
    "newer": (
        lambda: sealed({}, format=2, versions={"striate": "9.1"}, more=1),
        r"newer striate 9\.1: format 2",
    ),
    "newer with unknown files": (
        lambda: stored_zip([("manifest.json", b'{"format": 3}'), ("brain.bin", b"")]),
        "made by a newer striate",
    ),
    "format is a text": (lambda: sealed({}, format="2"), "no format"),
    "format 0": (lambda: sealed({}, format=0), "no format"),
    "unknown key": (lambda: sealed({}, hook="evil"), "other keys"),
    "unlisted entry": (lambda: foreign(extra=[("targets/z", b"")]), "does not list"),
    "unknown file": (lambda: sealed({"setup.py": b""}), "'setup.py' is not a file"),
    "missing file": (lambda: sealed({"classes.json": None}), "classes.json is missing"),
    "wrong hash": (
        lambda: sealed_with_wrong_hash(),
        "'targets/model.onnx' is damaged: its hash",
    ),
    "wrong checksum": (lambda: changed_contents(), "checksum"),
    # JSON
    "NaN": (lambda: with_json("calibration.json", '{"temperature": NaN}'), "NaN"),
    "infinite": (lambda: with_json("calibration.json", '{"t": -Infinity}'), "Infin"),
    "1e999": (lambda: with_json("calibration.json", '{"t": 1e999}'), "too large"),
    "long number": (
        lambda: with_json("calibration.json", '{"t": ' + "9" * 400_000 + "}"),
        "not valid",
    ),
    "duplicate key": (lambda: with_json("classes.json", '{"a":1,"a":2}'), "twice"),
    "a list": (lambda: with_json("classes.json", "[]"), "no object"),
    "deep": (lambda: with_json("classes.json", "[" * 4000), "too many levels"),
    "no UTF-8": (lambda: with_json("classes.json", b'{"a": "\xff"}'), "not valid"),
    "UTF-16": (
        lambda: with_json("classes.json", '{"names": []}'.encode("utf-16")),
        "not valid",
    ),
    "large": (lambda: with_json("classes.json", " " * 2**20), "1,048,576 bytes"),
    "many objects": (
        lambda: with_json("classes.json", '{"a":[' + "{}," * 170_000 + "{}]}"),
        "too many items",
    ),
    "many keys": (
        lambda: with_json(
            "classes.json", "{" + ",".join(f'"{n}":0' for n in range(50_000)) + "}"
        ),
        "no class names",
    ),
    "unknown resize": (
        lambda: with_json(
            "preprocess.json",
            files()["preprocess.json"].replace(b'"stretch"', b'["os.system"]'),
        ),
        "preprocess.json is not valid",
    ),
    "unknown setting": (
        lambda: with_json("preprocess.json", '{"__class__": "os.system"}'),
        "preprocess.json is not valid",
    ),
    "another image size": (
        lambda: with_json(
            "preprocess.json",
            files()["preprocess.json"].replace(b'"width": 6', b'"width": 7'),
        ),
        "the network needs",
    ),
    "fractional image size": (
        lambda: with_json(
            "preprocess.json",
            files()["preprocess.json"].replace(b'"width": 6', b'"width": 6.0'),
        ),
        "not an integer",
    ),
    "control characters": (lambda: sealed({"card.md": b"\x1b]0;evil\7"}), "control"),
    "classes are numbers": (lambda: with_json("classes.json", '{"names":[1,2]}'), "no"),
    # weights
    "header of 8 EiB": (lambda: weights(b"{}", length=2**63), "not a valid safet"),
    "header longer than the file": (lambda: weights(b"{}", length=999), "not valid"),
    "no header": (lambda: sealed({"weights.safetensors": b"1234"}), "not a valid"),
    "header is no JSON": (lambda: weights(b"\x80\x04evil"), "not valid"),
    "a zip as weights": (lambda: sealed({"weights.safetensors": SOUND}), "not"),
    "100,000 arrays": (
        lambda: weights({str(n): CONV for n in range(11_000)}),
        "not valid|safetensors",
    ),
    "overlapping arrays": (lambda: weights({"a": CONV, "b": CONV}), "'b'"),
    "hole": (lambda: weights({"a": array(4, 148, [36])}), "'a'"),
    "array twice": (lambda: weights(b'{"a":1,"a":1}'), "twice"),
    "negative offset": (lambda: weights({"a": array(-4, 140, [36])}), "'a'"),
    "negative shape": (lambda: weights({"a": array(0, 16, [-2, -2])}), "'a'"),
    "shape overflow": (lambda: weights({"a": array(0, 0, [2**32, 2**32])}), "'a'"),
    "zero-size array": (lambda: weights({"a": array(0, 0, [0])}), "'a'"),
    "cut weights": (lambda: weights({"a": CONV}, bytes(143)), "bytes, its arrays"),
    "more weights": (lambda: weights({"a": CONV}, bytes(145)), "bytes, its arrays"),
    "unknown type": (lambda: weights({"a": array(0, 4, [1], "OBJECT")}), "'a'"),
    "metadata": (lambda: weights({"__metadata__": {"a": "b"}}), "__metadata__"),
    "missing weights": (
        lambda: weights({"c.weight": CONV}, bytes(144)),
        "'fc.weight' is read before",
    ),
    "unread weights": (
        lambda: weights(
            {
                "c.weight": CONV,
                "fc.weight": array(144, 176, [2, 4]),
                "x": array(176, 180, [1]),
            },
            bytes(180),
        ),
        "no operation reads x",
    ),
    "weights of another shape": (
        lambda: weights(
            {"c.weight": CONV, "fc.weight": array(144, 176, [4, 2])}, bytes(176)
        ),
        r"fc \(linear\)",
    ),
    # network
    "unknown operation": (lambda: node(1, kind="os.system"), "is called 'os.system'"),
    "operation is a list": (lambda: node(1, kind=["relu"]), "name"),
    "cycle": (lambda: node(0, inputs=["b", "c.weight"]), "read before"),
    "reads itself": (lambda: node(1, inputs=["b"]), "read before"),
    "assigned twice": (lambda: node(1, output="a"), "twice"),
    "no inputs": (lambda: node(1, inputs=[]), "no inputs"),
    "too many inputs": (lambda: node(1, inputs=["a", "a"]), "2 inputs"),
    "long layer name": (lambda: node(1, layer="a" * 400), "too long"),
    "layer name with control characters": (lambda: node(1, layer="\x1b[2J"), "print"),
    "a million nodes": (a_million_nodes, "network.json is not valid"),
    "21,000 nodes": (lambda: a_chain(21_000), "operations|items"),
    "no nodes": (lambda: network(lambda f: f.update(nodes=[])), "operations"),
    "nodes are a number": (lambda: network(lambda f: f.update(nodes=7)), "operations"),
    "network is a list": (lambda: network(lambda f: [f]), "no object"),
    "unknown key of a node": (lambda: node(1, hook="os.system"), "keys"),
    "unknown attribute": (lambda: attrs(1, hook=1), "keys"),
    "missing attribute": (lambda: node(0, attrs={}), "keys"),
    "huge padding": (lambda: attrs(0, padding=[[2**62, 0], [0, 0]]), "padding"),
    "large padding": (
        lambda: attrs(0, padding=[[2**30, 2**30], [0, 0]]),
        r"c \(conv\)",
    ),
    "zero stride": (lambda: attrs(0, stride=[0, 1]), "stride"),
    "boolean stride": (lambda: attrs(0, stride=[True, True]), "stride"),
    "kernel above the image": (lambda: attrs(0, dilation=[9, 9]), r"c \(conv\)"),
    "groups": (lambda: attrs(0, groups=3), r"c \(conv\)"),
    "shape overflow in the network": (
        lambda: shape("b", [-1, 2**31 - 1, 2**31 - 1, 2**31 - 1]),
        "shape of 'b'",
    ),
    "huge image": (lambda: shape("input", [-1, 1, 2**15, 2**15]), "shape of 'input'"),
    "negative shape in the network": (lambda: shape("b", [-1, -4, 6, 6]), "of 'b'"),
    "wrong shape": (lambda: shape("b", [-1, 4, 6, 7]), "'b' has shape"),
    "shape is a text": (lambda: shape("b", "evil"), "shape of 'b'"),
    "another batch": (lambda: shape("input", [2, 1, 6, 6]), "shape of 'input'"),
    "missing shape": (lambda: network(lambda f: f["shapes"].clear()), "shapes"),
    "input of a constant's name": (
        lambda: network(lambda f: f.update(input="c.weight")),
        "twice",
    ),
    "unknown output": (lambda: network(lambda f: f.update(output="z")), "output 'z'"),
}


def sealed_with_wrong_hash() -> bytes:
    contents = list(files().items())
    other = [(k, b"evil" if k == "targets/model.onnx" else v) for k, v in contents]
    return stored_zip([("manifest.json", manifest(other)), *contents])


def changed_contents() -> bytes:
    """Contents and hash are changed, but not the checksums of the zip file."""
    return sealed({"targets/model.onnx": b"evil"}).replace(
        struct.pack("<I", zlib.crc32(b"evil")), struct.pack("<I", 7)
    )


def test_the_table_is_long_and_the_sound_bundle_is_sound():
    assert len(CASES) >= 40
    assert check_bundle(io.BytesIO(SOUND), len(SOUND)).classes == ("cat", "dög")
    resealed = sealed({})
    assert check_bundle(io.BytesIO(resealed), len(resealed)).card.startswith("# Cats")


@pytest.mark.parametrize("name", CASES)
def test_hostile_bundles_are_refused(tmp_path, name):
    make, reason = CASES[name]
    path = tmp_path / "evil.striate"
    path.write_bytes(make())
    before, canary = snapshot(tmp_path), sorted(os.listdir(tmp_path.parent))
    started = time.process_time()
    with pytest.raises(BundleError, match=reason) as caught:
        open_bundle(path)
    seconds = time.process_time() - started
    tracemalloc.start()  # makes everything several times as slow
    try:
        with pytest.raises(BundleError, match=reason):
            open_bundle(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 64 << 20
    assert caught.value.where == str(path)
    assert caught.value.fix
    assert len(str(caught.value)) < 1000
    assert str(caught.value).replace("\n", "").isprintable()
    assert snapshot(tmp_path) == before
    assert sorted(os.listdir(tmp_path.parent)) == canary


def test_a_sparse_file_of_four_gigabytes_is_refused(tmp_path):
    path = tmp_path / "evil.striate"
    path.write_bytes(SOUND)
    os.truncate(path, 2**32 + 10)
    started = time.process_time()
    with pytest.raises(BundleError, match="4,294,967,306 bytes"):
        open_bundle(path)
    os.truncate(path, 2**31)
    with pytest.raises(BundleError, match="cut short"):
        open_bundle(path)
    assert time.process_time() - started < 1
