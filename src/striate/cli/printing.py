"""Functions that print the results of the commands in the terminal."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from textwrap import fill
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from striate.core.files import read_json
from striate.core.format import count_text
from striate.report.format import percent
from striate.run import layout as names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from striate.data.image_data import ImageData
    from striate.data.sources.source import Skipped
    from striate.metrics.classification import ClassificationMetrics
    from striate.metrics.multi_label import MultiLabelMetrics
    from striate.run.predict_images import PredictResult
    from striate.run.run import Run
    from striate.run.transfer_plan import TransferPlan
    from striate.run.verdict import Verdict
    from striate.workflows.explain.explain import Explanation
    from striate.workflows.explain.features import Features
    from striate.workflows.train.resume import ResumeInfo

MAX_CLASS_NAMES = 12
MAX_CLASS_ROWS = 20
PIPE_WIDTH = 100_000  # columns of a file or pipe, which has no width


def console() -> Console:
    """Return a rich console that prints to stdout, with colors only in a terminal.

    Only a terminal limits the width: a file or pipe gets whole tables and lines.
    """
    out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


def print_data(data: ImageData, folder: Path) -> None:
    """Print the run folder, a data summary, notes and warnings."""
    console().print(f"run     {folder}", markup=False)
    print_set(data)
    manifest = read_json(folder / names.MANIFEST)
    for note in manifest["notes"]:
        console().print(f"note: {note}", style="dim", markup=False)
    if "frozen" in manifest:
        console().print(f"frozen  {manifest['frozen']['text']}", markup=False)


def print_set(data: ImageData) -> None:
    """Print a data summary: splits, classes, unusable files, warnings."""
    out = console()
    splits = " · ".join(f"{name} {len(s):,}" for name, s in data.subsets.items())
    splits += f" · unused {data.num_unused:,}" if data.num_unused else ""
    out.print(f"[bold]{escape(data.name)}[/]  {data.preprocess.spec}  {splits}")
    listed = ", ".join(data.labels.names[:MAX_CLASS_NAMES])
    more = " …" if data.num_classes > MAX_CLASS_NAMES else ""
    text = f"{count_text(data.num_classes, 'class', 'classes')}: {listed}{more}"
    out.print(text, style="dim", markup=False)
    out.print(data.counts_text, style="dim", markup=False)
    if data.quarantined:
        count = count_text(len(data.quarantined), "file")
        text = f"{count} cannot be used; the first:"
        out.print(text, style="yellow")
        for skip in data.quarantined[:3]:
            out.print(f"  {skip.path}: {skip.reason} ({skip.detail})", markup=False)
    for warning in data.warnings:
        out.print(f"warning: {warning}", style="yellow", markup=False)


def print_resumed(info: ResumeInfo) -> None:
    """Print the step where a run resumes, and whether the result is reproducible."""
    out = console()
    state, recipe = info.state, info.recipe
    if info.data is None:
        text = (
            f"already finished: {state.epoch} of {count_text(recipe.epochs, 'epoch')}"
        )
        out.print(text, markup=False)
        out.print("to train longer: --epochs N, or a larger --patience", style="dim")
        return
    print_data(info.data, info.folder)
    for note in info.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    epoch = min(state.epoch + 1, recipe.epochs)
    where = f"step {state.step:,}, epoch {epoch} of {recipe.epochs}"
    out.print(f"resumed at {where}; exact: {info.exact}", markup=False)


def print_score(split: str, score: ClassificationMetrics | MultiLabelMetrics) -> None:
    """Print accuracy or mAP, loss, calibration error, and the metrics of each class."""
    from striate.report.terminal import print_blocks
    from striate.run.scorecard import per_class_table, score_figures

    out = console()
    for i, figure in enumerate(score_figures(split, score)):
        style = "" if i else "bold"
        out.print(f"{figure.label} {figure.value}", style=style, end="  ")
        out.print(figure.detail, markup=False)
    ece = f"expected calibration error (ECE) {percent(score.ece)}"
    out.print(f"{split} loss {score.loss:.4f}  {ece}\n", style="dim", markup=False)
    print_blocks([per_class_table(score, MAX_CLASS_ROWS)], out)


def print_scaling(run: Run) -> None:
    """Print the temperature of the run, or why probabilities are not scaled."""
    if run.scaling:
        console().print(run.scaling.sentence, style="dim", markup=False)


def print_end(run: Run) -> None:
    """Print the verdict on a run, its metrics, its files and the next steps."""
    from striate.run.verdict import run_verdict

    out, split = console(), run.evaluated_split
    verdict = run_verdict(run)
    print_verdict(verdict)
    print_accuracies(run, split)
    print_score(split, run.predictions(split).metrics())
    print_scaling(run)
    if "frozen" in run.manifest:
        digest = run.manifest["frozen"]["sha256"][:16]
        out.print(f"frozen  weights are unchanged (hash {digest})", markup=False)
    out.print(f"run     {run.path}", markup=False)
    missing = ", ".join(run.manifest.get("missing_sections", ()))
    without = f" (without {missing}; the report says why)" if missing else ""
    out.print(f"report  {run.path / names.REPORT}{without}", markup=False)
    print_next_steps(verdict)


def print_verdict(verdict: Verdict) -> None:
    """Print the sentences of a verdict, one per line."""
    from striate.report.terminal import print_blocks
    from striate.run.verdict_findings import verdict_prose

    out, prose = console(), verdict_prose(verdict)
    # rich would separate a number from its percent sign.
    width = out.width - len("! ")
    lines = (fill(line, width) for line in prose.text.splitlines())
    print_blocks([dataclasses.replace(prose, text="\n".join(lines))], out)


def print_accuracies(run: Run, split: str) -> None:
    """Print the training accuracy, and the validation accuracy unless it is `split`."""
    from striate.run.scorecard import other_accuracies

    for figure in other_accuracies(run, split):
        text = f"{figure.label} {figure.value}  {figure.detail}"
        console().print(text, markup=False)


def print_next_steps(verdict: Verdict) -> None:
    """Print the next steps of a verdict: each purpose, and its command below."""
    if not verdict.next_steps:
        return
    out, program = console(), program_name()
    out.print("\nnext:", style="bold")
    for step in verdict.next_steps:
        out.print(f"  {step.purpose}", style="dim", markup=False, soft_wrap=False)
        if step.command:
            command = step.command.replace("striate", program, 1)
            out.print(f"    {command}", markup=False)


def program_name() -> str:
    """Return the command that starts striate; its path if it is not on PATH."""
    program = "striate" if shutil.which("striate") else os.path.relpath(sys.argv[0])
    return "python -m striate" if program.endswith("__main__.py") else program


def print_plan(plan: TransferPlan) -> None:
    """Print a transfer plan: linear probes, tested heads and cut points, proposal."""
    from striate.report.terminal import print_blocks
    from striate.run.transfer_plan_findings import plan_findings

    print_blocks(plan_findings(plan), console())


def print_transfer(run: Run) -> None:
    """Print the number of features, the head, and the training time."""
    facts, out = run.manifest["transfer"], console()
    seconds = facts["seconds"]
    images = (
        f"{count_text(facts['computed'], 'image')} computed, "
        f"{facts['cached']:,} from cache"
    )
    width = f"{count_text(facts['width'], 'feature')} per image"
    out.print(f"features  {images}; {width}; {seconds['features']:.1f} s", markup=False)
    head = facts["head"]
    if "penalty" in facts:
        head += f", L2 penalty {facts['penalty']:.2g} (chosen by cross-validation)"
    out.print(f"head      {head}, {seconds['head']:.1f} s", markup=False)
    if "plan" in facts:
        plan = facts["plan"]
        low, high = (percent(end) for end in plan["interval"])
        expected = f"expected {percent(plan['expected'])} ({low} – {high})"
        reached = f"reached {percent(plan['accuracy'])}, n = {plan['val_images']:,}"
        out.print(f"plan      validation accuracy: {expected}, {reached}", markup=False)
    out.print()


def print_predictions(result: PredictResult, top: int, page: Path | None) -> None:
    """Print the most probable classes of each image, and unusable files."""
    from striate.report.terminal import blocks_text, print_blocks

    out, table = console(), result.table(top)
    wide = blocks_text([table], width=1000).splitlines()[: len(table.rows) + 1]
    if max(map(cell_len, wide)) <= out.width:
        print_blocks([table], out)
    else:
        out.print("\n".join(result.lines(top)), markup=False, soft_wrap=False)
        out.print()
    print_skipped(result.skipped)
    if page:
        console().print(f"page  {page}", markup=False)


def print_skipped(skipped: Sequence[Skipped]) -> None:
    """Print each file that could not be used, and the reason."""
    for skip in skipped:
        text = f"not used: {skip.path}: {skip.reason} ({skip.detail})"
        console().print(text, style="yellow", markup=False)


def print_features(features: Features, path: Path) -> None:
    """Print the output shape of each layer, and the files that were not used."""
    out = console()
    for name, shape in features.shapes.items():
        sides = "×".join(map(str, shape[1:])) or "1"
        out.print(f"{name:<20} {count_text(shape[0], 'image')} × {sides}", markup=False)
    for name, reason in features.left_out.items():
        out.print(f"left out: {name}: {reason}", style="yellow", markup=False)
    print_skipped(features.skipped)
    out.print(f"written {path}; image paths: {path.with_suffix('.csv')}", markup=False)


def print_explanation(explanation: Explanation, notes: tuple[str, ...]) -> None:
    """Print the prediction and the heatmap sanity checks of each image."""
    from striate.core.findings import Figures, Prose, Table
    from striate.report.terminal import print_blocks

    out = console()
    for note in notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    for section in explanation.page.sections[: len(explanation.data["images"])]:
        out.print(f"\n{section.title}", style="bold", markup=False)
        out.print(section.lead, style="dim", markup=False)
        blocks = [b for b in section.blocks if isinstance(b, Figures | Table | Prose)]
        print_blocks(blocks, out)
    out.print(f"report  {explanation.folder / 'report.html'}", markup=False)
