"""Whether a run folder holds what is to be told of it; users' files may be damaged."""

from __future__ import annotations

from collections.abc import Set

from striate.core.errors import RunError
from striate.run import layout as names
from striate.run.run import Run

CURVES = {"train_loss", "val_loss", "val_accuracy"}
# What a manifest says of every run that came to its end.
_TOLD = (
    *("data", "versions", "machine", "git", "parameters", "seconds"),
    *("images_per_second", "epochs", "best_epoch", "weights", "finished"),
)


def check_history(run: Run, columns: Set[str] = CURVES) -> None:
    """Make sure that the learning curves can be drawn.

    Args:
        run: Any run that learned by epochs.
        columns: Those that every row must have.

    Raises:
        RunError: Rows or columns are missing, or no epoch is the best where one is.
    """
    try:
        rows = run.history
        sound = bool(rows) and all(row.keys() >= columns for row in rows)
        sound = sound and ("best" not in columns or any(row["best"] for row in rows))
    except (TypeError, ValueError):
        sound = False
    if not sound:
        what = f"{names.RESULTS} is damaged: it has no sound row an epoch"
        fix = "restore it from a copy, or train again"
        raise RunError(what, where=run.path / names.RESULTS, fix=fix)


def check_ended(run: Run) -> None:
    """Make sure that the manifest says what a finished run's does.

    Raises:
        RunError: It lacks something; says what.
    """
    lacking = [name for name in _TOLD if name not in run.manifest]
    if lacking:
        what = f"{names.MANIFEST} does not say: {', '.join(lacking)}"
        fix = f"finish the run: striate train --resume {run.path}"
        fix += "; if it is finished, restore the file from a copy, or train again"
        raise RunError(what, where=run.path / names.MANIFEST, fix=fix)
