"""Check of changed settings, data and machine before a run is resumed."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core.errors import RunError, SettingError
from striate.core.format import count_text
from striate.core.settings import AUTO, flag_name
from striate.data.image_data import ImageData
from striate.data.scan import CHANGED
from striate.data.sources.source import UNUSED
from striate.data.split.split_file import read_split_rows
from striate.engine.checkpoint_store import Checkpoint
from striate.engine.checkpointer import LAST
from striate.engine.train_state import TrainState
from striate.run import layout as names
from striate.run.manifest import NO_EFFECT_ON_RESULT, data_hash
from striate.run.parse_settings import AUTO_SETTINGS, make_recipe
from striate.run.prepare_run import DATA_SETTINGS
from striate.run.recipe import Recipe
from striate.run.run import Run

MAX_NAMED = 3  # images named for each kind of change
# With another value, the weights, optimizer or training state would no longer fit.
FIXED = tuple(
    name
    for name in (
        *("data", "model", "pretrained", "freeze", "split"),
        *("batch_size", "optimizer", "ema", *DATA_SETTINGS),
    )
    if name == "data" or name not in NO_EFFECT_ON_RESULT
)


def change_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return the settings of a run, updated with the changes of the user.

    Raises:
        SettingError: A changed setting must stay the same during a run.
    """
    new = make_recipe(recipe.as_dict(), settings).resolved()
    for name in AUTO_SETTINGS:
        if getattr(new, name) == AUTO:
            fix = f"give a number; this run uses {getattr(recipe, name)}"
            what = f"{name} can be chosen automatically only at the start of a run"
            raise SettingError(what, where=flag_name(name), fix=fix)
    for name in FIXED:
        before, after = getattr(recipe, name), getattr(new, name)
        if before != after:
            what = f"{name} cannot change from {before} to {after} in the same run"
            fix = "remove the setting, or train a new run without --resume"
            raise SettingError(what, where=flag_name(name), fix=fix)
    return new


def check_fixed_settings(
    settings: Mapping[str, Any], checkpoint: Checkpoint, folder: Path
) -> None:
    """Check that fixed settings in `args.yaml` equal those in the checkpoint."""
    before = checkpoint.metadata["circumstances"]
    for name in FIXED:
        # Older versions stored fewer settings; the images' folder is none of them.
        if name in before and not _equal_as_text(before[name], settings[name]):
            old, new = before[name], settings[name]
            what = f"{name} cannot change from {old} to {new} in the same run"
            fix = f"restore {name}: {old}, or train a new run without --resume"
            raise SettingError(what, where=f"{folder / names.ARGS}, {name}", fix=fix)


def _equal_as_text(text: str, value: Any) -> bool:
    """Return whether a setting equals a value that was stored as text.

    Example:
        >>> _equal_as_text("adamw", "adamw"), _equal_as_text("0", 0.0)
        (True, True)
        >>> _equal_as_text("0", 7)
        False
    """
    if text == str(value):
        return True
    with suppress(ValueError, SyntaxError):  # from Python, 0 may stand for 0.0
        return bool(literal_eval(text) == value)
    return False


def no_effect_error(
    settings: Mapping[str, Any], state: TrainState, folder: Path
) -> SettingError:
    """Return the error for changed settings that do not make a finished run longer."""
    flags = ", ".join(flag_name(name) for name in settings)
    what = (
        f"the run is finished after {count_text(state.epoch, 'epoch')}; "
        f"{flags} has no effect"
    )
    fix = f"add --epochs N with N above {state.epoch} (or a longer --patience)"
    return SettingError(what, where=folder, fix=f"{fix}, or remove {flags}")


def check_has_steps(run: Run) -> None:
    """Check that a run can be resumed: a head on frozen features cannot."""
    if "transfer" in run.manifest:
        what = "a head on frozen features cannot be resumed"
        fix = "run its command again: the features are cached"
        raise RunError(what, where=run.path, fix=fix)


def check_untrained(run: Run, flaws: list[str]) -> None:
    """Raise an error if a run was trained but has no valid checkpoint."""
    if flaws:
        what = "\n  ".join(["no checkpoint is valid:", *flaws])
    elif run.manifest.get("status") == "done":
        # To start again removes the best weights. A run that was killed before its
        # first checkpoint starts again, and gives the same result.
        what = f"the run is finished, but has no checkpoint in {names.WEIGHTS}/{LAST}"
    else:
        return
    fix = f"restore a checkpoint, or train again: --out {run.path} --overwrite"
    raise RunError(what, where=run.path, fix=fix)


def environment_changes(
    before: Mapping[str, str], after: Mapping[str, str]
) -> list[str]:
    """Return the differences between two environments, one line per changed value.

    Example:
        >>> environment_changes({"torch": "2.13", "threads": "1"}, {"torch": "2.13"})
        ['threads: 1, now unknown']
    """
    keys = dict.fromkeys([*before, *after])
    pairs = {n: (before.get(n, "unknown"), after.get(n, "unknown")) for n in keys}
    return [f"{n}: {old}, now {new}" for n, (old, new) in pairs.items() if old != new]


@dataclass(frozen=True, kw_only=True)
class DataChanges:
    """Images that were added, removed or changed since a run began."""

    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]

    @property
    def harmless(self) -> bool:
        """Return whether no image of the run was removed or changed."""
        return not self.removed and not self.changed

    @property
    def summary(self) -> str:
        """Return the counts of removed and changed images as text."""
        return f"{len(self.removed)} removed and {len(self.changed)} changed"

    def notes(self) -> list[str]:
        """Return one line per kind of change, with the first image paths."""
        kinds = {
            "added since the run began, not used": self.added,
            "removed or no longer usable": self.removed,
            "changed since the run began": self.changed,
        }
        return [
            f"{len(paths):,} image{'s' * (len(paths) > 1)} {kind}: {_first_of(paths)}"
            for kind, paths in kinds.items()
            if paths
        ]


def _first_of(paths: Sequence[str]) -> str:
    rest = f" and {len(paths) - MAX_NAMED:,} more" if paths[MAX_NAMED:] else ""
    return ", ".join(paths[:MAX_NAMED]) + rest


def data_changes(run: Run) -> DataChanges:
    """Compare the images in `split.csv` of a run with the current image files.

    Raises:
        RunError: A class was added or removed, so the model outputs do not match.
    """
    data = run.data
    _check_classes(run, data)
    new = [skip.path for skip in data.ignored if skip.reason == "not-in-split"]
    if not new and data_hash(data) == run.manifest["data"]["hash"]:
        return DataChanges(added=(), removed=(), changed=())  # fast for millions
    rows = read_split_rows(run.path / names.SPLIT)
    unused = {r["image_path"] for r in rows if r["split"] == UNUSED}
    before = {
        r["image_path"]: (r["label"], r["split"], r["content"])
        for r in rows
        if r["image_path"] not in unused
    }
    after = {r.path: (r.label, r.split, r.content) for r in data.rows}
    changed = {skip.path for skip in data.quarantined if skip.reason == CHANGED}
    changed |= {path for path in after if before.get(path) != after[path]}
    removed = before.keys() - after.keys() - changed
    return DataChanges(
        added=[path for path in new if path not in unused],
        removed=[path for path in before if path in removed],
        changed=sorted(changed),
    )


def _check_classes(run: Run, data: ImageData) -> None:
    if data.labels == run.labels:
        return
    before, after = ", ".join(run.labels.names), ", ".join(data.labels.names)
    what = f"the classes were {before}; now they are {after}"
    fix = "restore the images, or train a new run"
    raise RunError(what, where=data.origin or data.name, fix=fix)
