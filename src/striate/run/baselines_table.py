"""The table of rivals: who was better, on what, in how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.files import damaged_file_errors, read_json
from striate.core.findings import Cell, Column, Section, Table
from striate.run import layout as names
from striate.run.scorecard import span


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A way to the same end, and what it came to.

    Args:
        name: `from scratch`, `head alone` or `fine-tuned`.
        path: Its run folder.
        cut: What it kept, as far as this layer; empty for nothing.
        split: That was judged.
        accuracy: On that.
        interval: Wilson's, at 95 %.
        count: Images judged.
        seconds: Features and learning; judging and the report are left out.
        planning: Of these, what a plan took.
        kept: Features that were there from before, and took no time now.
        p: McNemar's, of differing from the head alone by chance; None for itself.
    """

    name: str
    path: str
    cut: str
    split: str
    accuracy: float
    interval: tuple[float, float]
    count: int
    seconds: float
    planning: float
    kept: int
    p: float | None


def rival_table(found: Sequence[Baseline]) -> Table:
    """Return the comparison."""
    columns = (
        Column(title="what"),
        Column(title="kept up to", kind="code", key="cut"),
        Column(title="accuracy", kind="ratio"),
        Column(title="95 % interval", key="interval"),
        Column(title="n", kind="integer", hint="images judged", key="count"),
        Column(title="s", kind="number", hint="features, learning", key="seconds"),
        Column(title="p", kind="number", hint="differs from the head alone by chance"),
    )
    split = found[0].split
    notes = [f"The {split} split, equal images and settings; p by McNemar's test."]
    notes += [_aside(one) for one in found if one.kept or one.planning]
    return Table(
        title="Was it worth it?",
        columns=columns,
        rows=tuple(_row(one) for one in found),
        note=" ".join(notes),
    )


def _row(one: Baseline) -> tuple[Cell, ...]:
    interval = span(one.interval, 1)
    time = round(one.seconds, 1)
    return (one.name, one.cut, one.accuracy, interval, one.count, time, one.p)


def _aside(one: Baseline) -> str:
    """Say what is within a rival's time, and what is not."""
    planned = f"{one.planning:.0f} s of it planned" if one.planning else ""
    kept = f"{one.kept:,} features were there from before" if one.kept else ""
    return f"{one.name.capitalize()}: {', '.join(filter(None, [planned, kept]))}."


def summary(found: Sequence[Baseline]) -> list[dict[str, Any]]:
    """Return the comparison as JSON values."""
    return [asdict(one) for one in found]


def rival_section(folder: Path) -> tuple[Section, ...]:
    """Return what a run's report says of its rivals; nothing where it has none."""
    path = folder / names.RIVALS_FILE
    if not path.is_file():
        return ()
    said = read_json(path)
    with damaged_file_errors(path):
        rows = said["rivals"]
        found = [
            Baseline(**{**row, "interval": tuple(row["interval"])}) for row in rows
        ]
    return (Section(title="Comparison", blocks=(rival_table(found),)),)
