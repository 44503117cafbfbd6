"""Table that compares a transfer run with baselines: accuracy, interval, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.files import damaged_file_errors, read_json
from striate.core.findings import Cell, Column, Section, Table
from striate.core.format import count_text
from striate.run import layout as names
from striate.run.scorecard import ci_text


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Result of one baseline run in the comparison."""

    name: str  # `from scratch`, `head only` or `fine-tuned`
    path: str
    cut: str  # the last frozen layer; empty if no layer is frozen
    split: str  # the evaluated split
    accuracy: float  # accuracy on that split
    interval: tuple[float, float]  # Wilson 95 % interval of the accuracy
    count: int  # number of evaluated images
    seconds: float  # time of feature extraction and training
    plan_seconds: float  # time of the transfer plan, included in `seconds`
    cached: int  # number of images whose features were already in the cache
    # p-value of McNemar's test against `head only`; None for `head only`
    p: float | None


def baseline_table(baselines: Sequence[Baseline]) -> Table:
    """Return the comparison with baselines as a table."""
    columns = (
        Column("method"),
        Column("frozen up to", "code", key="cut"),
        Column("accuracy", "ratio"),
        Column("95 % interval", key="interval"),
        Column("n", "integer", hint="number of evaluated images", key="count"),
        Column("seconds", "number", hint="features and training"),
        Column("p", "number", hint="McNemar's test against 'head only'"),
    )
    split = baselines[0].split
    notes = [
        f"Accuracy on the {split} split. All use the same images and settings. "
        "p: p-value of McNemar's test against 'head only'."
    ]
    notes += [_time_note(b) for b in baselines if b.cached or b.plan_seconds]
    return Table(
        title="Comparison with baselines",
        columns=columns,
        rows=tuple(_row(baseline) for baseline in baselines),
        note=" ".join(notes),
    )


def _row(baseline: Baseline) -> tuple[Cell, ...]:
    return (
        baseline.name,
        baseline.cut,
        baseline.accuracy,
        ci_text(baseline.interval, 1),
        baseline.count,
        round(baseline.seconds, 1),
        baseline.p,
    )


def _time_note(baseline: Baseline) -> str:
    """Return a note on a baseline's planning time and number of cached features."""
    plan = f"the time includes {baseline.plan_seconds:.0f} s of the transfer plan"
    cached = f"features of {count_text(baseline.cached, 'image')} came from the cache"
    parts = [plan] * (baseline.plan_seconds > 0) + [cached] * (baseline.cached > 0)
    return f"{baseline.name.capitalize()}: {', '.join(parts)}."


def baseline_dicts(baselines: Sequence[Baseline]) -> list[dict[str, Any]]:
    """Return the comparison with baselines as JSON values."""
    return [asdict(baseline) for baseline in baselines]


def baseline_section(folder: Path) -> tuple[Section, ...]:
    """Return the baselines section of the report; empty without `--compare`."""
    path = folder / names.BASELINES_FILE
    if not path.is_file():
        return ()
    content = read_json(path)
    with damaged_file_errors(path):
        baselines = [
            Baseline(**{**row, "interval": tuple(row["interval"])})
            for row in content["baselines"]
        ]
    return (Section("Baselines", (baseline_table(baselines),)),)
