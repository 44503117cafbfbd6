"""Manifest of a run: versions, git commit, seed, data set, and final status."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from striate.core import device as devices
from striate.core.errors import StorageError, StriateError
from striate.core.files import hash_rows, read_json, write_json
from striate.data.image_data import ImageData
from striate.engine.distributed.rank_info import RankInfo
from striate.models.config import ModelConfig
from striate.models.timm import packages_of
from striate.run.layout import MANIFEST
from striate.run.recipe import NO_EFFECT_SETTINGS, Recipe

COMPUTING = ("striate", "torch", "numpy", "pillow", "simplejpeg")
# Settings that change no result; `result_factors` has the data hash as `images`.
NO_EFFECT_ON_RESULT = {"data", *NO_EFFECT_SETTINGS}
PACKAGES = ("striate", "torch", "numpy", "pillow", "simplejpeg", "safetensors")


def first_manifest(name: str, data: ImageData, config: ModelConfig) -> dict[str, Any]:
    """Return the manifest of a run before training."""
    packages = (*PACKAGES, *packages_of(config.model))
    return {
        "name": name,
        "status": "running",
        "started": now(),
        "seed": config.seed,
        "data": {
            "name": data.name,
            "source": data.origin,
            "hash": data_hash(data),
            "seen": data.num_files,
            **data.counts,
            **({"multi_label": True} if data.labels.multi_label else {}),
            "splits": {name: len(subset) for name, subset in data.subsets.items()},
            "warnings": list(data.warnings),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
        "git": git_commit(),
    }


def result_factors(
    recipe: Recipe, data: ImageData, device: torch.device
) -> dict[str, str]:
    """Return all factors of bitwise reproducibility: versions, machine, settings.

    Two runs with equal factors give bitwise identical results.
    """
    values = recipe.as_dict()
    settings = {k: str(values[k]) for k in values if k not in NO_EFFECT_ON_RESULT}
    # Whether shards are loaded or streamed depends on the free memory.
    streamed = data.subset("train").blocks
    computing = (*COMPUTING, *packages_of(recipe.model))
    return {
        **{name: version(name) for name in computing},
        **devices.compute_environment(device),
        **settings,
        "order": "shard by shard" if streamed else "image by image",
        "processes": str(RankInfo.from_environment().world_size),
        "images": data_hash(data),
    }


def exactness_text(inexact: Sequence[str]) -> str:
    """Return `yes` if a resumed run is reproducible, else `no` with the reasons.

    Example:
        >>> exactness_text([]), exactness_text(["threads: 1, now 2"])
        ('yes', 'no (threads: 1, now 2)')
    """
    return f"no ({'; '.join(inexact)})" if inexact else "yes"


def data_hash(data: ImageData) -> str:
    """Return one hash of path, label, split and content of all used images."""
    return hash_rows((r.path, r.label, r.split, r.content) for r in data.rows)


def update_manifest(
    folder: Path, *, without: Collection[str] = (), **changes: Any
) -> None:
    """Update a manifest file atomically; delete the keys in `without`."""
    path = folder / MANIFEST
    before = {k: v for k, v in read_json(path).items() if k not in without}
    write_json(path, {**before, **changes})


@contextmanager
def record_stop(folder: Path) -> Iterator[None]:
    """Context manager: after an error, set the status of a run to `stopped`."""
    try:
        yield
    except BaseException as error:
        reason = error.what if isinstance(error, StriateError) else repr(error)
        with suppress(StorageError):  # on a full disk the first error is the message
            update_manifest(folder, status="stopped", reason=reason, finished=now())
        raise


def now() -> str:
    """Return the current UTC time in ISO 8601 format, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """Return the git commit of the current folder, plus `+` if files are modified."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", *words]
    process = subprocess.run(  # noqa: S603 - fixed arguments, no shell
        command, capture_output=True, text=True, check=True, timeout=5
    )
    return process.stdout.strip()
