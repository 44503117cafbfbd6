"""What changed in a set of files since it was checked before, by their hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from striate.core.errors import DataError
from striate.data.check.finding import Finding, Group
from striate.data.sources.source import Skipped


def read_hashes(path: Path) -> dict[str, str]:
    """Return path → hash from what `data check --json` printed.

    Raises:
        DataError: The file is missing, or is not such JSON.
    """
    hashes: dict[str, str]
    fix = "give what `striate data check PATH --json > FILE` wrote"
    try:
        files = json.loads(path.read_bytes())["files"]
        hashes = {one["path"]: one["hash"] for one in files}
    except OSError as error:
        what = f"cannot read the earlier check: {error.strerror}"
        raise DataError(what, where=path, fix=fix) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("not an earlier check", where=path, fix=fix) from error
    return {name: value for name, value in hashes.items() if value}


def changes(
    before: Mapping[str, str], now: Mapping[str, str], places: Mapping[str, int]
) -> list[Finding]:
    """Return findings about files that changed, went, or came.

    Args:
        before: Hash of each file then.
        now: Hash of each file now.
        places: Position of each usable image, to show it.
    """
    changed = [p for p in now if p in before and before[p] != now[p]]
    gone = [path for path in before if path not in now]
    new = [path for path in now if path not in before]
    found = [
        _finding("changed", "bad", changed, "changed since scan", places),
        _finding("gone", "warning", gone, "gone since scan", places),
        _finding("new", "note", new, "new since scan", places),
    ]
    return [finding for finding in found if finding]


_FIX = {
    "changed": "find out who wrote to them; restore them if nobody meant to",
    "gone": "restore them, or check again and keep the new result",
    "new": "",
}


def _finding(
    kind: str,
    tone: str,
    paths: Sequence[str],
    words: str,
    places: Mapping[str, int],
) -> Finding | None:
    if not paths:
        return None
    noun = "file" if len(paths) == 1 else "files"
    shown = [Group(members=(places[p],), note=words) for p in paths if p in places]
    return Finding(
        kind=kind,
        tone=tone,
        what=f"{len(paths):,} {noun} {words}",
        fix=_FIX[kind],
        groups=tuple(shown),
        files=tuple(Skipped(path=path, reason=words) for path in paths),
    )
