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

    from striate.core.class_names import ClassNames
    from striate.data.image_data import ImageData
    from striate.data.sources.source import Skipped
    from striate.metrics.classification import ClassificationMetrics
    from striate.run.run import Run
    from striate.run.transfer_plan import TransferPlan
    from striate.workflows.explain.explain import Explanation
    from striate.workflows.explain.features import Features
    from striate.workflows.predict.predict import Answers
    from striate.workflows.train.resume import Resumed

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
    splits += f" · spare {data.num_spare:,}" if data.num_spare else ""
    out.print(f"[bold]{escape(data.name)}[/]  {data.preprocess.spec}  {splits}")
    listed = f"{data.num_classes} classes: {_listed(data.labels)}"
    out.print(listed, style="dim", markup=False)
    if data.quarantined:
        count = len(data.quarantined)
        text = f"{count:,} of {data.num_files:,} files cannot be used, first:"
        out.print(text, style="yellow")
        for skip in data.quarantined[:3]:
            out.print(f"  {skip.path}: {skip.reason} ({skip.detail})", markup=False)
    for warning in data.warnings:
        out.print(f"note: {warning}", style="yellow", markup=False)


def print_resumed(resumed: Resumed) -> None:
    """Say where a run goes on, whether exactly, and what was passed over."""
    out = console()
    at, recipe = resumed.at, resumed.recipe
    if resumed.data is None:
        text = f"finished: {at.epoch} of {recipe.epochs} epochs; nothing is left to do"
        out.print(text, markup=False)
        out.print("--epochs N makes it longer, --patience N more patient", style="dim")
        return
    print_data(resumed.data, resumed.folder)
    for note in resumed.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    epoch = min(at.epoch + 1, recipe.epochs)
    where = f"step {at.step:,}, epoch {epoch} of {recipe.epochs}"
    out.print(f"resumed at {where}; exact: {resumed.exact}", markup=False)


def _listed(labels: ClassNames) -> str:
    shown = ", ".join(labels.names[:CLASSES_NAMED])
    return shown + (" …" if len(labels) > CLASSES_NAMED else "")


def print_score(split: str, score: ClassificationMetrics) -> None:
    """Say how good the answers are, in all and by class, with the intervals."""
    from striate.report.terminal import show
    from striate.run.scorecard import class_table, headlines

    out = console()
    for figure, style in zip(headlines(split, score), ("bold", ""), strict=True):
        out.print(f"{figure.label} {figure.value}", style=style, end="  ")
        out.print(figure.detail, markup=False)
    odd = f"calibration error {percent(score.ece)}"
    out.print(f"cross-entropy {score.loss:.4f} nats, {odd}\n", style="dim")
    show([class_table(score, CLASSES_SHOWN)], out)


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


def print_plan(proposal: TransferPlan) -> None:
    """Show what a plan saw, and what it proposes."""
    from striate.report.terminal import show
    from striate.run.transfer_plan_findings import findings

    show(findings(proposal), wide_console())


def print_transfer(run: Run) -> None:
    """Say what was computed, what was there already, and how the head was chosen."""
    facts, out = run.manifest["transfer"], console()
    took = facts["seconds"]
    kept = f", {facts['kept']:,} were kept" if facts["kept"] else ""
    rows = f"{facts['computed']:,} rows of {facts['width']:,} numbers"
    out.print(f"features  {rows} in {took['features']:.1f} s{kept}", markup=False)
    said = facts["head"]
    if "penalty" in facts:
        said += f", penalty {facts['penalty']:.2g} by cross-validation"
    out.print(f"head      {said}, {took['head']:.1f} s", markup=False)
    if "plan" in facts:
        plan = facts["plan"]
        low, high = (percent(end) for end in plan["interval"])
        hoped = f"expected {percent(plan['expected'])} ({low} – {high})"
        came = f"came to {percent(plan['came'])} on {plan['judged']:,} of validation"
        out.print(f"plan      {hoped}, {came}", markup=False)
    out.print()


def _program() -> str:
    """Return what to type: the bare name only where the shell would find it."""
    return "striate" if shutil.which("striate") else os.path.relpath(sys.argv[0])


def print_answers(answers: Answers) -> None:
    """List predictions, and every file that could not be asked about."""
    out = console()
    for one in answers.predictions[:ANSWERS_SHOWN]:
        out.print(f"{percent(one.score):>8}  {one.label:<20} {one.path}", markup=False)
    rest = len(answers.predictions) - ANSWERS_SHOWN
    if rest > 0:
        out.print(f"… and {rest:,} more; --out FILE.csv keeps all", style="dim")
    print_skipped(answers.skipped)


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
    from striate.report.terminal import show

    out = console()
    for remark in remarks:
        out.print(f"note: {remark}", style="yellow", markup=False)
    for section in done.page.sections[: len(done.data["images"])]:
        out.print(f"\n{section.title}", style="bold", markup=False)
        out.print(section.lead, style="dim", markup=False)
        show([b for b in section.blocks if isinstance(b, Figures | Table | Prose)], out)
    out.print(f"report  {done.folder / 'report.html'}", markup=False)
