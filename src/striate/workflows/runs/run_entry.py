"""Read the facts of one run folder, without torch."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.errors import StriateError
from striate.core.files import read_json
from striate.run import layout as names
from striate.run.lock import LOCK
from striate.run.yaml_io import read_settings

TRAIN, TRANSFER, CURVE = "train", "transfer", "data curve"
INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """A run in the list of runs; None is a value that the run does not have."""

    name: str
    path: str
    verb: str  # train | transfer | data curve
    data: str
    model: str
    test_accuracy: float | None
    test_interval: tuple[float, float] | None  # 95 % confidence interval
    val_accuracy: float | None
    started: str  # ISO date and time
    status: str  # done | running | stopped | interrupted
    tags: tuple[str, ...]
    damaged: tuple[str, ...] = ()  # files that cannot be read, each with the reason

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as a dict of JSON values."""
        return asdict(self)


def read_entry(folder: Path) -> RunEntry | None:
    """Return the facts of a run folder; None if another program wrote the folder."""
    damaged: list[str] = []
    manifest = _read(folder / names.MANIFEST, read_json, damaged)
    if not damaged and "versions" not in manifest:
        return None
    settings = _read(folder / names.ARGS, read_settings, damaged)
    status = _status(folder, str(manifest.get("status", "")))
    scores, path = {}, folder / names.SCORES
    if path.is_file() or status == "done":
        scores = _read(path, read_json, damaged)
    test, val = _score(scores, "test"), _score(scores, "val")
    interval = test.get("interval")
    data = manifest.get("data")
    return RunEntry(
        name=folder.name,
        path=str(folder),
        verb=_verb(folder, manifest),
        data=str(data.get("name", "")) if isinstance(data, dict) else "",
        model=str(settings.get("model", "")),
        test_accuracy=test.get("accuracy"),
        test_interval=(interval[0], interval[1]) if interval else None,
        val_accuracy=val.get("accuracy"),
        started=str(manifest.get("started", "")),
        status=status,
        tags=read_tags(folder, damaged),
        damaged=tuple(damaged),
    )


def _read(
    path: Path, read: Callable[[Path], Any], damaged: list[str]
) -> dict[str, Any]:
    """Return the content of a file; if it is damaged, note the reason instead."""
    try:
        content = read(path)
    except (StriateError, OSError, ValueError, RecursionError) as error:
        reason = error.what if isinstance(error, StriateError) else str(error)
        damaged.append(f"{path.name}: {reason}")
        return {}
    if not isinstance(content, dict):
        damaged.append(f"{path.name}: its content is not a mapping")
        return {}
    return content


def _score(scores: dict[str, Any], split: str) -> dict[str, Any]:
    """Return accuracy and interval of a split; empty unless they are numbers."""
    score = scores.get(split)
    if not isinstance(score, dict) or not isinstance(score.get("accuracy"), float):
        return {}
    interval = score.get("interval")
    pair = isinstance(interval, list) and [type(x) for x in interval] == [float, float]
    return {"accuracy": score["accuracy"], "interval": interval if pair else None}


def _verb(folder: Path, manifest: dict[str, Any]) -> str:
    if (folder.parent / "curve.json").is_file():
        return CURVE
    return TRANSFER if "transfer" in manifest else TRAIN


def _status(folder: Path, status: str) -> str:
    """Return the status; `interrupted` if the process of a running run has ended."""
    if status != "running":
        return status
    owner: Any = {}
    with suppress(OSError, ValueError):
        owner = json.loads((folder / LOCK).read_text("utf-8"))
    if not isinstance(owner, dict) or not isinstance(owner.get("pid"), int):
        return INTERRUPTED
    if owner.get("host") != socket.gethostname() or _is_alive(owner["pid"]):
        return status
    return INTERRUPTED


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, a signal would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def read_tags(folder: Path, damaged: list[str]) -> tuple[str, ...]:
    """Return the tags of a run; a damaged file is added to `damaged`."""
    path = folder / names.TAGS
    if not path.is_file():
        return ()
    tags = _read(path, read_json, damaged).get("tags", [])
    if not isinstance(tags, list):
        damaged.append(f"{path.name}: `tags` is not a list")
        return ()
    return tuple(map(str, tags))
