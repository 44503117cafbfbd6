"""What made a run: versions, commit, seed, data; and how it ended."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from striate.core.files import hash_rows, read_json, write_json
from striate.data.image_data import ImageData
from striate.runs.folder import MANIFEST

PACKAGES = ("striate", "torch", "numpy", "pillow", "simplejpeg", "safetensors")


def first_manifest(name: str, data: ImageData, seed: int) -> dict[str, Any]:
    """Describe a run that is about to start."""
    return {
        "name": name,
        "status": "running",
        "started": now(),
        "seed": seed,
        "data": {
            "name": data.name,
            "source": data.origin,
            "hash": data_hash(data),
            "seen": data.seen,
            "used": len(data.rows) - data.spare,
            "spare": data.spare,
            "parts": {name: len(part) for name, part in data.parts.items()},
            "quarantined": len(data.quarantined),
            "ignored": len(data.ignored),
            "warnings": list(data.warnings),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "machine": {
            "system": platform.platform(),
            "threads": torch.get_num_threads(),
        },
        "git": git_commit(),
    }


def data_hash(data: ImageData) -> str:
    """Return one hash of all pictures, their labels and their parts."""
    return hash_rows([(r.path, r.label, r.part, r.content) for r in data.rows])


def update_manifest(folder: Path, **changes: Any) -> None:
    """Merge values into a run's manifest, atomically."""
    path = folder / MANIFEST
    write_json(path, {**read_json(path), **changes})


def now() -> str:
    """Return the time as ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """Return the commit of the folder we are in, `+` behind it if changed."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(  # noqa: S603 - fixed words, no shell
        command, capture_output=True, text=True, check=True, timeout=5
    )
    return done.stdout.strip()
