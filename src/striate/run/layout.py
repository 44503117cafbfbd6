"""The run folder: where it lies, what its files are called, how it comes to be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from striate.core.errors import RunError
from striate.core.files import read_json, storage_errors
from striate.core.registry import closest_names
from striate.run.lock import LOCK, held

MANIFEST = "manifest.json"
ARGS = "args.yaml"
CLASSES = "classes.json"
PREPROCESS = "preprocess.json"
SPLIT = "split.csv"
QUARANTINE = "quarantine.csv"
RESULTS = "results.csv"
LR_RANGE = "lr_range.csv"
PENALTIES = "penalties.csv"
PLAN = "plan.json"
RIVALS = "rivals"
RIVALS_FILE = "rivals.json"
NORMS = "norms.csv"
SCORES = "scores.json"
REPORT = "report.html"
WEIGHTS = "weights"
BEST = "weights/best.safetensors"
FIRST_LAYER = "weights/first_layer_initial.safetensors"
PLOTS = "plots"
CONFUSION = "confusion.png"  # in it
EXPLAINED = "explain.json"
DETECTED = "detection.json"
TENSORBOARD = "tensorboard"
# What tells that a folder is ours, and the key in it.
_TELLING = {MANIFEST: "versions", EXPLAINED: "made_by", DETECTED: "made_by"}
LEFT_EARLY = (f".{MANIFEST}.",)  # all that a run killed at its very start may leave


def predictions_file(split: str) -> str:
    """Return the name of a part's predictions.

    Example:
        >>> predictions_file("val")
        'predictions_val.csv'
    """
    return f"predictions_{split}.csv"


@contextmanager
def new_folder(
    verb: str, name: str, out: Path | None, overwrite: bool
) -> Iterator[Path]:
    """Make an empty run folder and hold it while the run is at work.

    Without `out` it is `runs/<verb>/<name>`, with -2, -3 … behind where taken. With
    `out` it is exactly that, and must not exist or must be told to be replaced.

    Raises:
        RunError: `out` exists and `overwrite` is off, is no run folder at all, or is
            held by another process.
        StorageError: The disk refused.
    """
    if out is None:
        folder = _next_free(Path("runs") / verb / plain_name(name))
    else:
        folder = out
        _check_place(out, overwrite)
        with storage_errors(out, 0):
            out.mkdir(parents=True, exist_ok=True)
    with held(folder):
        if out is not None:
            _check_place(out, overwrite)  # again: now nobody else can change it
            with storage_errors(out, 0):
                clear(out)
        yield folder


def _next_free(path: Path) -> Path:
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with storage_errors(candidate, 0):
            candidate.parent.mkdir(parents=True, exist_ok=True)
            try:
                candidate.mkdir()
            except FileExistsError:
                number += 1
            else:
                return candidate


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.exists() or _is_unborn(out):
        return
    if not overwrite:
        fix = "choose another --out, add --overwrite, or go on with --resume"
        raise RunError("the run folder exists already", where=out, fix=fix)
    if not is_run(out):
        fix = "choose another --out; only run folders are ever overwritten"
        raise RunError("this exists and is no run folder", where=out, fix=fix)


def _is_unborn(folder: Path) -> bool:
    """Say whether a folder is empty, or a run was killed before its first file."""
    known = (*LEFT_EARLY, LOCK)
    return folder.is_dir() and all(
        entry.name.startswith(known) for entry in folder.iterdir()
    )


def clear(folder: Path) -> None:
    """Empty a run folder that is held."""
    # What tells that it is a run's folder goes last.
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name in _TELLING)
    for entry in entries:
        if entry.name != LOCK:
            remove(entry)


def remove(path: Path) -> None:
    """Take away a file, a folder with all in it, or a link; nothing may be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_run(folder: Path) -> bool:
    """Tell whether a folder is one that this program made."""
    # Web projects have a manifest.json too, and theirs must not be deleted.
    for name, key in _TELLING.items():
        try:
            if "striate" in read_json(folder / name)[key]:
                return True
        except (OSError, RunError, KeyError, TypeError):
            continue
    return False


def plain_name(name: str) -> str:
    """Return a name that every file system takes.

    Example:
        >>> plain_name("my photos/2024")
        'my-photos-2024'
    """
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")


def find_split(place: str | Path) -> Path:
    """Return the CSV of an earlier split: that of a run, or a file as it is given.

    Raises:
        RunError: It is neither a file nor a run.
    """
    path = Path(place)
    if path.suffix.lower() == ".csv" or (path / SPLIT).is_file():
        return path
    return find_run(place) / SPLIT


def find_run(path: str | Path) -> Path:
    """Return a run folder from its path, or from its name below `runs/`.

    Raises:
        RunError: There is none; lists the nearest names.
    """
    places = (Path(), Path("runs/train"), Path("runs/transfer"))
    for candidate in (place / path for place in places):
        if (candidate / MANIFEST).is_file():
            return candidate
    have = [p.parent.name for p in Path("runs").glob(f"*/*/{MANIFEST}")]
    close = closest_names(Path(path).name, have)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    fix = f"{hint}give the folder that `striate train` printed"
    raise RunError("no run folder is there", where=path, fix=fix)
