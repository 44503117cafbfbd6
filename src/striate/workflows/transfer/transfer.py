"""The job of `striate transfer`: what is frozen runs once, and a head learns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from striate.core.errors import SettingError, StorageError, StriateError
from striate.core.files import hash_file, read_json, write_csv, write_json
from striate.core.settings import flag_name
from striate.data.image_data import ImageData
from striate.data.scan import Tick
from striate.engine.callbacks import EpochResult
from striate.engine.csv_logger import COLUMNS
from striate.engine.distributed.rank_info import check_single_process
from striate.engine.weights_io import save_weights
from striate.finetune.cut_points import ladder
from striate.finetune.freeze import check_frozen
from striate.finetune.split_model import Cut, probe
from striate.models.catalogue import model_entry
from striate.run import layout as names
from striate.run.manifest import now, update_manifest
from striate.run.predictions import Predictions
from striate.run.progress import teller
from striate.run.recipe import AUTO, AUTOMATIC, LOOP_ONLY, Recipe
from striate.run.report_page import write_report
from striate.run.run import Run, score_dict
from striate.run.setup import build, load_recipe, place, resolve, write_inputs
from striate.run.transfer_plan import LOGISTIC, TransferPlan
from striate.run.transfer_plan_findings import write_plan
from striate.workflows.transfer.features import Featured, featured
from striate.workflows.transfer.heads import HeadResult, answers, fit_head
from striate.workflows.transfer.options import (
    SplitModel,
    TransferOptions,
    halve,
    headed,
    rated,
)
from striate.workflows.transfer.plan import options_from_plan, propose

Begun = Callable[[ImageData, Path], None]
Planned = Callable[[TransferPlan], None]
PENALTIES = ("penalty", "cost", "accuracy")
PLANNING = "where to cut, and what learns, is planned on the training split"


def _nobody(data: ImageData, folder: Path) -> None:
    """Tell nobody that a run has begun."""


def _untold(proposal: TransferPlan) -> None:
    """Tell nobody what is planned."""


def transfer_recipe(
    recipe: Recipe,
    wanted: TransferOptions | None = None,
    *,
    data: ImageData | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    begun: Begun = _nobody,
    planned: Planned = _untold,
    quiet: bool = False,
) -> Run:
    """Reuse a trained network: run what is frozen once, let the rest learn from that.

    Args:
        recipe: All settings; `pretrained` must be among them.
        wanted: What is reused.
        data: The images, where they are read already (`load_recipe`).
        out: The run folder; `runs/transfer/<data>-<model>` where not given.
        overwrite: Replace a run folder that is there.
        begun: Told the data and the run folder before anything is computed.
        planned: Told what a plan proposes, before it is done.
        quiet: Show no progress.

    Raises:
        StriateError: The data, the weights, the settings or the disk do not admit it.
    """
    wanted = headed(recipe, wanted or TransferOptions())
    _check(recipe)
    recipe = rated(recipe, wanted)
    if data is None:
        data = load_recipe(recipe, quiet=quiet)
    recipe = resolve(recipe, data)
    model = build(recipe, data)
    place(model, data, recipe)
    halves = None if wanted.planned else halve(model, data, recipe, wanted)
    name = f"{data.name}-{recipe.model}"
    with names.new_folder("transfer", name, out, overwrite) as folder:
        job = _Job(folder, model, data, quiet)
        try:
            if halves is not None:
                job.write(*halves, wanted)
                begun(data, folder)
                return job.run(*halves, wanted)
            job.record(recipe, [PLANNING])
            begun(data, folder)
            proposal = propose(model, data, recipe, wanted, teller(quiet))
            write_plan(folder, proposal)
            planned(proposal)
            wanted = options_from_plan(proposal, wanted)
            halves = halve(model, data, recipe, wanted)
            job.write(*halves, wanted)
            return job.run(*halves, wanted, proposal)
        except BaseException as error:
            reason = error.what if isinstance(error, StriateError) else repr(error)
            with suppress(StorageError):
                said = {"status": "stopped", "reason": reason, "finished": now()}
                update_manifest(folder, **said)
            raise


def _check(recipe: Recipe) -> None:
    """Refuse what would not be transfer, before any image is read."""
    if recipe.pretrained is None:
        fix = (
            "name weights: --pretrained RUN, FILE or a name (striate models --weights)"
        )
        what = "there is nothing to reuse without trained weights"
        raise SettingError(what, where="--pretrained", fix=fix)
    if recipe.model == AUTO:
        fix = "name it: --model mobilenet_v2"
        raise SettingError("whose weights are they?", where="--model", fix=fix)
    model_entry(recipe.model)
    check_single_process("striate transfer")
    for name in AUTOMATIC:
        if getattr(recipe, name) == AUTO:
            what = f"{name} is not found out here: a head learns in seconds"
            raise SettingError(what, where=flag_name(name), fix="name it")
    usual = Recipe(data=recipe.data)
    for name in LOOP_ONLY:
        if getattr(recipe, name) != getattr(usual, name):
            what = f"{name} would do nothing: what learns from features has none"
            raise SettingError(what, where=flag_name(name), fix="leave it out")


def _notes(cut: Cut, recipe: Recipe, wanted: TransferOptions) -> list[str]:
    """Say what runs once, and what was asked for in vain."""
    views = f" and {wanted.views} views of each to learn from" if wanted.views else ""
    notes = [f"every image{views} runs once as far as {cut.name}; the rest learns"]
    if recipe.augmentation.is_active and not wanted.views:
        notes.append("nothing is changed for features: --views N shows changed ones")
    return notes


@dataclass(frozen=True)
class _Job:
    """A run folder that is held, and what goes into it."""

    folder: Path
    model: nn.Module = field(repr=False)
    data: ImageData
    quiet: bool

    def record(self, recipe: Recipe, notes: list[str]) -> None:
        """Write down what the run starts from."""
        write_inputs(self.folder, self.model, self.data, recipe, notes)
        update_manifest(self.folder, verb="transfer")

    def write(
        self, halves: SplitModel, recipe: Recipe, wanted: TransferOptions
    ) -> None:
        """Write down what is frozen, and everything else."""
        self.record(recipe, _notes(halves.cut, recipe, wanted))

    def run(
        self,
        halves: SplitModel,
        recipe: Recipe,
        wanted: TransferOptions,
        proposal: TransferPlan | None = None,
    ) -> Run:
        """Compute features, fit the head, judge and report."""
        began = time.perf_counter()
        folder, model, data = self.folder, self.model, self.data
        cut = halves.cut
        found = self._features(halves, recipe, wanted, proposal)
        passed = time.perf_counter()
        headed = fit_head(
            cut.tail, wanted.kind, found, data, recipe, self.quiet, halves.depth
        )
        seconds = time.perf_counter() - began
        check_frozen(model, halves.frozen.sha256)
        save_weights(folder / names.BEST, model.state_dict())
        write_csv(folder / names.RESULTS, COLUMNS, map(_row, headed.history))
        if headed.fitted:
            rows = [(t.penalty, t.cost, t.accuracy) for t in headed.fitted.tried]
            write_csv(folder / names.PENALTIES, PENALTIES, rows)
        run = Run(folder, model=model.eval(), data=data)
        _judge(run, cut, found, data, recipe)
        facts = _facts(wanted, halves, found, headed)
        facts["seconds"] = {"features": found.seconds, "head": seconds - passed + began}
        if proposal:
            facts["plan"] = _kept_promise(proposal, folder)
            seconds += proposal.seconds
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

    def _features(
        self,
        halves: SplitModel,
        recipe: Recipe,
        wanted: TransferOptions,
        proposal: TransferPlan | None,
    ) -> Featured:
        """Run the body over every image, or go on with the pass of a plan."""
        tick = None if self.quiet else _tick()
        how = self.data, recipe
        if proposal and wanted.kind == LOGISTIC and not wanted.views:
            size = self.data.in_chans, *self.data.image_size
            device = next(self.model.parameters()).device
            cuts = ladder(self.model, probe(size).to(device))
            if cuts.whole:
                found = featured(self.model, cuts, halves.body, *how, tick=tick)
                return found.columns(cuts.columns(-1))
        return featured(self.model, halves.cut, halves.body, *how, wanted.views, tick)


def _facts(
    wanted: TransferOptions, halves: SplitModel, found: Featured, headed: HeadResult
) -> dict[str, object]:
    """Return what a manifest says of how a network was reused."""
    tuning = halves.depth.tuning
    learns = {
        "stages": [stage.name for stage in halves.depth.stages],
        "lr_decay": tuning.lr_decay,
        "unfreeze": tuning.unfreeze,
        "batch_norm": tuning.batch_norm,
    }
    return {
        "cut": halves.cut.name,
        "head": wanted.kind,
        "views": wanted.views,
        "width": found.width,
        "computed": found.computed,
        "kept": found.count - found.computed,
        **({"penalty": headed.fitted.penalty} if headed.fitted else learns),
    }


def _kept_promise(proposal: TransferPlan, folder: Path) -> dict[str, object]:
    """Return what a plan expected, and what it came to."""
    return {
        "expected": proposal.accuracy,
        "interval": [proposal.low, proposal.high],
        "came": read_json(folder / names.SCORES)["val"]["accuracy"],
        "judged": proposal.judging,
        "seconds": proposal.seconds,
        "reckoned": proposal.best.whole,
        "kept": proposal.kept,
    }


def _row(done: EpochResult) -> list[str]:
    """Write an epoch as the journal does."""
    cells = (getattr(done, name) for name in COLUMNS)
    return [str(v).lower() if isinstance(v, bool) else repr(v) for v in cells]


def _judge(
    run: Run, cut: Cut, found: Featured, data: ImageData, recipe: Recipe
) -> None:
    """Judge from the features that are there; a mirror image has none."""
    scores = {}
    for split in run.splits_to_evaluate:
        if recipe.tta == "plain":
            outputs = answers(cut.tail, split, found, data, recipe)
            paths = data.subset(split).paths
            predictions = Predictions.of(paths, outputs, data.labels)
        else:
            predictions = run.judge(data.subset(split))
        predictions.save(run.path / names.predictions_file(split))
        scores[split] = score_dict(predictions.score())
    write_json(run.path / names.SCORES, scores)


def _tick() -> Tick | None:
    """Return what tells on a terminal how far the pass is, drawn over itself."""
    if not sys.stderr.isatty():
        return None
    began = time.monotonic()

    def tick(done: int, count: int) -> None:
        left = (time.monotonic() - began) * (count - done) / max(done, 1)
        line = f"features: {done:,} of {count:,} images, {left:.0f} s left"
        end = "\r\x1b[K" if done == count else ""
        print(f"\r{line}\x1b[K{end}", end="", file=sys.stderr, flush=True)

    return tick
