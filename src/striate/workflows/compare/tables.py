"""A comparison's figures as tables: what differs, how good each is, by how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from striate.core.findings import Cell, Column, Table
from striate.report.format import percent
from striate.run.report_page import duration
from striate.workflows.compare.evaluated_run import Contender
from striate.workflows.compare.groups import Differing, Side, mean_and_deviation

ABREAST = 4  # sides that stand side by side; more stand one below another
CLASSES_SHOWN = 30


def runs_table(compared: Sequence[Side]) -> Table:
    """Return what the letters mean."""
    several = any(len(side.runs) > 1 for side in compared)
    columns = [Column(title="", kind="code"), Column(title="run")]
    rows: list[tuple[Cell, ...]] = []
    for side in compared:
        seeds = (", ".join(map(str, side.seeds)),) if several else ()
        rows.append((side.letter, _place(side, compared), *seeds))
    if several:
        columns.append(Column(title="seeds"))
    return Table(columns=tuple(columns), rows=tuple(rows))


def _place(side: Side, compared: Sequence[Side]) -> str:
    """Return the folder's name, or its path where names repeat."""
    names = [other.name for other in compared]
    if len(side.runs) == 1 and names.count(side.name) > 1:
        return str(side.runs[0].run.path)
    return side.name


def differing_table(found: Sequence[Differing], compared: Sequence[Side]) -> Table:
    """Return the settings and circumstances that differ, and no others."""
    heads = tuple(Column(title=side.letter) for side in compared)
    rows = tuple((one.name, *one.values) for one in found)
    return Table(
        title="What differs",
        columns=(Column(title="", kind="code", key="name"), *heads),
        rows=rows,
        note="" if rows else "Nothing: all settings are equal.",
    )


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of a run, how it is written, and how with a deviation over seeds."""

    title: str
    ask: Callable[[Contender], float | None]
    write: Callable[[float], str]
    spread: Callable[[float, float], str] = "{:,.0f} ± {:,.0f}".format

    def of(self, side: Side) -> str:
        """Return the figure of a side: its run's, or the mean over its seeds."""
        values = side.values(self.ask)
        if not values:
            return "–"
        mean, deviation = mean_and_deviation(values)
        return self.spread(mean, deviation) if deviation else self.write(mean)


def _fact(name: str) -> Callable[[Contender], float | None]:
    return lambda run: run.facts.get(name)


def _share(title: str, ask: Callable[[Contender], float]) -> Measure:
    def spread(mean: float, deviation: float) -> str:
        return f"{100 * mean:.2f} ± {100 * deviation:.2f} %"

    return Measure(title=title, ask=ask, write=percent, spread=spread)


def _count(title: str, ask: Callable[[Contender], float | None]) -> Measure:
    return Measure(title=title, ask=ask, write="{:,.0f}".format)


MEASURES = (
    _share("accuracy", lambda run: run.score.accuracy),
    _share("balanced accuracy", lambda run: run.score.balanced_accuracy),
    Measure(
        title="cross-entropy, nats",
        ask=lambda run: run.score.loss,
        write="{:.4f}".format,
        spread="{:.4f} ± {:.4f}".format,
    ),
    _share("calibration error", lambda run: run.score.ece),
    _count("images judged", lambda run: run.score.count),
    _count("parameters", _fact("parameters")),
    _count("multiply-adds", lambda run: run.macs),
    Measure(
        title="training time",
        ask=_fact("seconds"),
        write=duration,
        spread="{:,.1f} ± {:,.1f} s".format,
    ),
    _count("images/s", _fact("images_per_second")),
    Measure(
        title="best epoch",
        ask=_fact("best_epoch"),
        write="{:.0f}".format,
        spread="{:.1f} ± {:.1f}".format,
    ),
)


def results_table(compared: Sequence[Side], split: str) -> Table:
    """Return every side's figures; accuracies with their intervals or deviations."""
    lines = [(m.title, [m.of(side) for side in compared]) for m in MEASURES]
    if all(len(side.runs) == 1 for side in compared):
        lines.insert(1, ("95 % interval", [_interval(side) for side in compared]))
    several = any(len(side.runs) > 1 for side in compared)
    return _laid(
        f"On the {split} split",
        [side.letter for side in compared],
        lines,
        "Mean ± deviation over the seeds." * several,
    )


def _interval(side: Side) -> str:
    low, high = side.runs[0].score.interval
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def _laid(
    title: str,
    letters: Sequence[str],
    lines: Sequence[tuple[str, list[str]]],
    note: str,
) -> Table:
    """Lay a few sides out in columns, more in rows."""
    if len(letters) <= ABREAST:
        heads = [Column(title=letter, kind="number") for letter in letters]
        rows: list[tuple[Cell, ...]] = [(name, *cells) for name, cells in lines]
        columns = (Column(title="", key="measure"), *heads)
        return Table(title=title, columns=columns, rows=tuple(rows), note=note)
    heads = [
        Column(title=name, kind="number", rank=i) for i, (name, _) in enumerate(lines)
    ]
    cells = zip(*(cells for _, cells in lines), strict=True)
    rows = [(letter, *row) for letter, row in zip(letters, cells, strict=True)]
    columns = (Column(title="", key="side"), *heads)
    return Table(title=title, columns=columns, rows=tuple(rows), note=note)
