"""Report blocks of a verdict: its sentences, and a table of the next steps."""

from __future__ import annotations

from striate.core.findings import Block, Column, Prose, Table
from striate.run.verdict import Verdict
from striate.run.verdict_rules import ABOVE_BASELINE, NOT_ABOVE_BASELINE, ONE_CLASS

TONES = {
    ABOVE_BASELINE: "good",
    NOT_ABOVE_BASELINE: "bad",
    ONE_CLASS: "plain",
}  # others: warning


def verdict_prose(verdict: Verdict) -> Prose:
    """Return the sentences of a verdict as one block, a sentence a line."""
    tone = TONES.get(verdict.kind, "warning")
    return Prose("\n".join(verdict.sentences), tone)


def verdict_blocks(verdict: Verdict) -> list[Block]:
    """Return the blocks of a verdict: sentences, and next steps as a table."""
    columns = Column("what", key="purpose"), Column("command", "command")
    rows = tuple((step.purpose, step.command or None) for step in verdict.next_steps)
    table = Table(title="Next steps", columns=columns, rows=rows)
    return [verdict_prose(verdict), *([table] if rows else [])]
