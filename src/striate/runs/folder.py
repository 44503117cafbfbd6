"""The run folder: where it lies, what its files are called, how it comes to be."""

from __future__ import annotations

import shutil
from pathlib import Path

from striate.core.errors import RunError
from striate.core.files import read_json, storage_errors
from striate.core.registry import nearest

MANIFEST = "manifest.json"
ARGS = "args.yaml"
CLASSES = "classes.json"
PREPROCESS = "preprocess.json"
SPLIT = "split.csv"
QUARANTINE = "quarantine.csv"
RESULTS = "results.csv"
SCORES = "scores.json"
REPORT = "report.html"
WEIGHTS = "weights"
BEST = "weights/best.safetensors"
FIRST_LAYER = "weights/first_layer_initial.safetensors"
PLOTS = "plots"
TENSORBOARD = "tensorboard"


def predictions_file(part: str) -> str:
    """Return the name of a part's predictions.

    Example:
        >>> predictions_file("val")
        'predictions_val.csv'
    """
    return f"predictions_{part}.csv"


def new_folder(verb: str, name: str, out: Path | None, overwrite: bool) -> Path:
    """Make an empty run folder and return it.

    Without `out` it is `runs/<verb>/<name>`, with -2, -3 … behind where taken. With
    `out` it is exactly that, and must not exist or must be told to be replaced.

    Raises:
        RunError: `out` exists and `overwrite` is off, or is no run folder at all.
        StorageError: The disk refused.
    """
    if out is None:
        return _next_free(Path("runs") / verb / _plain(name))
    with storage_errors(out, 0):
        if out.exists():
            _clear(out, overwrite)
        out.mkdir(parents=True)
    return out


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


def _clear(out: Path, overwrite: bool) -> None:
    if not overwrite:
        fix = "choose another --out, or add --overwrite"
        raise RunError("the run folder exists already", where=out, fix=fix)
    if not _is_run(out):
        fix = "choose another --out; only run folders are ever overwritten"
        raise RunError("this exists and is no run folder", where=out, fix=fix)
    shutil.rmtree(out)


def _is_run(folder: Path) -> bool:
    # Web projects have a manifest.json too, and theirs must not be deleted.
    try:
        manifest = read_json(folder / MANIFEST)
        return "striate" in manifest["versions"]
    except (OSError, RunError, KeyError, TypeError):
        return False


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")


def find_run(path: str | Path) -> Path:
    """Return a run folder from its path, or from its name below `runs/`.

    Raises:
        RunError: There is none; lists the nearest names.
    """
    for candidate in (Path(path), Path("runs/train") / str(path)):
        if (candidate / MANIFEST).is_file():
            return candidate
    have = [p.parent.name for p in Path("runs").glob(f"*/*/{MANIFEST}")]
    close = nearest(Path(path).name, have)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    fix = f"{hint}give the folder that `striate train` printed"
    raise RunError("no run folder is there", where=path, fix=fix)
