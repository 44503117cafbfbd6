"""Whether a stopped run may go on, and with which settings."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from striate.core.errors import RunError, SettingError
from striate.core.settings import flag_name
from striate.engine.checkpoint_store import Checkpoint
from striate.engine.checkpointer import LAST
from striate.engine.train_state import TrainState
from striate.run import layout as names
from striate.run.manifest import UNBINDING
from striate.run.recipe import AUTO, AUTOMATIC, Recipe, make_recipe
from striate.run.run import Run
from striate.run.setup import READING

# Weights, optimizer or position would no longer belong to these.
FIXED = tuple(
    name
    for name in (
        *("data", "model", "pretrained", "freeze", "split"),
        *("batch_size", "optimizer", "ema", *READING),
    )
    if name == "data" or name not in UNBINDING
)


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Lay changes over a run's settings.

    Raises:
        SettingError: One would make another run of it.
    """
    new = make_recipe(recipe.as_dict(), settings).resolved()
    for name in AUTOMATIC:
        if getattr(new, name) == AUTO:
            fix = f"give a number; this run's is {getattr(recipe, name)}"
            what = f"{name} is found out before a run learns, and this one has begun"
            raise SettingError(what, where=flag_name(name), fix=fix)
    for name in FIXED:
        before, after = getattr(recipe, name), getattr(new, name)
        if before != after:
            what = f"{name} was {before} and cannot become {after} in the same run"
            fix = "leave it out, or train anew without --resume"
            raise SettingError(what, where=flag_name(name), fix=fix)
    return new


def check_fixed(recipe: Recipe, sealed: Checkpoint, folder: Path) -> None:
    """Hold settings against the checkpoint's.

    Raises:
        SettingError: `args.yaml` was edited into another run; names setting and file.
    """
    before, settings = sealed.metadata["circumstances"], recipe.as_dict()
    for name in FIXED:
        # Older versions sealed fewer settings; where the images lie is none of them.
        if name in before and not _same(before[name], settings[name]):
            was, is_ = before[name], settings[name]
            what = f"{name} was {was} and cannot become {is_} in the same run"
            fix = "put it back as it was, or train anew without --resume"
            raise SettingError(what, where=f"{folder / names.ARGS}, {name}", fix=fix)


def _same(sealed: str, value: Any) -> bool:
    """Say whether a setting is what was sealed as text.

    Example:
        >>> _same("adamw", "adamw"), _same("0", 0.0), _same("0", 7)
        (True, True, False)
    """
    if sealed == str(value):
        return True
    with suppress(ValueError, SyntaxError):  # from Python, 0 may stand for 0.0
        return bool(literal_eval(sealed) == value)
    return False


def check_idle(
    old: Recipe, new: Recipe, settings: Mapping[str, Any], at: TrainState, folder: Path
) -> None:
    """Look at changes to a finished run.

    Raises:
        SettingError: They do not make it longer.
    """
    if new == old.resolved():
        return
    given = ", ".join(flag_name(name) for name in settings)
    what = f"the run is finished after {at.epoch} epochs; {given} would do nothing"
    fix = f"add --epochs N with N above {at.epoch} (or a longer --patience)"
    raise SettingError(what, where=folder, fix=f"{fix}, or leave it out")


def check_learned_by_steps(run: Run) -> None:
    """Make sure that a run learns in steps.

    Raises:
        RunError: It was computed in one go, and would be cleared and trained.
    """
    if run.manifest.get("verb") == "transfer":
        what = "this run was made by striate transfer, which has no steps to resume"
        fix = "run striate transfer again: its features are kept, and it takes seconds"
        raise RunError(what, where=run.path, fix=fix)


def check_unlearned(run: Run, flaws: list[str]) -> None:
    """Make sure that a run without a sound checkpoint has learned nothing.

    Raises:
        RunError: It has, and to begin anew would lose it; names the flaws.
    """
    if flaws:
        what = "\n  ".join(["no checkpoint is sound:", *flaws])
    elif run.manifest.get("status") == "done":
        # To begin anew takes the best weights away. A run that was killed before its
        # first checkpoint begins, and comes to the same.
        what = f"no checkpoint is in {names.WEIGHTS}/{LAST}, but the run is finished"
    else:
        return
    fix = f"restore one from a copy, or begin anew: --out {run.path} --overwrite"
    raise RunError(what, where=run.path, fix=fix)
