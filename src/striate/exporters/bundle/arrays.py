"""Arrays in safetensors format, without torch; the header is checked completely.

Format: header length (8 bytes), header in JSON, values without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.exporters.bundle.errors import DAMAGED, BundleError
from striate.exporters.bundle.strict_json import json_from_bytes

MAX_HEADER = 1 << 20  # bytes
MAX_ARRAYS = 20_000
MAX_RANK = 8
MAX_NAME = 300  # characters
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PREFIX = 8  # bytes of the header length


@dataclass(frozen=True)
class ArraySpec:
    """Type, shape and position of an array in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


def arrays_to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a safetensors file; equal arrays give the same bytes.

    Raises:
        BundleError: An array has a type that a bundle cannot hold.

    Example:
        >>> payload = arrays_to_bytes({"bias": np.ones(2, np.float32)})
        >>> arrays_from_bytes(payload, "weights.safetensors")
        {'bias': array([1., 1.], dtype=float32)}
    """
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in _NAMES or not array.size:
            shape = list(array.shape)
            raise BundleError(f"array {name!r} has type {array.dtype}, shape {shape}")
    # Wide types first, so that every array is aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, parts, position = {}, [], 0
    for name in order:
        array = arrays[name]
        dtype = array.dtype.newbyteorder("<")
        end = position + array.nbytes
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        parts.append(np.ascontiguousarray(array, dtype).tobytes())
        position = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(_PREFIX, "little"), text, *parts])


def header_length(begin: bytes, name: str) -> int:
    """Return the number of bytes before the values of a safetensors file."""
    length = int.from_bytes(begin[:_PREFIX], "little")
    if len(begin) < _PREFIX or length > MAX_HEADER:
        raise BundleError(f"{name} is not a valid safetensors file", fix=DAMAGED)
    return _PREFIX + length


def array_specs(begin: bytes, size: int, name: str) -> dict[str, ArraySpec]:
    """Return what a safetensors file contains.

    Args:
        begin: The file up to its values, see `header_length`.
        size: Size of the file in bytes.
        name: Name of the file, for messages.

    Raises:
        BundleError: The header is not valid, or the arrays do not fill the file.
    """
    if header_length(begin, name) != len(begin):
        raise BundleError(f"{name} is not valid: it is cut short", fix=DAMAGED)
    header = json_from_bytes(begin[_PREFIX:], name)
    if not isinstance(header, dict) or not 1 <= len(header) <= MAX_ARRAYS:
        raise BundleError(f"{name} holds no arrays, or too many", fix=DAMAGED)
    specs, position = {}, len(begin)
    for key, fields in header.items():
        spec = _spec(fields, len(begin))
        if spec is None or len(key) > MAX_NAME or spec.start != position:
            what = f"{name}: array {key[:MAX_NAME]!r} is not valid"
            raise BundleError(what, fix=DAMAGED)
        specs[key], position = spec, spec.end
    if position != size:
        what = f"{name} has {size:,} bytes, its arrays need {position:,}"
        raise BundleError(what, fix=DAMAGED)
    return specs


def _spec(fields: Any, offset: int) -> ArraySpec | None:
    """Return the parsed fields of an array, or None if they are not valid."""
    if not isinstance(fields, dict) or fields.keys() != {
        "dtype",
        "shape",
        "data_offsets",
    }:
        return None
    shape, offsets = fields["shape"], fields["data_offsets"]
    dtype = DTYPES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None or not _is_counts(shape, 1) or not _is_counts(offsets, 0):
        return None
    if len(offsets) != 2 or len(shape) > MAX_RANK:
        return None
    start, end = offsets
    if end - start != math.prod(shape) * dtype.itemsize:
        return None
    return ArraySpec(dtype, tuple(shape), offset + start, offset + end)


def _is_counts(values: Any, lowest: int) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and value >= lowest for value in values
    )


def arrays_from_bytes(payload: bytes, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file; they share the memory of `payload`.

    Raises:
        BundleError: The file is not valid.
    """
    count = header_length(payload[:_PREFIX], name)
    specs = array_specs(payload[:count], len(payload), name)
    return {
        key: np.frombuffer(
            payload, spec.dtype, math.prod(spec.shape), spec.start
        ).reshape(spec.shape)
        for key, spec in specs.items()
    }


def refuse_nonfinite(arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raise an error that names the first array with NaN or infinite values."""
    for key, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            what = f"{name}: array {key!r} holds NaN or infinite values"
            raise BundleError(what, fix="train or export the network again")
