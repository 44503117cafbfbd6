"""Run folders: file names, creation, look-up by name, and deletion."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from striate.core.class_names import ClassNames
from striate.core.errors import RunError
from striate.core.files import read_json, storage_errors
from striate.core.registry import closest_names
from striate.run.lock import LOCK, lock_folder

MANIFEST = "manifest.json"
ARGS = "args.yaml"
CLASSES = "classes.json"
PREPROCESS = "preprocess.json"
SPLIT = "split.csv"
QUARANTINE = "quarantine.csv"
QUARANTINE_COLUMNS = ("status", "image_path", "reason", "detail")
RESULTS = "results.csv"
LR_RANGE = "lr_range.csv"
PENALTIES = "penalties.csv"
PLAN = "plan.json"
TAGS = "tags.json"
BASELINES = "baselines"
BASELINES_FILE = "baselines.json"
NORMS = "norms.csv"
SCORES = "scores.json"
CALIBRATION = "calibration.json"
REPORT = "report.html"
NETWORK = "network"  # folder: copy of the user's own code of the network
WEIGHTS = "weights"
BEST = "weights/best.safetensors"
FIRST_LAYER = "weights/first_layer_initial.safetensors"
PLOTS = "plots"
CONFUSION = "confusion.png"  # in PLOTS
EXPLANATION = "explain.json"
OPERATING_POINT = "operating_point.json"
OPERATING_POINTS = "operating_points"  # folder: one file per class
TENSORBOARD = "tensorboard"
# Files that identify a folder written by striate, and a key that each file has.
_MARKERS = {MANIFEST: "versions", EXPLANATION: "made_by", OPERATING_POINT: "made_by"}
PARTIAL_FILES = (f".{MANIFEST}.",)  # left by a run that was killed at the start


def predictions_file(split: str) -> str:
    """Return the file name of the predictions of a split.

    Example:
        >>> predictions_file("val")
        'predictions_val.csv'
    """
    return f"predictions_{split}.csv"


def read_class_names(folder: Path) -> ClassNames:
    """Return the class names of a run in the order of the network outputs.

    Raises:
        RunError: A file is missing or damaged.
    """
    data = read_json(folder / MANIFEST).get("data", {})
    multi_label = bool(data.get("multi_label", False))
    return ClassNames(tuple(read_json(folder / CLASSES)), multi_label)


@contextmanager
def new_folder(
    verb: str, name: str, out: Path | None, overwrite: bool
) -> Iterator[Path]:
    """Context manager: create an empty run folder and lock the folder.

    Without `out`, the folder is `runs/<verb>/<name>`; if that exists, `<name>-2`,
    `<name>-3` …. An existing folder `out` is replaced only with `overwrite`.

    Raises:
        RunError: `out` exists and `overwrite` is off; or `out` is not a run folder, or
            another process uses the folder.
        StorageError: The folder cannot be written.
    """
    if out is None:
        folder = _next_free(Path("runs") / verb / safe_name(name))
    else:
        folder = out
        check_out(out, overwrite)
        with storage_errors(out, 0):
            out.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        if out is not None:
            check_out(out, overwrite)  # again: now no other process changes it
            with storage_errors(out, 0):
                clear_folder(out)
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


def check_out(out: Path | None, overwrite: bool) -> None:
    """Raise an error if an output folder must not be replaced; None is a new folder.

    Call this before a long computation.

    Raises:
        RunError: The folder exists and `overwrite` is off, or is not a run folder.
    """
    if out is None or not out.exists() or _is_new(out):
        return
    if not overwrite:
        fix = "choose another --out, or add --overwrite"
        if (out / WEIGHTS / "last").is_dir():
            fix += f"; to continue this run: striate train --resume {quote(str(out))}"
        raise RunError("the output folder already exists", where=out, fix=fix)
    if not is_output_folder(out):
        fix = "choose another --out; --overwrite replaces only run folders"
        what = "the output folder exists and is not a run folder"
        raise RunError(what, where=out, fix=fix)


def _is_new(folder: Path) -> bool:
    """Return whether a folder is empty, apart from files of an interrupted start."""
    ignored = (*PARTIAL_FILES, LOCK)
    return folder.is_dir() and all(p.name.startswith(ignored) for p in folder.iterdir())


def clear_folder(folder: Path) -> None:
    """Delete the contents of a locked run folder, except for the lock file."""
    # The marker files are deleted last, so that a later run can still overwrite.
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name in _MARKERS)
    for entry in entries:
        if entry.name != LOCK:
            remove_path(entry)


def remove_path(path: Path) -> None:
    """Delete a file, a link, or a folder with its contents, if the path exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_output_folder(folder: Path) -> bool:
    """Return whether a folder was written by striate."""
    # Web projects also have a manifest.json, and must not be deleted.
    for name, key in _MARKERS.items():
        try:
            if "striate" in read_json(folder / name)[key]:
                return True
        except (OSError, RunError, KeyError, TypeError):
            continue
    return False


def safe_name(name: str) -> str:
    """Return a folder name that is valid in every file system.

    Example:
        >>> safe_name("my photos/2024")
        'my-photos-2024'
    """
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")


def find_split(run_or_csv: str | Path) -> Path:
    """Return the path of a run folder's split CSV; return a given CSV path unchanged.

    Raises:
        RunError: The argument is neither a CSV path nor a run.
    """
    path = Path(run_or_csv)
    if path.suffix.lower() == ".csv" or (path / SPLIT).is_file():
        return path
    return find_run(run_or_csv) / SPLIT


def existing_run(path: str | Path) -> Path | None:
    """Return a run folder by its path or by its name below `runs/`, or None."""
    parents = (Path(), Path("runs/train"), Path("runs/transfer"))
    folders = (parent / path for parent in parents)
    return next((f for f in folders if (f / MANIFEST).is_file()), None)


def find_run(path: str | Path) -> Path:
    """Find a run folder by its path or by its name below `runs/`.

    Raises:
        RunError: There is no such run; the message lists similar names.
    """
    if folder := existing_run(path):
        return folder
    existing = [p.parent.name for p in Path("runs").glob(f"*/*/{MANIFEST}")]
    close = closest_names(Path(path).name, existing)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    fix = f"{hint}give a run folder (see the output of the command that wrote it)"
    raise RunError("the run folder does not exist", where=path, fix=fix)
