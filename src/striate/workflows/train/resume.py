"""A run that was stopped or killed goes on, and says whether that is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from striate.core import device as devices
from striate.core.files import read_json, storage_errors, write_text
from striate.core.folders import remove_leftovers
from striate.data.augment.random_crop import crop_margin
from striate.data.image_data import ImageData
from striate.engine.checkpoint_store import Checkpoint, CheckpointStore
from striate.engine.checkpointer import LAST, checkpoint_state
from striate.engine.csv_logger import EVENTS, RESULTS, TIMING, changed_files
from striate.engine.distributed.group import RankGroup
from striate.engine.tensorboard import check_tensorboard
from striate.engine.train_state import TrainState
from striate.run import layout as names
from striate.run.builders import rank_notes
from striate.run.lock import held
from striate.run.manifest import circumstances, exactness, now, update_manifest
from striate.run.pretrained import check_same_weights
from striate.run.progress import reading
from striate.run.recipe import Recipe, make_recipe
from striate.run.run import Run
from striate.run.setup import build, load_recipe, place, write_inputs
from striate.run.yaml_io import read_settings, settings_text
from striate.workflows.train.autotune import note_speed, settle
from striate.workflows.train.nonfinite_report import RECORD as BLOWUPS
from striate.workflows.train.ranks import (
    check_data,
    check_together,
    follows,
    in_turn,
    together,
)
from striate.workflows.train.resume_check import (
    changed,
    check_fixed,
    check_idle,
    check_learned_by_steps,
    check_unlearned,
)
from striate.workflows.train.resume_diff import data_changes, differences
from striate.workflows.train.train import run_in

# Where files and folders are written beside others, and a kill leaves half ones.
PLACES = (".", names.WEIGHTS, f"{names.WEIGHTS}/{LAST}", names.PLOTS)
# What a run may have written before its first checkpoint, but for what every beginning
# writes anew: a kill in between leaves a run that begins once more.
EARLY = (
    *(RESULTS, EVENTS, TIMING, names.LR_RANGE, names.NORMS, BLOWUPS),
    *(names.FIRST_LAYER, names.BEST, f"{names.WEIGHTS}/{LAST}", names.TENSORBOARD),
)
# What a manifest says of how a run ended, and of the weights it ended with.
OF_THE_END = (
    *("reason", "finished", "seconds", "epochs", "images_per_second"),
    *("speed", "best_epoch", "weights"),
)


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """How a run goes on.

    Args:
        folder: The run folder.
        recipe: All settings.
        data: The images; None where nothing is left to do.
        at: Where it goes on.
        inexact: Why it will not end as if it had never been stopped; empty: it will.
        notes: What else the user should know.
    """

    folder: Path
    recipe: Recipe
    data: ImageData | None = field(repr=False)
    at: TrainState
    inexact: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exact(self) -> str:
        """Return `yes`, or `no` and why."""
        return exactness(self.inexact)


def _nobody(resumed: Resumed) -> None:
    """Tell nobody how the run goes on."""


def resume(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    data: ImageData | None = None,
    begun: Callable[[Resumed], None] = _nobody,
    quiet: bool = False,
    tensorboard: bool = False,
    **settings: Any,
) -> Run:
    """Go on with a run from its newest sound checkpoint, and finish it.

    Args:
        path: The run folder, or its name below `runs/train`.
        model: The network, where it was handed to `train` as an object.
        data: The images, where they came from memory.
        begun: Told how the run goes on before it does.
        quiet: Show no progress.
        tensorboard: Write event files too, as `train` does.
        settings: Changes to the run's own, such as `epochs=20`; they are written to
            `args.yaml`, and make the run inexact if a result depends on them. They
            are refused where they do not make a finished run longer.

    Raises:
        StriateError: There is nothing to go on from, or the data, the settings or the
            disk do not admit it.
    """
    return go_on(
        path,
        settings,
        model=model,
        data=data,
        begun=begun,
        quiet=quiet,
        tensorboard=tensorboard,
    )


def go_on(
    path: str | Path,
    settings: Mapping[str, Any],
    *,
    model: nn.Module | None = None,
    data: ImageData | None = None,
    begun: Callable[[Resumed], None] = _nobody,
    quiet: bool = False,
    tensorboard: bool = False,
    ranks: RankGroup | None = None,
) -> Run:
    """Do what `resume` says; a setting may be called as one of its arguments is."""
    if tensorboard:
        check_tensorboard()
    run = Run(path, model=model, data=data)
    check_learned_by_steps(run)
    old = make_recipe(read_settings(run.path / names.ARGS))
    recipe = changed(old, settings)
    meeting = together(recipe) if ranks is None else nullcontext(ranks)
    with meeting as met, _held_by_first(run.path, met):
        quiet = quiet or follows(met)
        begun = _nobody if follows(met) else begun
        sealed, flaws = CheckpointStore(run.path / names.WEIGHTS / LAST).newest()
        check_together(recipe, met)
        if sealed is None:
            check_unlearned(run, flaws)
            how = begun, quiet, tensorboard, met
            return _from_the_start(run, recipe, model, data, *how)
        check_fixed(recipe, sealed, run.path)
        at, marks = checkpoint_state(sealed)
        if run.manifest["status"] == "done" and _finished(at, recipe):
            check_idle(old, recipe, settings, at, run.path)
            begun(Resumed(folder=run.path, recipe=recipe, data=None, at=at))
            return run
        if data is None:
            margin = crop_margin(recipe.augmentation)
            with in_turn(met):
                again = run.read_again(margin=margin, tick=reading(quiet))
            run = Run(run.path, model=model, data=again)
        check_data(run.data, met)
        network = run.fresh_model() if model is None else model
        place(network, run.data, recipe)
        inexact: tuple[str, ...] = ()
        if not follows(met):
            resumed = _survey(run, recipe, sealed, at, marks, flaws)
            inexact = resumed.inexact
            _write_down(resumed, recipe != old)
            begun(resumed)
        where = run.path, network, run.data, recipe, quiet
        return run_in(*where, sealed, inexact, tensorboard, met)


@contextmanager
def _held_by_first(folder: Path, ranks: RankGroup | None) -> Iterator[None]:
    """Hold the run folder, which nobody else changes then; rank 0 does it for all."""
    if ranks is not None and not ranks.is_main:
        ranks.barrier("rank 0 to hold the run folder")
        yield
        return
    with held(folder):
        if ranks is not None:
            ranks.barrier("the others to know that the run folder is held")
        yield


def _finished(at: TrainState, recipe: Recipe) -> bool:
    return at.is_finished(recipe.epochs, recipe.patience)


def _from_the_start(
    run: Run,
    recipe: Recipe,
    model: nn.Module | None,
    data: ImageData | None,
    begun: Callable[[Resumed], None],
    quiet: bool,
    tensorboard: bool,
    ranks: RankGroup | None,
) -> Run:
    """Begin a run that was stopped before its first checkpoint: nothing was learned."""
    if data is None:
        origin = run.origin or run.data.origin  # or says that they were in memory
        with in_turn(ranks):
            data = load_recipe(replace(recipe, data=origin), quiet=quiet)
    check_data(data, ranks)
    check_same_weights(recipe, run.manifest)
    network = build(recipe, data) if model is None else model
    place(network, data, recipe)
    settled = settle(network, data, recipe, ranks)
    recipe = settled.recipe
    if not follows(ranks):
        _clear(run.path)
        write_inputs(run.path, network, data, recipe)
        note_speed(run.path, settled)
    notes = ("the run was stopped before it had learned anything; it begins",)
    at = TrainState()
    begun(Resumed(folder=run.path, recipe=recipe, data=data, at=at, notes=notes))
    where = run.path, network, data, recipe, quiet
    return run_in(*where, tensorboard=tensorboard, ranks=ranks)


def _clear(folder: Path) -> None:
    """Take away what a run wrote that begins anew; what others put there stays."""
    _take_back_judgement(folder)
    for name in EARLY:
        path = folder / name
        with storage_errors(path, 0):
            names.remove(path)
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Take away what a kill has left half written."""
    for name in PLACES:
        remove_leftovers(folder / name)


def _survey(
    run: Run,
    recipe: Recipe,
    sealed: Checkpoint,
    at: TrainState,
    marks: Mapping[str, Any],
    flaws: list[str],
) -> Resumed:
    """Find out how a run goes on, and what differs from when it was stopped."""
    changes = data_changes(run)
    device = devices.select_device(recipe.device)
    before = sealed.metadata["circumstances"]
    after = circumstances(recipe, run.data, device)
    after["images"] = before["images"] if changes.harmless else changes.summary
    inexact = [*sealed.metadata["inexact"], *differences(before, after)]
    inexact += [f"{name} was changed" for name in changed_files(run.path, marks)]
    if device.type != "cpu":
        inexact.append(f"{device.type} adds in an order that varies")
    return Resumed(
        folder=run.path,
        recipe=recipe,
        data=run.data,
        at=at,
        inexact=tuple(dict.fromkeys(inexact)),
        notes=(
            *(f"not used: {flaw}" for flaw in flaws),
            *changes.notes(),
            *rank_notes(recipe),
        ),
    )


def _write_down(resumed: Resumed, settings_changed: bool) -> None:
    """Bring the settings and the manifest up to date; clear what no longer holds."""
    _sweep(resumed.folder)
    if settings_changed:
        write_text(resumed.folder / names.ARGS, settings_text(resumed.recipe))
    earlier = read_json(resumed.folder / names.MANIFEST).get("resumed", [])
    sitting = {"when": now(), "step": resumed.at.step, "exact": resumed.exact}
    update_manifest(
        resumed.folder,
        without=OF_THE_END,
        status="running",
        exact=resumed.exact,
        resumed=[*earlier, sitting],
    )
    _take_back_judgement(resumed.folder)


def _take_back_judgement(folder: Path) -> None:
    """Remove what was said of best weights that may not stay the best."""
    # After the manifest, which by now no longer says that the run is done.
    for path in (
        *folder.glob(names.predictions_file("*")),
        folder / names.SCORES,
        folder / names.REPORT,
        folder / names.PLOTS / names.CONFUSION,
    ):
        with storage_errors(path, 0):
            path.unlink(missing_ok=True)
