"""Resume a stopped or killed run from the last checkpoint, exactly if possible."""

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
from striate.core.hooks import unwrap_compiled
from striate.data.augment.random_crop import crop_margin
from striate.data.image_data import ImageData
from striate.engine.checkpoint_store import Checkpoint, CheckpointStore
from striate.engine.checkpointer import LAST, checkpoint_state
from striate.engine.csv_logger import EVENTS, RESULTS, TIMING, changed_files
from striate.engine.distributed.group import RankGroup
from striate.engine.tensorboard import check_tensorboard
from striate.engine.train_state import TrainState
from striate.run import layout as names
from striate.run.build_from_recipe import process_notes
from striate.run.build_network import CUSTOM
from striate.run.lock import lock_folder
from striate.run.manifest import exactness_text, now, result_factors, update_manifest
from striate.run.parse_settings import make_recipe
from striate.run.prepare_run import (
    build_model,
    load_recipe,
    prepare_model,
    write_run_inputs,
)
from striate.run.pretrained import check_same_weights
from striate.run.progress import ignore, reading_progress
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.run.yaml_io import read_settings, settings_yaml
from striate.workflows.train.autotune import autotune, save_autotune
from striate.workflows.train.build_job import SessionOptions
from striate.workflows.train.nonfinite_report import NONFINITE_FILE
from striate.workflows.train.ranks import (
    check_distributed,
    check_same_data,
    join_rank_group,
)
from striate.workflows.train.resume_diff import (
    change_settings,
    check_fixed_settings,
    check_has_steps,
    check_untrained,
    data_changes,
    environment_changes,
    no_effect_error,
)
from striate.workflows.train.run_job import train_in_folder

# Folders in which a killed process can leave partly written files.
FOLDERS = (".", names.WEIGHTS, f"{names.WEIGHTS}/{LAST}", names.PLOTS)
# Files that a run can write before its first checkpoint, apart from those that every
# start writes again: a run killed in between starts again from the beginning.
EARLY_FILES = (
    *(RESULTS, EVENTS, TIMING, names.LR_RANGE, names.NORMS, NONFINITE_FILE),
    *(names.FIRST_LAYER, names.BEST, f"{names.WEIGHTS}/{LAST}", names.TENSORBOARD),
)
# Manifest entries on how a run ended, and on the weights that it ended with.
END_OF_RUN_KEYS = (
    *("reason", "finished", "seconds", "epochs", "images_per_second"),
    *("speed", "best_epoch", "weights"),
)


@dataclass(frozen=True, kw_only=True)
class ResumeInfo:
    """Resume point of a run, with reasons why the result may be inexact."""

    folder: Path
    recipe: Recipe
    # the images; None if the run is already finished
    data: ImageData | None = field(repr=False)
    # the training state of the checkpoint
    state: TrainState = field(default_factory=TrainState)
    # reasons why the result will differ from an uninterrupted run; empty if the result
    # will be bit-identical
    inexact: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # further notes for the user

    @property
    def exact(self) -> str:
        """Return whether the result will be exact: `yes`, or `no` with reasons."""
        return exactness_text(self.inexact)


OnResume = Callable[[ResumeInfo], None]


def resume(
    path: str | Path,
    *,
    model: nn.Module | str | None = None,
    data: ImageData | None = None,
    on_resume: OnResume = ignore,
    quiet: bool = False,
    tensorboard: bool = False,
    **settings: Any,
) -> Run:
    """Resume a run from the newest valid checkpoint, and train to the end.

    Args:
        path: The run folder, or its name below `runs/train`.
        model: The model, if it was passed to `train` as an object; also as a name such
            as `net.py:Net`.
        data: The images, if they were passed to `train` from memory.
        on_resume: Called with the `ResumeInfo` before training continues.
        quiet: Show no progress.
        tensorboard: Also write TensorBoard event files, as `train` does.
        settings: Changed settings, such as `epochs=20`. They are written to
            `args.yaml`, and make the run inexact if a result depends on them. For a
            finished run, the settings must make training longer.

    Raises:
        StriateError: There is no checkpoint, the data or the settings do not fit, or
            a file could not be written.
    """
    options = SessionOptions(quiet=quiet, tensorboard=tensorboard)
    return resume_run(
        path, settings, model=model, data=data, on_resume=on_resume, options=options
    )


def resume_run(
    path: str | Path,
    settings: Mapping[str, Any],
    *,
    model: nn.Module | str | None = None,
    data: ImageData | None = None,
    on_resume: OnResume = ignore,
    options: SessionOptions | None = None,
    group: RankGroup | None = None,
) -> Run:
    """Resume a run, with changed settings as a mapping; see `resume`."""
    options = options or SessionOptions()
    if options.tensorboard:
        check_tensorboard()
    settings = dict(settings)
    trust = bool(settings.pop("trust", False))  # never that of the run folder
    model = unwrap_compiled(model) if isinstance(model, nn.Module) else model
    run = Run(path, data=data)
    check_has_steps(run)
    old = replace(make_recipe(read_settings(run.path / names.ARGS)), trust=False)
    if old.model.startswith(CUSTOM):
        model = model or settings.pop("model", None)
    recipe = change_settings(old, settings)
    run = Run(path, model=model, data=data, trust=trust)
    process_group = join_rank_group(recipe) if group is None else nullcontext(group)
    with process_group as group, _locked_by_rank_0(run.path, group):
        options = options.for_rank(group)
        on_resume = on_resume if group.is_main else ignore
        checkpoint, flaws = CheckpointStore(run.path / names.WEIGHTS / LAST).newest()
        check_distributed(recipe, group)
        if checkpoint is None:
            check_untrained(run, flaws)
            recipe = replace(recipe, trust=trust)
            return _start_again(run, recipe, model, data, on_resume, options, group)
        check_fixed_settings(recipe.as_dict(), checkpoint, run.path)
        state, marks = checkpoint_state(checkpoint)
        finished = state.is_finished(recipe.epochs, recipe.patience)
        if run.manifest["status"] == "done" and finished:
            if recipe != old.resolved():
                raise no_effect_error(settings, state, run.path)
            info = ResumeInfo(folder=run.path, recipe=recipe, data=None, state=state)
            on_resume(info)
            return run
        if data is None:
            margin = crop_margin(recipe.augmentation)
            with group.local_main_first("reading the images"):
                data = run.read_again(margin, reading_progress(options.quiet))
            run = Run(run.path, model=model, data=data, trust=trust)
        check_same_data(run.data, group)
        model = model if isinstance(model, nn.Module) else run.fresh_model()
        prepare_model(model, run.data, recipe)
        inexact: tuple[str, ...] = ()
        if group.is_main:
            info = _resume_info(run, recipe, checkpoint, state, marks, flaws)
            inexact = info.inexact
            _update_folder(info, recipe != old)
            on_resume(info)
        return train_in_folder(
            run.path, model, run.data, recipe, options, checkpoint, inexact, group
        )


@contextmanager
def _locked_by_rank_0(folder: Path, group: RankGroup) -> Iterator[None]:
    """Lock the run folder against other programs; rank 0 locks it for all ranks."""
    with lock_folder(folder) if group.is_main else nullcontext():
        group.barrier("rank 0 locks the run folder")
        yield


def _start_again(
    run: Run,
    recipe: Recipe,
    model: nn.Module | str | None,
    data: ImageData | None,
    on_resume: OnResume,
    options: SessionOptions,
    group: RankGroup,
) -> Run:
    """Start training again, for a run that stopped before the first checkpoint."""
    if data is None:
        origin = run.origin or run.data.origin  # or says that they were in memory
        with group.local_main_first("reading the images"):
            data = load_recipe(replace(recipe, data=origin), quiet=options.quiet)
    check_same_data(data, group)
    check_same_weights(recipe, run.manifest)
    if not isinstance(model, nn.Module):
        model = build_model(replace(recipe, model=run.network), data)
    prepare_model(model, data, recipe)
    tuned = autotune(model, data, recipe, group)
    recipe = tuned.recipe
    if group.is_main:
        _clear(run.path)
        write_run_inputs(run.path, model, data, recipe)
        save_autotune(run.path, tuned)
    note = "the run was stopped before its first checkpoint; training starts again"
    info = ResumeInfo(folder=run.path, recipe=recipe, data=data, notes=(note,))
    on_resume(info)
    return train_in_folder(run.path, model, data, recipe, options, group=group)


def _clear(folder: Path) -> None:
    """Remove the files that a run has written, so that training can start again."""
    _remove_evaluation(folder)
    for path in (folder / name for name in EARLY_FILES):
        with storage_errors(path, 0):
            names.remove_path(path)
    _remove_partial_files(folder)


def _remove_partial_files(folder: Path) -> None:
    """Remove partly written files of a killed process."""
    for name in FOLDERS:
        remove_leftovers(folder / name)


def _resume_info(
    run: Run,
    recipe: Recipe,
    checkpoint: Checkpoint,
    state: TrainState,
    marks: Mapping[str, Any],
    flaws: list[str],
) -> ResumeInfo:
    """Compare data, settings and machine with the values in the checkpoint."""
    changes = data_changes(run)
    device = devices.select_device(recipe.device)
    before = checkpoint.metadata["circumstances"]
    after = result_factors(recipe, run.data, device)
    after["images"] = before["images"] if changes.harmless else changes.summary
    inexact = [*run.data.inexact, *checkpoint.metadata["inexact"]]
    inexact += [*environment_changes(before, after)]
    inexact += [f"{name} was changed" for name in changed_files(run.path, marks)]
    if device.type != "cpu":
        inexact.append(f"floating-point sums on {device.type} are not deterministic")
    return ResumeInfo(
        folder=run.path,
        recipe=recipe,
        data=run.data,
        state=state,
        inexact=tuple(dict.fromkeys(inexact)),
        notes=(
            *(f"not used: {flaw}" for flaw in flaws),
            *changes.notes(),
            *process_notes(recipe),
        ),
    )


def _update_folder(info: ResumeInfo, settings_changed: bool) -> None:
    """Update settings and manifest of a resumed run; remove its evaluation results."""
    _remove_partial_files(info.folder)
    if settings_changed:
        write_text(info.folder / names.ARGS, settings_yaml(info.recipe.as_dict()))
    manifest = read_json(info.folder / names.MANIFEST)
    sessions = manifest.get("resumed", [])
    session = {"when": now(), "step": info.state.step, "exact": info.exact}
    if manifest.get("status") == "done":  # the test split was evaluated already
        session["was_finished"] = True
    update_manifest(
        info.folder,
        without=END_OF_RUN_KEYS,
        status="running",
        exact=info.exact,
        resumed=[*sessions, session],
    )
    _remove_evaluation(info.folder)


def _remove_evaluation(folder: Path) -> None:
    """Remove the evaluation results, as the best weights may change."""
    # After the manifest, which by now no longer says that the run is done.
    for path in (
        *folder.glob(names.predictions_file("*")),
        folder / names.CALIBRATION,
        folder / names.SCORES,
        folder / names.REPORT,
        folder / names.PLOTS / names.CONFUSION,
    ):
        with storage_errors(path, 0):
            path.unlink(missing_ok=True)
