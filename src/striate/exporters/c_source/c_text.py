"""Texts of C source: strings, identifiers, numbers and the bytes of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

_BYTES_PER_LINE = 64
_CHUNK = 1 << 20  # bytes of weights that are written at once
_CHUNK = 1 << 20  # bytes of weights that are written at once
_PLAIN = {
    byte: chr(byte)
    for byte in range(32, 127)
    if chr(byte) not in '"\\?'  # ?? would begin a trigraph
}


def c_identifier(name: str) -> str:
    """Return the beginning of the names of C functions for a network.

    Example:
        >>> c_identifier("resnet-18 v2"), c_identifier("18")
        ('resnet_18_v2', 'model_18')
    """
    text = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_")
    if not text or text[0].isdigit():
        return f"model_{text}".rstrip("_")
    return text


def c_bytes(payload: bytes) -> str:
    r"""Return the content of a C string literal with these bytes.

    Example:
        >>> print(c_bytes(b'a"\x00' + b"1"))
        a\"\0001
    """
    parts = []
    for index, byte in enumerate(payload):
        if byte in _PLAIN:
            parts.append(_PLAIN[byte])
        elif byte in b'"\\?':
            parts.append("\\" + chr(byte))
        else:  # a digit after a short octal number would belong to it
            digit = payload[index + 1 : index + 2].isdigit()
            parts.append(f"\\{byte:03o}" if digit else f"\\{byte:o}")
    return "".join(parts)


def c_string(text: str) -> str:
    r"""Return a C string literal in UTF-8.

    Example:
        >>> print(c_string('say "ä"'))
        "say \"\303\244\""
    """
    return f'"{c_bytes(text.encode("utf-8", "surrogatepass"))}"'


def c_comment(text: str) -> str:
    """Return a text that may stand in a comment of C.

    Example:
        >>> c_comment("a */ b")
        'a * / b'
    """
    plain = "".join(c if 32 <= ord(c) < 127 and c not in "\\?" else "_" for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")


def c_float(value: float) -> str:
    """Return a float literal with exactly this value.

    Example:
        >>> c_float(0.1), c_float(3.0), c_float(-math.inf)
        ('0x1.99999a0000000p-4f', '3.0f', '-INFINITY')
    """
    number = float(np.float32(value))
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    if math.isnan(number):
        return "NAN"
    if number == round(number) and abs(number) < 1e6:
        return f"{number:.1f}f"
    return f"{number.hex()}f"


def c_double(value: float) -> str:
    """Return a double literal with exactly this value.

    Example:
        >>> c_double(1.5)
        '0x1.8000000000000p+0'
    """
    return float(value).hex()


def c_array(values: Sequence[object]) -> str:
    """Return an initializer, broken into lines.

    Example:
        >>> c_array([1, 2])
        '{1, 2}'
    """
    texts = [str(value) for value in values]
    if len(texts) <= 8:
        return "{" + ", ".join(texts) + "}"
    lines = [", ".join(texts[i : i + 8]) for i in range(0, len(texts), 8)]
    return "{\n    " + ",\n    ".join(lines) + "}"


def weights_literal(payload: bytes) -> str:
    """Return string literals with the bytes of the weights, one on each line.

    Example:
        >>> print(weights_literal(b"ab"))
        "ab"
    """
    length = len(payload) // _BYTES_PER_LINE * _BYTES_PER_LINE
    lines = [
        _literal_lines(np.frombuffer(payload[i : min(i + _CHUNK, length)], np.uint8))
        for i in range(0, length, _CHUNK)
    ]
    rest = payload[length:]
    return "".join(lines) + (f'"{c_bytes(rest)}"' if rest or not length else "")


def _literal_lines(values: np.ndarray) -> str:
    """Return whole lines: the same texts as `c_bytes`, for all values at once."""
    digits = (values >= ord("0")) & (values <= ord("9"))
    before_digit = np.append(digits[1:], False)
    texts = _TEXTS[before_digit.astype(np.intp), values]
    rows = texts.reshape(-1, _BYTES_PER_LINE * 4)
    start = np.full((len(rows), 1), ord('"'), np.uint8)
    end = np.tile(np.frombuffer(b'"\n', np.uint8), (len(rows), 1))
    flat = np.concatenate([start, rows, end], axis=1).reshape(-1)
    return bytes(flat[flat != 0]).decode("ascii")


def _byte_texts() -> np.ndarray:
    """Return the text of each byte, (2, 256, 4); index 1: a digit follows."""
    rows = [
        [c_bytes(bytes([b]) + follow) for b in range(256)] for follow in (b"", b"0")
    ]
    rows[1] = [text.removesuffix("0") for text in rows[1]]
    texts = np.array(rows, "S4")
    return texts.view(np.uint8).reshape(2, 256, 4)


_TEXTS = _byte_texts()
