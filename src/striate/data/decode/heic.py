"""HEIC photographs of phones, by the optional package pi-heif (`striate[heic]`)."""

from __future__ import annotations

import importlib
import io
from typing import Any

from striate.data.decode.file_bytes import UndecodableError

# pillow-heif has the same functions, and an encoder with a stricter license.
PACKAGES = ("pi_heif", "pillow_heif")
NEEDS_PACKAGE = "needs-package"  # reason of a file that another package can decode
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def is_heic(payload: bytes) -> bool:
    """Return whether a file is a HEIC photograph, from its first bytes.

    Example:
        >>> is_heic(b"    ftypheic"), is_heic(b"    ftypmp42")
        (True, False)
    """
    brands = payload[8:64]
    return (
        payload[4:8] == b"ftyp" and brands[:4] in _BRANDS and b"avif" not in brands[:40]
    )


def open_heic(payload: bytes) -> Any:
    """Open a HEIC photograph as a PIL image, without decoding its pixels.

    Raises:
        UndecodableError: The package is missing.
    """
    for package in PACKAGES:
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        return module.HeifImageFile(io.BytesIO(payload))
    detail = "a HEIC photograph; install the decoder: pip install 'striate[heic]'"
    raise UndecodableError(NEEDS_PACKAGE, detail)
