"""Sealed checkpoints: a folder each, manifest last; the newest sound one is read.

```
root/step-00001234-epoch-0003/  files, and MANIFEST.json with the SHA-256 of each
root/LATEST                     the name of the last one written, for people to read
```

A folder appears whole or not at all, and is read back before an older one goes. What
is damaged afterwards is told by its seal, named, and passed over for the one before.
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

FORMAT = "striate checkpoint 1"
MANIFEST = "MANIFEST.json"
LATEST = "LATEST"
KEEP = 2  # sound ones, so that one may rot
MAX_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"step-(\d+)-epoch-(\d+)")


class DamagedCheckpointError(Exception):
    """A checkpoint is not what was written; the message says how."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every byte is as it was written."""

    path: Path
    files: dict[str, bytes] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


class CheckpointStore:
    """The checkpoints of one run; it knows bytes only, not what they mean.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     vault = Vault(Path(folder))
        ...     _ = vault.write(7, 0, [("a", b"old")], size=3)
        ...     path = vault.write(8, 1, [("a", b"new")], size=3)
        ...     _ = (path / "a").write_bytes(b"nEw")
        ...     found, passed_over = vault.newest()
        >>> found.path.name, found.files["a"], passed_over[0][-28:]
        ('step-00000007-epoch-0000', b'old', 'a does not match its SHA-256')
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sound: set[str] = set()

    def write(
        self,
        steps: int,
        epochs: int,
        files: Iterable[tuple[str, bytes]],
        *,
        size: int,
        facts: Mapping[str, Any] | None = None,
    ) -> Path:
        """Add a checkpoint, read it back, and let the older ones go but two.

        Args:
            steps: Steps done.
            epochs: Epochs judged; with the steps it names the folder.
            files: Names and contents, taken one at a time.
            size: Bytes in all, about.
            facts: Anything that JSON holds; sealed with the files.

        Raises:
            StorageError: The disk refused, or gave back other bytes than it got; the
                checkpoints that were there are.
        """
        path = self.root / f"step-{steps:08d}-epoch-{epochs:04d}"
        remove_leftovers(self.root)
        if path.exists():  # of an earlier try, and found unsound
            self._sound.discard(path.name)
            remove_folder(path)
        write_folder(path, _sealed(files, facts or {}), size)
        try:
            for _ in _verified(path, read_manifest(path)):
                pass
        except DamagedCheckpointError as flaw:
            what = f"the disk gave back other bytes than it got: {flaw}"
            raise StorageError(what, where=path, fix="try another disk") from flaw
        self._sound.add(path.name)
        write_text(self.root / LATEST, path.name + "\n")
        self.prune(KEEP)
        return path

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest sound checkpoint, and why newer ones were passed over."""
        passed_over = []
        for path in self._all():
            try:
                manifest = read_manifest(path)
                files = dict(_verified(path, manifest))
            except DamagedCheckpointError as flaw:
                passed_over.append(f"{path.name}: {flaw}")
                continue
            self._sound.add(path.name)
            return Checkpoint(path, files, manifest["facts"]), passed_over
        return None, passed_over

    def prune(self, kept: int) -> None:
        """Let go of all but the newest ones that are known to be sound."""
        sound = [path for path in self._all() if path.name in self._sound]
        for path in self._all():
            if path not in sound[:kept]:
                self._sound.discard(path.name)
                with suppress(OSError):  # it costs space and nothing else
                    remove_folder(path)

    def _all(self) -> list[Path]:
        """Return the checkpoints by name, newest first."""
        named = ((_NAME.fullmatch(p.name), p) for p in self.root.glob("step-*"))
        found = [(int(name[1]), int(name[2]), path) for name, path in named if name]
        return [path for _, _, path in sorted(found, reverse=True)]


def _sealed(
    files: Iterable[tuple[str, bytes]], facts: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Hand the files on, and the manifest of what went by."""
    listed = {}
    for name, payload in files:
        digest = hashlib.sha256(payload).hexdigest()
        listed[name] = {"bytes": len(payload), "sha256": digest}
        yield name, payload
    body = {"format": FORMAT, "files": listed, "facts": dict(facts)}
    yield MANIFEST, _with_seal(body).encode()


def _with_seal(body: dict[str, Any]) -> str:
    seal = hashlib.sha256(_text(body).encode()).hexdigest()
    return _text({**body, "seal": seal})


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest, if it is to the byte what was written.

    Raises:
        DamagedCheckpointError: It is missing, damaged, or of another format.
    """
    text = _read(path / MANIFEST)
    try:
        manifest = json.loads(text)
        body = {key: value for key, value in manifest.items() if key != "seal"}
        sealed = _with_seal(body).encode() == text
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(f"{MANIFEST} is damaged") from error
    if not sealed:
        raise DamagedCheckpointError(f"{MANIFEST} does not match its seal")
    if body.get("format") != FORMAT or not _well_formed(body):
        raise DamagedCheckpointError(f"{MANIFEST} is not of the format '{FORMAT}'")
    return body


def _well_formed(body: dict[str, Any]) -> bool:
    kinds = {"files": dict, "facts": dict}
    return all(isinstance(body.get(key), kind) for key, kind in kinds.items()) and all(
        isinstance(said, dict) and {"bytes", "sha256"} <= said.keys()
        for said in body["files"].values()
    )


def _verified(path: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Hand out the files, each as it is found to be what was written."""
    for name, said in manifest["files"].items():
        if Path(name).name != name:
            raise DamagedCheckpointError(f"{MANIFEST} names a file outside: {name}")
        payload = _read(path / name, said["bytes"])
        if hashlib.sha256(payload).hexdigest() != said["sha256"]:
            raise DamagedCheckpointError(f"{name} does not match its SHA-256")
        yield name, payload


def _read(path: Path, length: int | None = None) -> bytes:
    """Read a file of a known length; a manifest's is only bounded."""
    try:
        if not path.is_file():
            raise DamagedCheckpointError(f"{path.name} is missing")
        found = path.stat().st_size
        if length is not None and found != length:
            what = f"{path.name} has {found:,} bytes, should have {length:,}"
            raise DamagedCheckpointError(what)
        if length is None and found > MAX_MANIFEST_BYTES:
            raise DamagedCheckpointError(f"{path.name} is {found:,} bytes long")
        return path.read_bytes()
    except OSError as error:
        raise DamagedCheckpointError(
            f"{path.name} cannot be read: {error.strerror}"
        ) from error
