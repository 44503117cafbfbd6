"""Tables of the compared runs: names, settings that differ, metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from striate.core.findings import Cell, Column, Table
from striate.core.format import duration_text
from striate.report.format import percent
from striate.workflows.compare.evaluated_run import EvaluatedRun
from striate.workflows.compare.groups import RunGroup, SettingDifference, mean_and_std

MAX_COLUMNS = 4  # groups side by side; more stand in rows


def runs_table(groups: Sequence[RunGroup]) -> Table:
    """Return the table of groups of runs: letter, folder names and seeds."""
    several_seeds = any(len(group.runs) > 1 for group in groups)
    columns = [Column("", "code"), Column("run")]
    if several_seeds:
        columns.append(Column("seeds"))
    count = Counter(group.name for group in groups)
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        seeds = (", ".join(map(str, group.seeds)),) if several_seeds else ()
        name = group.name
        if len(group.runs) == 1 and count[name] > 1:  # the path tells them apart
            name = str(group.runs[0].run.path)
        rows.append((group.letter, name, *seeds))
    return Table(columns=tuple(columns), rows=tuple(rows))


def setting_differences_table(
    differences: Sequence[SettingDifference], groups: Sequence[RunGroup]
) -> Table:
    """Return the table of settings and environment values that differ."""
    letters = tuple(Column(group.letter) for group in groups)
    rows = tuple((each.name, *each.values) for each in differences)
    return Table(
        title="Settings that differ",
        columns=(Column("", "code", key="name"), *letters),
        rows=rows,
        note="" if rows else "None: all settings are equal.",
    )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of a run, with functions that format the values."""

    title: str  # name of the metric in the table
    # function from a run to the value; None if unknown
    read: Callable[[EvaluatedRun], float | None]
    write: Callable[[float], str] = (
        "{:,.0f}".format
    )  # function that formats the value of one run
    # function that formats mean and standard deviation over seeds
    write_mean: Callable[[float, float], str] = "{:,.0f} ± {:,.0f}".format

    def text(self, group: RunGroup) -> str:
        """Format a metric of a group: one value, or mean ± standard deviation."""
        values = group.values(self.read)
        if not values:
            return "–"
        mean, deviation = mean_and_std(values)
        return self.write_mean(mean, deviation) if deviation else self.write(mean)


def _share(title: str, read: Callable[[EvaluatedRun], float]) -> Metric:
    def write_mean(mean: float, deviation: float) -> str:
        return f"{100 * mean:.2f} ± {100 * deviation:.2f} %"

    return Metric(title=title, read=read, write=percent, write_mean=write_mean)


def _score(title: str, name: str) -> Metric:
    """Return a metric that is a field of the score of a run, as a percentage."""
    return _share(title, lambda run: float(vars(run.score)[name] or 0.0))


COMMON_METRICS = (
    Metric(
        title="loss (cross-entropy)",
        read=lambda run: run.score.loss,
        write="{:.4f}".format,
        write_mean="{:.4f} ± {:.4f}".format,
    ),
    _share("calibration error (ECE)", lambda run: run.score.ece),
    Metric(title="evaluated images", read=lambda run: run.score.count),
    Metric(title="parameters", read=lambda run: run.manifest.get("parameters")),
    Metric(title="MACs per image", read=lambda run: run.macs),
    Metric(
        title="training time",
        read=lambda run: run.manifest.get("seconds"),
        write=duration_text,
        write_mean="{:,.1f} ± {:,.1f} s".format,
    ),
    Metric(
        title="training images/s",
        read=lambda run: run.manifest.get("images_per_second"),
    ),
    Metric(
        title="best epoch",
        read=lambda run: run.manifest.get("best_epoch"),
        write_mean="{:.1f} ± {:.1f}".format,
    ),
)


METRICS = (
    _score("accuracy", "accuracy"),
    _score("balanced accuracy", "balanced_accuracy"),
    *COMMON_METRICS,
)
LABEL_METRICS = (
    _score("exact match", "accuracy"),
    _score("mAP", "map"),
    _score("F1, micro", "micro_f1"),
    _score("F1, macro", "macro_f1"),
    *COMMON_METRICS,
)


def metrics_table(groups: Sequence[RunGroup], split: str) -> Table:
    """Return the table of metrics, with intervals or standard deviations."""
    several = groups[0].runs[0].predictions.labels.multi_label
    metrics = LABEL_METRICS if several else METRICS
    lines = [(m.title, [m.text(group) for group in groups]) for m in metrics]
    if all(len(group.runs) == 1 for group in groups):
        limits = [group.runs[0].score.interval for group in groups]
        texts = [f"{100 * low:.1f}–{100 * high:.1f} %" for low, high in limits]
        lines.insert(1, ("95 % interval", texts))
    several_seeds = any(len(group.runs) > 1 for group in groups)
    columns, rows = _lay_out([group.letter for group in groups], lines)
    return Table(
        title=f"Results on the {split} split",
        columns=columns,
        rows=rows,
        note="Mean ± standard deviation over the seeds." * several_seeds,
    )


def _lay_out(
    letters: Sequence[str], lines: Sequence[tuple[str, list[str]]]
) -> tuple[tuple[Column, ...], tuple[tuple[Cell, ...], ...]]:
    """Return a table with groups of runs as columns, or as rows if there are many."""
    if len(letters) <= MAX_COLUMNS:
        heads = [Column(letter, "number") for letter in letters]
        rows = tuple((name, *cells) for name, cells in lines)
        return (Column("", key="metric"), *heads), rows
    titles = [name for name, _ in lines]
    heads = [Column(t, "number", rank=i) for i, t in enumerate(titles)]
    rows = tuple(zip(letters, *(cells for _, cells in lines), strict=True))
    return (Column("", key="group"), *heads), rows
