"""Check that the files of a run folder are complete."""

from __future__ import annotations

from collections.abc import Set
from shlex import quote

from striate.core.errors import RunError
from striate.run import layout as names
from striate.run.run import Run

CURVE_COLUMNS = {"train_loss", "val_loss", "val_accuracy"}
# Keys in the manifest of every finished run.
_FINISHED_KEYS = (
    *("data", "versions", "machine", "git", "parameters", "seconds"),
    *("images_per_second", "epochs", "best_epoch", "weights", "finished"),
)


def check_history(run: Run, columns: Set[str] = CURVE_COLUMNS) -> None:
    """Check that `results.csv` has complete rows for the learning curves."""
    try:
        rows = run.history
        complete = bool(rows) and all(row.keys() >= columns for row in rows)
        complete = complete and ("best" not in columns or any(r["best"] for r in rows))
    except (TypeError, ValueError):
        complete = False
    if not complete:
        what = f"{names.RESULTS} is damaged: a row or a column is missing"
        fix = "restore it from a backup, or train again"
        raise RunError(what, where=run.path / names.RESULTS, fix=fix)


def check_finished(run: Run) -> None:
    """Check that the manifest has all keys of a finished run."""
    missing = [name for name in _FINISHED_KEYS if name not in run.manifest]
    if missing:
        what = f"keys are missing in {names.MANIFEST}: {', '.join(missing)}"
        fix = f"finish the run: striate train --resume {quote(str(run.path))}"
        fix += "; if it is finished, restore the file from a backup, or train again"
        raise RunError(what, where=run.path / names.MANIFEST, fix=fix)
