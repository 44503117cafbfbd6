"""Checkpoint store: one folder for each checkpoint, verified by SHA-256 when loaded.

```
root/step-00001234-epoch-0003/  files, and MANIFEST.json with the SHA-256 of each
root/LATEST                     name of the last checkpoint written, for people
```

A folder is written atomically, and read back before an older folder is deleted. If a
checkpoint is damaged later, the damage is reported and an older checkpoint is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate.core.errors import StorageError
from striate.core.files import write_text
from striate.core.folders import remove_folder, remove_leftovers, write_folder

FORMAT = "striate checkpoint 2"  # 1: log files that count epochs from 0
MANIFEST = "MANIFEST.json"
LATEST = "LATEST"
KEEP = 2  # intact checkpoints, in case one is damaged later
MAX_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"step-(\d+)-epoch-(\d+)")


class DamagedCheckpointError(Exception):
    """Error of a checkpoint whose files are missing or damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint whose files all match their SHA-256 checksums."""

    path: Path
    files: dict[str, bytes] = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)


class CheckpointStore:
    """Store that writes, verifies and deletes the checkpoints of one run.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     store = CheckpointStore(Path(folder))
        ...     _ = store.write(7, 0, [("a", b"old")], size=3)
        ...     path = store.write(8, 1, [("a", b"new")], size=3)
        ...     _ = (path / "a").write_bytes(b"nEw")
        ...     checkpoint, damaged = store.newest()
        >>> checkpoint.path.name, checkpoint.files["a"], damaged[0][-28:]
        ('step-00000007-epoch-0000', b'old', 'a does not match its SHA-256')
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._intact: set[str] = set()

    def write(
        self,
        steps: int,
        epochs: int,  # epochs completed; steps and epochs form the folder's name
        # Name and content of each file; only one file is in memory at a time.
        files: Iterable[tuple[str, bytes]],
        *,
        size: int,
        # JSON values, stored in the manifest.
        metadata: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write and verify a checkpoint, then delete all but the two newest ones.

        Only one file is in memory at a time; `size` is the approximate total in bytes.

        Raises:
            StorageError: The write failed, or the bytes read back differ; earlier
                checkpoints are intact.
        """
        path = self.root / f"step-{steps:08d}-epoch-{epochs:04d}"
        remove_leftovers(self.root)
        if path.exists():  # of an earlier attempt, and damaged
            self._intact.discard(path.name)
            remove_folder(path)
        write_folder(path, _with_manifest(files, metadata or {}), size)
        try:
            for _ in _verified(path, read_manifest(path)):
                pass
        except DamagedCheckpointError as error:
            what = f"the checkpoint read back differs from the one written: {error}"
            raise StorageError(what, where=path, fix="use another disk") from error
        self._intact.add(path.name)
        write_text(self.root / LATEST, path.name + "\n")
        self.prune(KEEP)
        return path

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest intact checkpoint, and errors of newer checkpoints."""
        skipped = []
        for path in self._all():
            try:
                manifest = read_manifest(path)
                files = dict(_verified(path, manifest))
            except DamagedCheckpointError as error:
                skipped.append(f"{path.name}: {error}")
            else:
                self._intact.add(path.name)
                return Checkpoint(path, files, manifest["metadata"]), skipped
        return None, skipped

    def prune(self, keep: int) -> None:
        """Delete all checkpoints except the `keep` newest ones known to be intact."""
        intact = [path for path in self._all() if path.name in self._intact]
        for path in self._all():
            if path not in intact[:keep]:
                self._intact.discard(path.name)
                with suppress(OSError):  # it costs space and nothing else
                    remove_folder(path)

    def _all(self) -> list[Path]:
        """Return the folders of all checkpoints, newest first."""
        names = ((_NAME.fullmatch(p.name), p) for p in self.root.glob("step-*"))
        numbers = [(int(name[1]), int(name[2]), path) for name, path in names if name]
        return [path for _, _, path in sorted(numbers, reverse=True)]


def _with_manifest(
    files: Iterable[tuple[str, bytes]], metadata: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file, then of a manifest with all checksums."""
    listed = {}
    for name, payload in files:
        digest = hashlib.sha256(payload).hexdigest()
        listed[name] = {"bytes": len(payload), "sha256": digest}
        yield name, payload
    content = {"format": FORMAT, "files": listed, "metadata": dict(metadata)}
    yield MANIFEST, _with_checksum(content).encode()


def _with_checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=2) + "\n"
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum}, indent=2) + "\n"


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest and verify its checksum.

    Raises:
        DamagedCheckpointError: The manifest is missing, damaged, or of another format.
    """
    text = _read(path / MANIFEST)
    try:
        manifest = json.loads(text)
        content = {key: value for key, value in manifest.items() if key != "checksum"}
        is_intact = _with_checksum(content).encode() == text
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(f"{MANIFEST} is damaged") from error
    if not is_intact:
        raise DamagedCheckpointError(f"{MANIFEST} does not match its checksum")
    if content.get("format") != FORMAT or not _well_formed(content):
        what = f"{MANIFEST} is not of the format '{FORMAT}'"
        raise DamagedCheckpointError(f"{what}, but of another version of striate")
    return content


def _well_formed(content: dict[str, Any]) -> bool:
    if not all(isinstance(content.get(key), dict) for key in ("files", "metadata")):
        return False
    return all(
        isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys()
        for entry in content["files"].values()
    )


def _verified(path: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file after verifying its SHA-256 checksum."""
    for name, entry in manifest["files"].items():
        if Path(name).name != name:
            raise DamagedCheckpointError(f"{MANIFEST} has an unsafe path: {name}")
        payload = _read(path / name, entry["bytes"])
        if hashlib.sha256(payload).hexdigest() != entry["sha256"]:
            raise DamagedCheckpointError(f"{name} does not match its SHA-256")
        yield name, payload


def _read(path: Path, length: int | None = None) -> bytes:
    """Read a file of `length` bytes; default: of at most `MAX_MANIFEST_BYTES` bytes."""
    try:
        if not path.is_file():
            raise DamagedCheckpointError(f"{path.name} is missing")
        size = path.stat().st_size
        if length is not None and size != length:
            what = f"{path.name} has {size:,} bytes, expected {length:,}"
            raise DamagedCheckpointError(what)
        if length is None and size > MAX_MANIFEST_BYTES:
            raise DamagedCheckpointError(f"{path.name} is too large: {size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        what = f"{path.name} cannot be read: {error.strerror}"
        raise DamagedCheckpointError(what) from error
