"""What the verbs say on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from striate.core.files import read_json
from striate.report.format import percent
from striate.run import layout as names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from striate.core.spec import Labels
    from striate.data.image_data import ImageData
    from striate.data.sources.source import Skipped
    from striate.metrics.classification import Score
    from striate.run.run import Run
    from striate.run.transfer_plan import TransferPlan
    from striate.workflows.explain.explain import Explanation
    from striate.workflows.explain.features import Features
    from striate.workflows.predict.predict import PredictResult
    from striate.workflows.train.resume import ResumeInfo

CLASSES_NAMED = 12
CLASSES_SHOWN = 20
ANSWERS_SHOWN = 40
WIDE = 180  # columns of a file or pipe


def console() -> Console:
    """Return the console of results: stdout, colors only in a terminal."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def wide_console() -> Console:
    """Return the console of tables: a file or pipe, which need not scroll, is wide."""
    out = console()
    if not out.is_terminal:
        out.width = WIDE
    return out


def print_data(data: ImageData, folder: Path) -> None:
    """Say what the images are, and everything a user should be warned of."""
    console().print(f"run     {folder}", markup=False)
    print_set(data)
    manifest = read_json(folder / names.MANIFEST)
    for note in manifest["notes"]:
        console().print(f"note: {note}", style="dim", markup=False)
    if "frozen" in manifest:
        console().print(f"frozen  {manifest['frozen']['said']}", markup=False)


def print_set(data: ImageData) -> None:
    """Say what the images are, their parts and classes, and every warning."""
    out = console()
    splits = " · ".join(
        f"{name} {len(subset):,}" for name, subset in data.subsets.items()
    )
    splits += f" · spare {data.spare:,}" if data.spare else ""
    out.print(f"[bold]{escape(data.name)}[/]  {data.preprocess.spec}  {splits}")
    listed = f"{data.num_classes} classes: {_listed(data.labels)}"
    out.print(listed, style="dim", markup=False)
    if data.quarantined:
        count = len(data.quarantined)
        text = f"{count:,} of {data.seen:,} files cannot be used, first:"
        out.print(text, style="yellow")
        for skip in data.quarantined[:3]:
            out.print(f"  {skip.path}: {skip.reason} ({skip.detail})", markup=False)
    for warning in data.warnings:
        out.print(f"note: {warning}", style="yellow", markup=False)


def print_resumed(info: ResumeInfo) -> None:
    """Print where a run resumes, whether that is exact, and what is not used."""
    out = console()
    state, recipe = info.state, info.recipe
    if info.data is None:
        text = f"already finished: {state.epoch} of {recipe.epochs} epochs"
        out.print(text, markup=False)
        out.print("to train longer: --epochs N, or a larger --patience", style="dim")
        return
    print_data(info.data, info.folder)
    for note in info.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    epoch = min(state.epoch + 1, recipe.epochs)
    where = f"step {state.step:,}, epoch {epoch} of {recipe.epochs}"
    out.print(f"resumed at {where}; exact: {info.exact}", markup=False)


def _listed(labels: Labels) -> str:
    shown = ", ".join(labels.names[:CLASSES_NAMED])
    return shown + (" …" if len(labels) > CLASSES_NAMED else "")


def print_score(split: str, score: Score) -> None:
    """Say how good the answers are, in all and by class, with the intervals."""
    from striate.report.terminal import print_blocks
    from striate.run.scorecard import headline_figures, per_class_table

    out = console()
    for figure, style in zip(headline_figures(split, score), ("bold", ""), strict=True):
        out.print(f"{figure.label} {figure.value}", style=style, end="  ")
        out.print(figure.detail, markup=False)
    odd = f"calibration error {percent(score.calibration_error)}"
    out.print(f"cross-entropy {score.loss:.4f} nats, {odd}\n", style="dim")
    print_blocks([per_class_table(score, CLASSES_SHOWN)], out)


def print_end(run: Run) -> None:
    """Say how the run went, where it lies, and what to try next."""
    out = console()
    print_score(run.evaluated_split, run.predictions(run.evaluated_split).score())
    if "frozen" in run.manifest:
        said = run.manifest["frozen"]["sha256"][:16]
        out.print(f"frozen  bit-identical, {said} as at the start", markup=False)
    out.print(f"run     {run.path}", markup=False)
    out.print(f"report  {run.path / names.REPORT}", markup=False)
    out.print("\nnext:", style="bold")
    me = _program()
    for command in (
        f"open {run.path / names.REPORT}",
        f"{me} predict {run.path} IMAGE_OR_FOLDER",
        f"{me} train FOLDER_OF_CLASS_FOLDERS",
    ):
        out.print(f"  {command}", markup=False)


def print_plan(plan: TransferPlan) -> None:
    """Print the probes and trials of a plan, and what it proposes."""
    from striate.report.terminal import print_blocks
    from striate.run.transfer_plan_findings import plan_findings

    print_blocks(plan_findings(plan), wide_console())


def print_transfer(run: Run) -> None:
    """Print how many features were computed, and how the head was trained."""
    facts, out = run.manifest["transfer"], console()
    seconds = facts["seconds"]
    images = f"{facts['computed']:,} images computed, {facts['cached']:,} from cache"
    width = f"{facts['width']:,} features per image"
    out.print(f"features  {images}; {width}; {seconds['features']:.1f} s", markup=False)
    head = facts["head"]
    if "penalty" in facts:
        head += f", penalty {facts['penalty']:.2g} (chosen by cross-validation)"
    out.print(f"head      {head}, {seconds['head']:.1f} s", markup=False)
    if "plan" in facts:
        plan = facts["plan"]
        low, high = (percent(end) for end in plan["interval"])
        expected = f"expected {percent(plan['expected'])} ({low} – {high})"
        reached = f"reached {percent(plan['accuracy'])}, n = {plan['val_images']:,}"
        out.print(f"plan      validation accuracy: {expected}, {reached}", markup=False)
    out.print()


def _program() -> str:
    """Return what to type: the bare name only where the shell would find it."""
    return "striate" if shutil.which("striate") else os.path.relpath(sys.argv[0])


def print_predictions(result: PredictResult) -> None:
    """List predictions, and every file that could not be read."""
    out = console()
    for item in result.predictions[:ANSWERS_SHOWN]:
        out.print(
            f"{percent(item.score):>8}  {item.label:<20} {item.path}", markup=False
        )
    rest = len(result.predictions) - ANSWERS_SHOWN
    if rest > 0:
        out.print(f"… and {rest:,} more; --out FILE.csv keeps all", style="dim")
    print_skipped(result.skipped)


def print_skipped(skipped: Sequence[Skipped]) -> None:
    """Name every file that could not be used, and why."""
    for skip in skipped:
        text = f"not used: {skip.path}: {skip.reason} ({skip.detail})"
        console().print(text, style="yellow", markup=False)


def print_features(found: Features, path: Path) -> None:
    """Say what a file of inner outputs holds, and which images it does not."""
    out = console()
    for name, shape in found.shapes.items():
        sides = "×".join(map(str, shape[1:])) or "a number"
        out.print(f"{name:<20} {shape[0]:,} rows of {sides}", markup=False)
    print_skipped(found.skipped)
    out.print(
        f"written {path}, its rows' paths {path.with_suffix('.csv')}", markup=False
    )


def print_explanation(done: Explanation, remarks: tuple[str, ...]) -> None:
    """Say for every image what was answered, and what its evidence is worth."""
    from striate.core.findings import Figures, Prose, Table
    from striate.report.terminal import print_blocks

    out = console()
    for remark in remarks:
        out.print(f"note: {remark}", style="yellow", markup=False)
    for section in done.page.sections[: len(done.data["images"])]:
        out.print(f"\n{section.title}", style="bold", markup=False)
        out.print(section.lead, style="dim", markup=False)
        print_blocks(
            [b for b in section.blocks if isinstance(b, Figures | Table | Prose)], out
        )
    out.print(f"report  {done.folder / 'report.html'}", markup=False)
