"""HEIC photographs: decoded with the extra, otherwise refused with its name."""

import base64
import sys

import numpy as np
import pytest

from striate.data.decode import heic
from striate.data.decode.decode import decode, decode_with_info, read_header
from striate.data.decode.file_bytes import UndecodableError
from striate.data.load import load_data
from support.images import write_folder
from support.optional_packages import imported

# 40×24 pixels: red on the left, blue on the right, more green in the upper third.
HEIC = base64.b64decode(
    """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABw
aWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAAGMAAAAjaWlu
ZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBj
bwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMA
HroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQB
wXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAKAAA
AAEAAAAYAAAAAf///+gAAAAC////2AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAA
AQABBYECAwWEAAAAa21kYXQAAABfKAGvEyG2RGjlNU8N/SknwZNhVP4bLMRruml0qx5LQgsKYLeR
2rzcOq1rqeUOB7ALaCWXiWTq28xl6sTGson08ck5PH7cmm+x9MLbvpA05Er04VbhLhxwaNcHKWba
U4A=
"""
)


@pytest.fixture
def without_package(monkeypatch):
    for name in heic.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)


def test_the_missing_extra_is_named(without_package, refused, tmp_path):
    for read in (decode, read_header):
        with pytest.raises(UndecodableError, match=r"striate\[heic\]") as caught:
            read(HEIC)
        assert caught.value.reason == "needs-package"
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.heic").write_bytes(HEIC)
    message = refused(tmp_path / "photos")
    assert "2 needs-package" in message
    assert "pip install 'striate[heic]'" in message


def test_photographs_are_read_once_the_extra_is_installed(tmp_path, monkeypatch):
    """The file index does not remember that they could not be read."""
    imported("pi_heif")
    root = write_folder(tmp_path / "photos", channels=3, size=(24, 40))
    (root / "across/photo.heic").write_bytes(HEIC)
    monkeypatch.setattr("striate.data.scan.SMALL_SET", 0)
    monkeypatch.setattr("striate.data.file_index.MIN_AGE", 0)
    with monkeypatch.context() as patch:
        for name in heic.PACKAGES:
            patch.setitem(sys.modules, name, None)
        (skip,) = load_data(root).quarantined
        assert skip.reason == "needs-package"
    assert load_data(root).quarantined == ()


def test_pixels_and_size():
    imported("pi_heif")
    pixels, info = decode_with_info(HEIC)
    header = read_header(HEIC)
    assert (header.height, header.width, header.channels) == pixels.shape == (24, 40, 3)
    assert info.format == "HEIF"
    left, right = pixels[12:20, 4:16], pixels[12:20, 24:36]
    assert np.abs(left.mean((0, 1)) - (220, 0, 0)).max() < 12
    assert np.abs(right.mean((0, 1)) - (0, 0, 220)).max() < 12
    assert pixels[:6, 4:16, 1].mean() > 80


def test_damaged_photographs_are_refused():
    imported("pi_heif")
    for cut in (20, 200, 400, len(HEIC) - 40):
        with pytest.raises(UndecodableError):
            decode(HEIC[:cut])


def test_other_files_of_the_container_are_not_photographs():
    assert heic.is_heic(HEIC)
    assert not heic.is_heic(b"\0\0\0\x18ftypmif1\0\0\0\0avif")
    assert not heic.is_heic(b"\0\0\0\x18ftypisom")
