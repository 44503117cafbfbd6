"""JSON of files from strangers: limits, no NaN, no duplicate keys, one form."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from striate.exporters.bundle.errors import DAMAGED, BundleError

MAX_JSON = 4 << 20  # bytes
# Memory grows with the number of lists and objects, and of the items between commas:
# there may be no more than one in so many bytes of the largest file.
BYTES_PER_CONTAINER = 40
BYTES_PER_ITEM = 10
MAX_INTEGER = 2**63


def json_to_bytes(value: Any) -> bytes:
    """Return a value as JSON; equal values give the same bytes.

    Raises:
        BundleError: The value contains NaN, an infinite number, or another type.

    Example:
        >>> json_to_bytes({"b": 1, "a": [0.5]}) == json_to_bytes({"a": [0.5], "b": 1})
        True
    """
    try:
        text = json.dumps(
            value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"a value has no JSON form: {error}") from error
    # Bytes of undecodable names become JSON's own \udcff, which reads back the same.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def json_from_bytes(payload: bytes, name: str, limit: int = MAX_JSON) -> Any:
    """Return the value of a JSON file.

    Args:
        payload: The file.
        name: Name of the file, for messages.
        limit: Largest size in bytes.

    Raises:
        BundleError: The file is not JSON, is too large, or is ambiguous.

    Example:
        >>> json_from_bytes(b'{"a": 1}', "a.json")
        {'a': 1}
        >>> json_from_bytes(b'{"a": 1, "a": 2}', "a.json")
        Traceback (most recent call last):
        striate.exporters.bundle.errors.BundleError: a.json is not valid: key 'a' twice
          do:    get the file again from its source; nothing of it was used
    """
    try:
        _check_size(payload, limit)
        return json.loads(
            payload.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError as error:
        what = f"{name} is not valid: too many levels"
        raise BundleError(what, fix=DAMAGED) from error
    except ValueError as error:
        raise BundleError(f"{name} is not valid: {error}", fix=DAMAGED) from error


def _check_size(payload: bytes, limit: int) -> None:
    if len(payload) > limit:
        raise ValueError(f"{len(payload):,} bytes are too many (limit {limit:,})")
    containers = payload.count(b"[") + payload.count(b"{")
    too_many = containers > limit // BYTES_PER_CONTAINER
    if too_many or payload.count(b",") > limit // BYTES_PER_ITEM:
        raise ValueError("too many items")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"key {counts.most_common(1)[0][0][:100]!r} twice")
    return fields


def _constant(text: str) -> float:
    raise ValueError(f"the number {text}")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _integer(text: str) -> int:
    number = int(text)  # Python refuses thousands of digits
    if abs(number) > MAX_INTEGER:
        raise ValueError(f"the number {text[:30]} is too large")
    return number
