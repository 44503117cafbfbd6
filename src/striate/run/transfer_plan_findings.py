"""What a plan says: its tables, its chart, and what it proposes in words."""

from __future__ import annotations

from pathlib import Path

from striate.core.files import write_json
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Prose,
    Section,
    Series,
    Table,
)
from striate.finetune.linear_probe import Probe
from striate.metrics.intervals import wilson_interval
from striate.report.format import percent
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.scorecard import span
from striate.run.transfer_plan import STEPS, TransferPlan, TransferTrial

CHART = "cuts.png"
HEADS = {"logistic": "head alone", "tuned": "fine-tuned"}


def write_plan(folder: Path, proposal: TransferPlan) -> None:
    """Write `plan.json` and the chart of accuracy against depth.

    Raises:
        StorageError: The disk refused.
    """
    write_json(folder / names.PLAN, proposal.as_dict())
    save_curve(depth_curve(proposal), folder / names.PLOTS / CHART)


def plan_section(folder: Path) -> tuple[Section, ...]:
    """Return what a run's report says of its plan; nothing where it had none."""
    if not (folder / names.PLAN).is_file():
        return ()
    proposal = TransferPlan.read(folder / names.PLAN)
    blocks: list[Block] = [proposed(proposal), depth_curve(proposal)]
    tables = probe_table(proposal), trial_table(proposal)
    lead = "Chosen on the training split; validation and test played no part in it."
    return (Section(title="Plan", lead=lead, blocks=(*blocks, *tables)),)


def findings(proposal: TransferPlan) -> list[Block]:
    """Return what a terminal shows before it is done."""
    return [probe_table(proposal), trial_table(proposal), proposed(proposal)]


def probe_table(proposal: TransferPlan) -> Table:
    """Return what a linear head comes to at every cut, from ever more images."""
    sizes = [point.images for point in proposal.probes[-1].points]
    columns = [
        Column(title="cut behind", kind="code", key="cut"),
        Column(title="numbers", kind="integer", hint="of an image", rank=1),
        *(
            Column(
                title=f"from {size:,}",
                kind="percent",
                hint="right, having learned from so many images",
                key=f"accuracy_{size}",
                rank=0 if size == sizes[-1] else 2,
            )
            for size in sizes
        ),
        Column(title="± error", kind="percent", hint="standard error", key="error"),
        Column(title="", key="proposed"),
    ]
    rows = tuple(_probe_row(probe, proposal) for probe in proposal.probes)
    note = f"Cross-validated on {proposal.images:,} training images; maps averaged."
    return Table(
        title="A linear head at every cut", columns=tuple(columns), rows=rows, note=note
    )


def _probe_row(probe: Probe, proposal: TransferPlan) -> tuple[Cell, ...]:
    mark = "◂ cut here" if probe.cut == proposal.best.cut else ""
    shares = tuple(point.accuracy for point in probe.points)
    return (probe.cut, probe.width, *shares, probe.error, mark)


def trial_table(proposal: TransferPlan) -> Table:
    """Return what was tried, and what it came to."""
    columns = (
        Column(title="what"),
        Column(title="cut behind", kind="code", key="cut"),
        Column(
            title="learn",
            kind="integer",
            hint="layers or blocks behind the cut",
            key="stages",
        ),
        Column(title="batch norm", key="batch_norm", rank=1),
        Column(title="accuracy", kind="percent"),
        Column(title="95 % interval", key="interval", rank=1),
        Column(
            title="cost",
            kind="number",
            hint="cross-entropy at the best temperature",
        ),
        Column(title="s", kind="number", hint="the trial took", key="seconds", rank=2),
        Column(
            title="s for all",
            kind="number",
            hint="with all images and epochs, reckoned from the trial",
            key="whole",
        ),
        Column(title="", key="proposed"),
    )
    rows = tuple(_trial_row(trial, proposal) for trial in proposal.trials)
    first = proposal.trials[0]
    note = (
        f"Each learned from {first.learned:,} training images and was judged by "
        f"{first.judged:,} others. Costs are compared by their standard error: within "
        "it, what learns more is proposed."
    )
    fewest = min((t.steps for t in proposal.trials if t.steps), default=STEPS)
    if fewest < STEPS:
        note += (
            f" Fine-tuning was tried in {fewest} steps: too few to tell ways apart; "
            "more --epochs, or a smaller --batch-size, would."
        )
    if proposal.left_out:
        note += f" Left out: {'; '.join(proposal.left_out)}."
    return Table(title="Tried", columns=columns, rows=rows, note=note)


def _trial_row(trial: TransferTrial, proposal: TransferPlan) -> tuple[Cell, ...]:
    return (
        HEADS[trial.head],
        trial.cut,
        len(trial.stages),
        trial.batch_norm or None,
        trial.accuracy,
        span(wilson_interval(sum(trial.right), trial.judged), 1),
        round(trial.cost, 3),
        round(trial.seconds, 1),
        round(trial.whole, 1),
        "◂ proposed" if trial is proposal.best else "",
    )


def proposed(proposal: TransferPlan) -> Prose:
    """Say what is proposed, and what it is expected to come to and to cost."""
    best = proposal.best
    what = f"Proposed: keep everything up to {best.cut} and fit the head alone."
    if best.head != "logistic":
        lowest = best.lr * best.lr_decay ** (len(best.stages) - 1)
        what = (
            f"Proposed: keep everything up to {best.cut}, fit the head, then let the "
            f"{len(best.stages)} layers or blocks behind it learn ({_named(best)}): "
            f"rate {best.lr:.2g} at the head, falling to {lowest:.2g}, batch norm "
            f"{best.batch_norm}."
        )
    hope = (
        f"Expected on the {proposal.judging:,} validation images: "
        f"{percent(proposal.accuracy)} (95 % interval "
        f"{span((proposal.low, proposal.high), 1)}), in about {_time(best.whole)}. "
        f"The plan took {_time(proposal.seconds)}."
    )
    return Prose(text=f"{what} {hope}", tone="advice")


def _named(trial: TransferTrial) -> str:
    first, last = trial.stages[0], trial.stages[-1]
    return first if first == last else f"{first} … {last}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def depth_curve(proposal: TransferPlan) -> Curve:
    """Return accuracy against the depth of the cut, one line for each fraction."""
    depth = tuple(float(i + 1) for i in range(len(proposal.probes)))
    sizes = [point.images for point in proposal.probes[-1].points]
    series = []
    for k, size in enumerate(sizes):
        y = tuple(probe.points[k].accuracy for probe in proposal.probes)
        last = size == sizes[-1]
        error = tuple(probe.error for probe in proposal.probes)
        pairs = list(zip(y, error, strict=True))
        series.append(
            Series(
                name=f"learned from {size:,}",
                x=depth,
                y=y,
                low=tuple(max(0.0, a - e) for a, e in pairs) if last else None,
                high=tuple(min(1.0, a + e) for a, e in pairs) if last else None,
            )
        )
    order = [probe.cut for probe in proposal.probes]
    cut = proposal.best.cut
    mark = (float(order.index(cut) + 1), f"cut behind {cut}") if cut in order else None
    return Curve(
        title="Accuracy by depth of the cut",
        x_label="layers or blocks below the cut",
        y_label="a linear head's accuracy",
        series=tuple(series),
        percent_y=True,
        mark=mark,
        note="Cross-validated on the training split. Band: one standard error.",
    )
