"""The job of `striate transfer`: what is frozen runs once, and a head learns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from striate.core import device as devices
from striate.core.errors import SettingError, StorageError, StriateError
from striate.core.files import hash_file, write_csv, write_json
from striate.core.registry import unknown
from striate.data.image_data import ImageData
from striate.data.scan import Tick
from striate.engine.checkpoint import save_weights
from striate.engine.journal import COLUMNS
from striate.engine.position import EpochDone
from striate.engine.ranks.place import Place
from striate.models.catalogue import find
from striate.runs import folder as names
from striate.runs.manifest import now, update_manifest
from striate.runs.predictions import Predictions
from striate.runs.prepare import build, load_recipe, place, resolve, write_inputs
from striate.runs.recipe import AUTO, AUTOMATIC, Recipe
from striate.runs.run import Run, score_dict
from striate.runs.story import write_report
from striate.runs.transfer.features import Featured, featured
from striate.runs.transfer.heads import (
    HEADS,
    LOGISTIC,
    Headed,
    answers,
    dense_of,
    fit_head,
)
from striate.transfer.cut import Cut, cut_at, probe
from striate.transfer.freeze import Frozen, check_frozen, freeze

Begun = Callable[[ImageData, Path], None]
PENALTIES = ("penalty", "cost", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be reused, and how the rest learns.

    Args:
        cut: The last layer that stays as it is; by default all but the head.
        head: `logistic`, or `trained` by the recipe's optimiser.
        views: Changed views of each training picture to learn from too.

    Raises:
        UnknownNameError: No head is called so.
    """

    cut: str | None = None
    head: str = LOGISTIC
    views: int = 0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if self.views < 0:
            what = f"views must be at least 0, got {self.views}"
            raise SettingError(what, where="--views")


def _nobody(data: ImageData, folder: Path) -> None:
    """Tell nobody that a run has begun."""


def transfer_recipe(
    recipe: Recipe,
    wanted: Wanted | None = None,
    *,
    data: ImageData | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    begun: Begun = _nobody,
    quiet: bool = False,
) -> Run:
    """Reuse a trained network: run what is frozen once, let the rest learn from that.

    Args:
        recipe: All settings; `pretrained` must be among them.
        wanted: What is reused.
        data: The pictures, where they are read already (`load_recipe`).
        out: The run folder; `runs/transfer/<data>-<model>` where not given.
        overwrite: Replace a run folder that is there.
        begun: Told the data and the run folder before anything is computed.
        quiet: Show no progress.

    Raises:
        StriateError: The data, the weights, the settings or the disk do not admit it.
    """
    wanted = wanted or Wanted()
    _check(recipe)
    if data is None:
        data = load_recipe(recipe, quiet=quiet)
    recipe = resolve(recipe, data)
    model = build(recipe, data)
    place(model, data, recipe)
    cut, frozen, recipe = _cut(model, data, recipe, wanted)
    name = f"{data.name}-{recipe.model}"
    with names.new_folder("transfer", name, out, overwrite) as folder:
        write_inputs(folder, model, data, recipe, _notes(cut, recipe, wanted))
        update_manifest(folder, verb="transfer")
        begun(data, folder)
        try:
            return _in(folder, model, data, recipe, wanted, (cut, frozen), quiet)
        except BaseException as error:
            reason = error.what if isinstance(error, StriateError) else repr(error)
            with suppress(StorageError):
                said = {"status": "stopped", "reason": reason, "finished": now()}
                update_manifest(folder, **said)
            raise


def _check(recipe: Recipe) -> None:
    """Refuse what would not be transfer, before any picture is read."""
    if recipe.pretrained is None:
        fix = (
            "name weights: --pretrained RUN, FILE or a name (striate models --weights)"
        )
        what = "there is nothing to reuse without trained weights"
        raise SettingError(what, where="--pretrained", fix=fix)
    if recipe.model == AUTO:
        fix = "name it: --model mobilenet_v2"
        raise SettingError("whose weights are they?", where="--model", fix=fix)
    find(recipe.model)
    if Place.of().world > 1:
        fix = "start it without torchrun"
        what = "transfer runs in one process; a head learns in seconds"
        raise SettingError(what, where="torchrun", fix=fix)
    for name in AUTOMATIC:
        if getattr(recipe, name) == AUTO:
            what = f"{name} is not found out here: a head learns in seconds"
            raise SettingError(what, where=f"--{name.replace('_', '-')}", fix="name it")


def _cut(
    model: nn.Module, data: ImageData, recipe: Recipe, wanted: Wanted
) -> tuple[Cut, Frozen, Recipe]:
    device = devices.choose(recipe.device)
    x = probe((data.in_chans, *data.image_size)).to(device)
    cut = cut_at(model, x, wanted.cut)
    if wanted.head == LOGISTIC:
        dense_of(cut.tail)
    held = (*cut.body, *(recipe.freeze or ()))
    return cut, freeze(model, held), replace(recipe, freeze=held)


def _notes(cut: Cut, recipe: Recipe, wanted: Wanted) -> list[str]:
    """Say what runs once, and what was asked for in vain."""
    views = f" and {wanted.views} views of each to learn from" if wanted.views else ""
    notes = [f"every picture{views} runs once as far as {cut.name}; the rest learns"]
    if recipe.augmentation.acts and not wanted.views:
        notes.append("nothing is changed for features: --views N shows changed ones")
    return notes


def _in(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    wanted: Wanted,
    halves: tuple[Cut, Frozen],
    quiet: bool,
) -> Run:
    """Compute features, fit the head, judge and report, in a folder that is held."""
    began = time.perf_counter()
    cut, frozen = halves
    tick = None if quiet else _tick()
    found = featured(model, cut, frozen, data, recipe, wanted.views, tick)
    passed = time.perf_counter()
    headed = fit_head(cut.tail, wanted.head, found, data, recipe, quiet)
    seconds = time.perf_counter() - began
    check_frozen(model, frozen.sha256)
    save_weights(folder / names.BEST, model.state_dict())
    write_csv(folder / names.RESULTS, COLUMNS, map(_row, headed.history))
    if headed.fitted:
        rows = [(t.penalty, t.cost, t.accuracy) for t in headed.fitted.tried]
        write_csv(folder / names.PENALTIES, PENALTIES, rows)
    facts = _facts(wanted, cut, found, headed)
    facts["seconds"] = {"features": found.seconds, "head": seconds - passed + began}
    run = Run(folder, model=model.eval(), data=data)
    _judge(run, cut, found, data, recipe)
    update_manifest(
        folder,
        finished=now(),
        seconds=round(seconds, 3),
        epochs=len(headed.history),
        images_per_second=round(found.count / seconds, 1),
        best_epoch=max(done.epoch for done in headed.history if done.best) + 1,
        weights=hash_file(folder / names.BEST),
        transfer=facts,
    )
    run = Run(folder, model=model, data=data)
    write_report(run)
    update_manifest(folder, status="done")
    return Run(folder, model=model, data=data)


def _facts(
    wanted: Wanted, cut: Cut, found: Featured, headed: Headed
) -> dict[str, object]:
    """Return what a manifest says of how a network was reused."""
    return {
        "cut": cut.name,
        "head": wanted.head,
        "views": wanted.views,
        "width": found.width,
        "computed": found.computed,
        "kept": found.count - found.computed,
        **({"penalty": headed.fitted.penalty} if headed.fitted else {}),
    }


def _row(done: EpochDone) -> list[str]:
    """Write an epoch as the journal does."""
    cells = (getattr(done, name) for name in COLUMNS)
    return [str(v).lower() if isinstance(v, bool) else repr(v) for v in cells]


def _judge(
    run: Run, cut: Cut, found: Featured, data: ImageData, recipe: Recipe
) -> None:
    """Judge from the features that are there; a mirror image has none."""
    scores = {}
    for part in run.parts_to_judge:
        if recipe.test_view == "plain":
            outputs = answers(cut.tail, part, found, data, recipe)
            paths = data.part(part).paths
            predictions = Predictions.of(paths, outputs, data.labels)
        else:
            predictions = run.judge(data.part(part))
        predictions.save(run.path / names.predictions_file(part))
        scores[part] = score_dict(predictions.score())
    write_json(run.path / names.SCORES, scores)


def _tick() -> Tick | None:
    """Return what tells on a terminal how far the pass is, drawn over itself."""
    if not sys.stderr.isatty():
        return None
    began = time.monotonic()

    def tick(done: int, count: int) -> None:
        left = (time.monotonic() - began) * (count - done) / max(done, 1)
        line = f"features: {done:,} of {count:,} pictures, {left:.0f} s left"
        end = "\r\x1b[K" if done == count else ""
        print(f"\r{line}\x1b[K{end}", end="", file=sys.stderr, flush=True)

    return tick
