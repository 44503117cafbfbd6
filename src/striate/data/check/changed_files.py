"""Changes since an earlier data check: changed, removed and new files, by hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.check.finding import Finding, ImageGroup
from striate.data.sources.source import Skipped


def read_hashes(path: Path) -> dict[str, str]:
    """Read the file hashes, by path, from the output of `data check --json`.

    Raises:
        DataError: The file is missing, or not output of `data check --json`.
    """
    hashes: dict[str, str]
    fix = "use the output of `striate data check PATH --json > FILE`"
    try:
        files = json.loads(path.read_bytes())["files"]
        hashes = {_path_of(file): file["hash"] for file in files}
    except OSError as error:
        what = f"cannot read the earlier check: {error.strerror}"
        raise DataError(what, where=path, fix=fix) from error
    except (ValueError, KeyError, TypeError) as error:
        what = "not the output of `data check --json`"
        raise DataError(what, where=path, fix=fix) from error
    return {name: value for name, value in hashes.items() if value}


def _path_of(file: Mapping[str, str]) -> str:
    return file["image_path"] if "image_path" in file else file["path"]  # earlier


def change_findings(
    old: Mapping[str, str], current: Mapping[str, str], positions: Mapping[str, int]
) -> list[Finding]:
    """Return findings about changed, removed and new files."""
    changed = [p for p in current if p in old and old[p] != current[p]]
    removed = [path for path in old if path not in current]
    new = [path for path in current if path not in old]
    findings = []
    for paths, (kind, tone, fix) in zip((changed, removed, new), _KINDS, strict=True):
        status = f"{kind} since the earlier check"
        usable = [positions[path] for path in paths if path in positions]
        finding = Finding(
            kind=kind,
            tone=tone,
            what=f"{count_text(len(paths), 'file')} {status}",
            fix=fix,
            groups=tuple(ImageGroup(members=(i,), note=status) for i in usable),
            files=tuple(Skipped(path=path, reason=status) for path in paths),
        )
        findings += [finding] if paths else []
    return findings


_RESTORE = "restore the files, or run the check again and save the new output"
_KINDS = (
    ("changed", "bad", "find out why the files changed; restore unintended changes"),
    ("removed", "warning", _RESTORE),
    ("new", "note", ""),
)
