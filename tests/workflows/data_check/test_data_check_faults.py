"""Fault rows C1–C13 through `striate data check`: named, counted, nothing touched.

`check_folder` asserts for every row: the exit code, files = used + quarantined +
ignored, every file below the folder listed once, and the folder unchanged to the byte.
Each guard was taken out once to see its row go red: strict JPEG decoding, the limits
before decoding, `lacks_scans`, the PNG checksums, the plausibility of a header's
promise, the count of a GIF's images, the refusal of pipes, the break of link loops.
"""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from support.images import encoded, pil_image, snapshot, stripes, write_folder
from support.mutated_files import png

MEBIBYTE = 1 << 20


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", size=(24, 24))


@pytest.fixture
def put(photos):
    """Put files into the class `across`."""

    def call(**files):
        for name, payload in files.items():
            (photos / "across" / name).write_bytes(payload)

    return call


@pytest.fixture
def check_folder(striate, photos):
    """Check the folder; return {path: reason} of what is not used, and the JSON."""

    def call(code=1, *words):
        before = snapshot(photos)
        result = striate("data", "check", photos, "--json", "--near", "off", *words)
        assert snapshot(photos) == before
        assert (result.code, result.err) == (code, "")
        data = result.json
        assert data["file_count"] == len(data["files"])
        assert data["file_count"] == sum(
            data[k] for k in ("used", "quarantined", "ignored")
        )
        paths = [file["image_path"] for file in data["files"]]
        assert len(set(paths)) == len(paths)
        return {
            file["image_path"].removeprefix("across/"): file["reason"]
            for file in data["files"]
            if file["status"] != "used"
        }, data

    return call


def detail(data, name):
    return next(
        f["detail"] for f in data["files"] if f["image_path"] == f"across/{name}"
    )


def kinds(data, *tones):
    return [f["kind"] for f in data["findings"] if f["tone"] in tones]


def test_a_sound_set_is_good(check_folder):
    skipped, data = check_folder(code=0)
    assert (skipped, data["file_count"], kinds(data, "bad", "warning")) == ({}, 24, [])


def test_c1_what_is_no_image_is_named(check_folder, put):
    put(
        **{
            "zero.jpg": b"",
            "one.jpg": b"\xff",
            "head.png": b"\x89PNG\r\n\x1a\n",
            "text.jpg": b"just words",
            "drawing.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "page.jpg": b"<!DOCTYPE html><title>404</title>",
        }
    )
    skipped, data = check_folder()
    assert set(skipped.values()) == {"not-an-image"}
    assert len(skipped) == 6
    assert detail(data, "page.jpg") == "this is an HTML page"
    assert detail(data, "drawing.jpg") == "this is an SVG drawing"
    assert detail(data, "text.jpg") == "this is a text file"
    assert data["findings"][0]["what"] == ("6 files cannot be used: 6 not-an-image")


@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"], ids=["C2 cut", "C3 cut and ended"])
def test_c2_c3_half_jpegs(check_folder, put, tail):
    """400 of 400; Pillow alone takes all that carry an end marker."""
    options = [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}, {}]
    chance = np.random.default_rng(0)
    files = {}
    for number in range(400):
        whole = encoded(
            pil_image(stripes(number, number, 48, 48, 3)), "JPEG", **options[number % 4]
        )
        cut = int(chance.integers(4, len(whole) - 8))
        files[f"cut{number}.jpg"] = whole[:cut] + tail
    put(**files)
    skipped, _ = check_folder()
    assert skipped.keys() == files.keys()
    assert set(skipped.values()) == {"truncated"}


def test_c4_every_overwrite_after_a_scan_is_flagged(striate, photos, tmp_path):
    kinds_of = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP"}
    for number in range(100):
        suffix, kind = list(kinds_of.items())[number % 4]
        payload = encoded(pil_image(stripes(number, number, 32, 32, 3)), kind)
        (photos / f"down/late{number}.{suffix}").write_bytes(payload)
    scan = tmp_path / "scan.json"
    quick = ("data", "check", photos, "--near", "off", "--json")
    scan.write_text(striate(*quick).out)
    assert not [
        f
        for f in striate(*quick, "--since", scan).json["findings"]
        if f["kind"] in ("changed", "removed", "new")
    ]
    chance = np.random.default_rng(1)
    hurt = sorted((photos / "down").glob("late*"))
    for number, path in enumerate(hurt):
        payload = bytearray(path.read_bytes())
        start = int(chance.integers(len(payload) - 8))
        width = (1, 8, 64)[number % 3]
        new = bytes(64) if width == 64 else chance.bytes(width)
        if payload[start : start + width] == new[:width]:
            new = b"\x01" * width
        payload[start : start + width] = new[:width]
        path.write_bytes(payload)
    (photos / "across/00.png").unlink()
    (photos / "across/fresh.png").write_bytes(
        encoded(pil_image(stripes(0, 999, 24, 24)))
    )
    data = striate(*quick, "--since", scan).json
    texts = {f["kind"]: f for f in data["findings"]}
    changed = {file["image_path"] for file in texts["changed"]["files"]}
    assert changed == {f"down/{path.name}" for path in hurt}
    assert texts["changed"]["what"] == "100 files changed since the earlier check"
    assert [file["image_path"] for file in texts["removed"]["files"]] == [
        "across/00.png"
    ]
    assert [file["image_path"] for file in texts["new"]["files"]] == [
        "across/fresh.png"
    ]


def test_c6_bombs_are_refused_before_they_are_decoded(check_folder, put, photos):
    import struct
    import zlib

    text = b"key\0\1\0\0\0" + zlib.compress(b"\0" * (80 << 20), 9)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x4c\x01\x00"
    gif = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    put(
        **{
            "60000.png": png(60_000, 60_000),
            "144mp.png": png(12_000, 12_000),
            "flat.png": encoded(Image.new("1", (14_000, 14_000))),
            "wide.png": png(1, 65_500),
            "zero.png": png(0, 7),
            "promise.png": png(9_000, 9_000),
            "frames.gif": gif + frame * 100_000 + b";",
            "text.png": png(8, 8, (b"iTXt", text)),
        }
    )
    skipped, data = check_folder()
    assert skipped.pop("zero.png") in ("damaged", "not-an-image")
    assert set(skipped.values()) == {"too-large"}
    assert len(skipped) == 6
    assert "text.png" not in skipped  # its comment is never decompressed
    assert "9000×9000 pixels in a file of" in detail(data, "promise.png")
    assert "more than 10,000 images" in detail(data, "frames.gif")
    assert grown_by([photos / "across" / name for name in skipped]) < 64 * MEBIBYTE


def grown_by(paths) -> int:
    """How much a process of its own grows at most by looking at files, in bytes."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from striate.data.check.image_stats import UnusableFile, examine_file\n"
        "def peak():\n"
        "    for line in Path('/proc/self/status').read_text().splitlines():\n"
        "        if line.startswith('VmHWM'): return int(line.split()[1]) * 1024\n"
        "before = peak()\n"
        "results = [examine_file(Path(p)) for p in sys.argv[1:]]\n"
        "assert all(isinstance(r, UnusableFile) for r in results)\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_c7_depths(check_folder, put):
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    put(
        **{
            "deep.png": encoded(Image.fromarray(ramp)),
            "deep.tif": encoded(Image.fromarray(ramp), "TIFF"),
            "float.tif": encoded(Image.fromarray(ramp.astype(np.float32)), "TIFF"),
            "long.tif": encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
            "bits.png": encoded(Image.fromarray(np.eye(24, dtype=bool))),
        }
    )
    skipped, data = check_folder()
    assert skipped == {"float.tif": "unsupported", "long.tif": "unsupported"}
    assert "2 images: 16-bit values scaled to 8 bits" in [
        f["what"] for f in data["findings"]
    ]


def test_c8_modes(check_folder, put):
    color = pil_image(stripes(0, 9, 24, 24, channels=3))
    for mode in ("CMYK", "P", "LA", "RGBA", "1", "L", "LAB"):
        kind = "TIFF" if mode in ("CMYK", "LAB") else "PNG"
        put(
            **{f"mode-{mode}": encoded(color.convert("RGB").convert(mode), kind)}
            if mode != "LAB"
            else {"mode-LAB": encoded(Image.new("LAB", (24, 24), (90, 5, 5)), kind)}
        )
    put(**{"four.jpg": encoded(color.convert("CMYK"), "JPEG")})
    skipped, data = check_folder()
    assert skipped == {}
    texts = [f["what"] for f in data["findings"]]
    assert "2 images: CMYK converted to RGB" in texts
    assert "2 images: transparent pixels became white" in texts


def test_c9_bad_exif_warns_and_upright_images_say_so(check_folder, put):
    good = Image.Exif()
    good[0x0112] = 6
    put(
        **{
            "turned.jpg": encoded(pil_image(stripes(0, 8, 24, 24)), "JPEG", exif=good),
            "bad.jpg": encoded(
                pil_image(stripes(0, 7, 24, 24)), "JPEG", exif=b"Exif\0\0garbage!"
            ),
            "huge.png": encoded(
                pil_image(stripes(0, 6, 24, 24)), exif=b"Exif\0\0" + b"x" * 500_000
            ),
        }
    )
    skipped, data = check_folder()
    assert skipped == {}
    texts = {f["kind"]: f for f in data["findings"]}
    assert texts["exif"]["tone"] == "warning"
    assert texts["exif"]["what"] == "2 images: the EXIF data is unreadable"
    assert texts["rule"]["what"] == "1 image: rotated by EXIF orientation"


def test_c10_of_several_images_the_first_counts_and_is_listed(check_folder, put):
    frames = [pil_image(stripes(0, k, 24, 24, 3)) for k in range(3)]
    more = {"save_all": True, "append_images": frames[1:]}
    names = {"a.gif": "GIF", "b.webp": "WEBP", "c.png": "PNG", "d.tif": "TIFF"}
    put(**{n: encoded(frames[0], kind, **more) for n, kind in names.items()})
    put(**{"e.jpg": encoded(frames[0], "MPO", **more)})
    skipped, data = check_folder()
    assert skipped == {}
    several = next(
        f for f in data["findings"] if "first image of the file" in f["what"]
    )
    assert several["tone"] == "note"
    assert [g["image_paths"] for g in several["groups"]] == [
        [f"across/{name}"] for name in ("a.gif", "b.webp", "c.png", "d.tif", "e.jpg")
    ]
    assert {g["note"] for g in several["groups"]} == {
        "only the first of 3 images is used"
    }


def test_c11_content_decides_not_the_name(check_folder, put):
    jpeg = [encoded(pil_image(stripes(0, k, 24, 24)), "JPEG") for k in range(4)]
    put(**{"A.JPG": jpeg[0], "b.jfif": jpeg[1], "none": jpeg[2], "wrong.png": jpeg[3]})
    put(**{"photo.avif": b"\0\0\0\x18ftypavif" + bytes(20)})
    skipped, data = check_folder()
    assert skipped == {"photo.avif": "not-an-image"}
    assert "AVIF" in detail(data, "photo.avif")
    assert data["used"] == 28


def test_c12_names_of_every_kind(check_folder, striate, photos, put):
    names = [
        "🐈.png", "שלום.png", "line\nbreak.png", "-leading.png", "CON.png",
        "a" * 251 + ".png", "[bold]x.png", os.fsdecode(b"caf\xe9.png"),
        "e\u0301.png", "\u00e9.png",
    ]  # fmt: skip
    put(
        **{
            n: encoded(pil_image(stripes(0, 50 + k, 24, 24)))
            for k, n in enumerate(names)
        }
    )
    for folder in (".ipynb_checkpoints", "__MACOSX"):
        write_folder(photos / folder, classes=["across"], count=1)
    put(**{"Thumbs.db": b"x"})
    skipped, data = check_folder(code=0)
    assert data["used"] == 34
    assert skipped == {
        ".ipynb_checkpoints": "hidden",
        "__MACOSX": "system-file",
        "Thumbs.db": "system-file",
    }
    assert list(data["classes"]) == ["across", "down"]
    page = striate("data", "check", photos, "--html", "page.html", "--near", "off")
    assert page.code == 0


def test_c13_links_pipes_sockets(check_folder, photos, tmp_path, monkeypatch):
    outside = tmp_path / "outside.png"
    pil_image(stripes(0, 50, 24, 24)).save(outside)
    across = photos / "across"
    (across / "outside.png").symlink_to(outside)
    (across / "gone.png").symlink_to(tmp_path / "gone.png")
    (across / "here").symlink_to(".")
    os.mkfifo(across / "pipe.png")
    monkeypatch.chdir(across)
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.png")
        skipped, data = check_folder()
    assert skipped == {
        "gone.png": "dangling-link",
        "here": "link-loop",
        "pipe.png": "not-a-file",
        "socket.png": "not-a-file",
    }
    assert data["used"] == 25


def test_c13_a_file_that_may_not_be_read(check_folder, photos, monkeypatch):
    """Root reads mode 000 all the same; a path through a file nobody can read."""
    target = photos / "across/00.png"
    target.unlink()
    target.symlink_to("/proc/self/mem")  # regular to `stat`, refuses to be read
    skipped, _ = check_folder()
    assert skipped["00.png"] in ("unreadable", "not-an-image")


def test_c13_files_that_vanish_while_it_looks(striate, photos, monkeypatch):
    from striate.data.check import scan as scan

    real = scan.examine_files

    def late(paths, **options):
        paths[0].unlink()
        for path in (photos / "down").iterdir():
            path.unlink()
        (photos / "down").rmdir()
        return real(paths, **options)

    monkeypatch.setattr(scan, "examine_files", late)
    result = striate("data", "check", photos, "--json", "--near", "off")
    assert result.code == 1
    assert result.json["quarantined"] == 13
    assert {f["reason"] for f in result.json["files"] if f["status"] != "used"} == {
        "missing"
    }
