"""One page with all cards that have results: claims, curves, verdicts, literature."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from striate.core import findings as f
from striate.core.errors import RunError
from striate.core.files import write_text
from striate.core.format import count_text, duration_text
from striate.metrics.sequential import ClaimVerdict
from striate.report.html import render_page
from striate.workflows.lab.card import Card
from striate.workflows.lab.catalogue import all_cards
from striate.workflows.lab.findings import (
    card_curves,
    card_figures,
    card_tables,
    claim_prose,
    overview_table,
)
from striate.workflows.lab.markdown import write_markdown
from striate.workflows.lab.outcome import CardOutcome, card_outcome
from striate.workflows.lab.store import ResultStore

PAGE_FILE = "report.html"


def finished_cards(folder: Path) -> list[CardOutcome]:
    """Return the outcomes of all cards that have results in a folder.

    The trials of `--quick` are another version of a card. They are used only if the
    card has no others.
    """
    outcomes = []
    for card in all_cards():
        for changes in ({}, dict(card.quick)):
            results = ResultStore(folder, card, changes).results()
            if results:
                outcomes.append(card_outcome(card, results))
                break
    return outcomes


def write_lab_report(
    folder: Path,
    html: Path | None = None,
    markdown: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page of a results folder, and Markdown pages if wanted.

    Raises:
        RunError: No card has results, or a Markdown page exists and `overwrite` is off.
    """
    outcomes = finished_cards(folder)
    if not outcomes:
        what = "no card has results"
        fix = "run one first, for example: striate lab run E2"
        raise RunError(what, where=folder, fix=fix)
    path = html or folder / PAGE_FILE
    write_text(path, render_page(lab_page(outcomes)))
    if markdown is not None:
        write_markdown(outcomes, markdown, overwrite)
    return path


def lab_page(outcomes: Sequence[CardOutcome]) -> f.Page:
    """Return the page: an overview of all verdicts, then a section for each card."""
    sections = [f.Section("Overview", (_headline(outcomes), overview_table(outcomes)))]
    sections += [card_section(outcome) for outcome in outcomes]
    program = f"striate {version('striate')} · torch {torch.__version__}"
    return f.Page(
        "The lab: claims about convolutional networks",
        subtitle=f"{count_text(len(outcomes), 'claim')} tested",
        sections=tuple(sections),
        footer=program,
    )


def _headline(outcomes: Sequence[CardOutcome]) -> f.Figures:
    counts = {
        verdict: sum(outcome.verdict is verdict for outcome in outcomes)
        for verdict in ClaimVerdict
    }
    figures = [f.Figure(str(verdict), str(n)) for verdict, n in counts.items()]
    trials = sum(len(outcome.results) for outcome in outcomes)
    time = duration_text(sum(outcome.seconds for outcome in outcomes))
    figures.append(f.Figure("trials", f"{trials:,}", detail=f"processor time {time}"))
    return f.Figures(tuple(figures))


def card_section(outcome: CardOutcome) -> f.Section:
    """Return the section of a card: claim, rule, evidence, verdict and cost."""
    card = outcome.card
    blocks: list[f.Block] = [card_figures(outcome), claim_prose(outcome)]
    blocks.append(f.Prose(_literature(card)))
    blocks.append(f.Prose(f"Rule, fixed before the first trial: {card.rule}"))
    blocks += [*card_curves(card, outcome.results)]
    blocks += card_tables(outcome)
    if card.limits:
        blocks.append(f.Prose(f"Limits: {card.limits}"))
    blocks.append(f.Prose(_cost(outcome)))
    return f.Section(f"{card.id} · {card.title}", tuple(blocks), lead=card.claim)


def _literature(card: Card) -> str:
    text = f"Source: {card.source}. Published: {card.published}."
    return f"{text} {card.objections}".strip()


def _cost(outcome: CardOutcome) -> str:
    settings = ", ".join(f"{k} {v}" for k, v in outcome.card.settings.items())
    return (
        f"{outcome.cost}. "
        f"Settings: {settings}. Run it again: striate lab run {outcome.card.id}"
    )
