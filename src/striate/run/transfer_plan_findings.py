"""Report blocks of a transfer plan: tables, a chart, and the proposal."""

from __future__ import annotations

from pathlib import Path

from striate.core import findings as f
from striate.core.files import write_json
from striate.core.format import count_text
from striate.finetune.linear_probe import LinearProbe
from striate.metrics.intervals import wilson_interval
from striate.report.format import percent
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.scorecard import ci_text
from striate.run.transfer_plan import MIN_TRIAL_STEPS, TransferPlan, TransferTrial

CHART = "cuts.png"
HEADS = {"logistic": "head only", "tuned": "fine-tuned"}


def write_plan(folder: Path, plan: TransferPlan) -> None:
    """Write `plan.json` and the chart of accuracy by cut point.

    Raises:
        StorageError: A file could not be written.
    """
    write_json(folder / names.PLAN, plan.as_dict())
    save_curve(depth_chart(plan), folder / names.PLOTS / CHART)


def plan_section(folder: Path) -> tuple[f.Section, ...]:
    """Return the report section on the transfer plan; empty if there is no plan."""
    if not (folder / names.PLAN).is_file():
        return ()
    plan = TransferPlan.read(folder / names.PLAN)
    blocks: list[f.Block] = [proposal(plan), depth_chart(plan)]
    tables = probe_table(plan), trial_table(plan)
    lead = "Chosen on the training split only, without validation and test images."
    return (f.Section("Transfer plan", (*blocks, *tables), lead=lead),)


def plan_findings(plan: TransferPlan) -> list[f.Block]:
    """Return the terminal report of a transfer plan: tables and the proposed trial."""
    return [probe_table(plan), trial_table(plan), proposal(plan)]


def probe_table(plan: TransferPlan) -> f.Table:
    """Return the table of linear-probe accuracy by cut point and training-set size."""
    sizes = [point.images for point in plan.probes[-1].points]
    columns = [
        f.Column("cut point", "code", hint="last frozen layer", key="cut"),
        f.Column("features", "integer", hint="per image", rank=1),
        *(
            f.Column(
                f"n = {size:,}",
                "percent",
                hint="accuracy of a probe trained on n images",
                key=f"accuracy_{size}",
                rank=0 if size == sizes[-1] else 2,
            )
            for size in sizes
        ),
        f.Column("± error", "percent", hint="standard error"),
        f.Column("", key="proposed"),
    ]
    rows = tuple(_probe_row(probe, plan) for probe in plan.probes)
    note = (
        "Accuracy by five-fold cross-validation on "
        f"{count_text(plan.images, 'training image')}; "
        "n: number of training images. Feature maps are average-pooled."
    )
    title = "Linear probes at every cut point"
    return f.Table(title=title, columns=tuple(columns), rows=rows, note=note)


def _probe_row(probe: LinearProbe, plan: TransferPlan) -> tuple[f.Cell, ...]:
    mark = "◂ proposed" if probe.cut == plan.best.cut else ""
    accuracies = tuple(point.accuracy for point in probe.points)
    return (probe.cut, probe.width, *accuracies, probe.error, mark)


def trial_table(plan: TransferPlan) -> f.Table:
    """Return the table of trials: accuracy, loss and time of each candidate."""
    columns = (
        f.Column("method"),
        f.Column("cut point", "code", hint="last frozen layer", key="cut"),
        f.Column(
            "trained layers",
            "integer",
            hint="layers or blocks after the cut point",
            key="stages",
        ),
        f.Column("batch norm", rank=1),
        f.Column("accuracy", "percent"),
        f.Column("95 % interval", key="interval", rank=1),
        f.Column("loss", "number", hint="cross-entropy after temperature scaling"),
        f.Column("trial time", "number", hint="seconds", key="seconds", rank=2),
        f.Column(
            "full time",
            "number",
            hint="expected seconds with all images and epochs",
            key="full_seconds",
        ),
        f.Column("", key="proposed"),
    )
    rows = tuple(_trial_row(trial, plan) for trial in plan.trials)
    return f.Table(title="Trials", columns=columns, rows=rows, note=_trial_note(plan))


def _trial_note(plan: TransferPlan) -> str:
    first = plan.trials[0]
    note = (
        f"Each trial used {count_text(first.train_images, 'image')} for training and "
        f"{first.eval_images:,} for evaluation. If losses differ by less than a "
        "standard error, the trial with more trained layers is proposed."
    )
    fewest = min((t.steps for t in plan.trials if t.steps), default=MIN_TRIAL_STEPS)
    if fewest < MIN_TRIAL_STEPS:
        note += (
            f" Fine-tuning had only {count_text(fewest, 'step')}, too "
            "few for a fair comparison: use "
            "more --epochs or a smaller --batch-size."
        )
    if plan.skipped:
        note += f" Skipped: {'; '.join(plan.skipped)}."
    return note


def _trial_row(trial: TransferTrial, plan: TransferPlan) -> tuple[f.Cell, ...]:
    return (
        HEADS[trial.head],
        trial.cut,
        len(trial.stages),
        trial.batch_norm or None,
        trial.accuracy,
        ci_text(wilson_interval(sum(trial.correct), trial.eval_images), 1),
        round(trial.loss, 3),
        round(trial.seconds, 1),
        round(trial.full_seconds, 1),
        "◂ proposed" if trial is plan.best else "",
    )


def proposal(plan: TransferPlan) -> f.Prose:
    """Return a text on the proposed trial: settings, expected accuracy and duration."""
    best = plan.best
    what = f"Proposed: freeze all layers up to {best.cut} and fit the head alone."
    if best.head != "logistic":
        lowest = best.lr * best.layer_decay ** (len(best.stages) - 1)
        what = (
            f"Proposed: freeze all layers up to {best.cut}, fit the head, then "
            f"fine-tune the layers or blocks after the cut point ({len(best.stages)}: "
            f"{_stage_range(best)}): learning rate {best.lr:.2g} at the head, "
            f"{lowest:.2g} at the cut point, batch norm statistics {best.batch_norm}."
        )
    expected = (
        f"Expected accuracy on the {count_text(plan.val_images, 'validation image')}: "
        f"{percent(plan.accuracy)} (95 % interval "
        f"{ci_text((plan.low, plan.high), 1)}), in about {_time(best.full_seconds)}. "
        f"The plan took {_time(plan.seconds)}."
    )
    return f.Prose(f"{what} {expected}", "advice")


def _stage_range(trial: TransferTrial) -> str:
    first, last = trial.stages[0], trial.stages[-1]
    return first if first == last else f"{first} … {last}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def depth_chart(plan: TransferPlan) -> f.Curve:
    """Return a chart of linear-probe accuracy by cut point and training-set size."""
    depth = tuple(float(i + 1) for i in range(len(plan.probes)))
    sizes = [point.images for point in plan.probes[-1].points]
    errors = [probe.error for probe in plan.probes]
    series = []
    for k, size in enumerate(sizes):
        y = tuple(probe.points[k].accuracy for probe in plan.probes)
        last = size == sizes[-1]
        pairs = list(zip(y, errors, strict=True))
        series.append(
            f.Series(
                f"trained on {size:,}",
                depth,
                y,
                low=tuple(max(0.0, a - e) for a, e in pairs) if last else None,
                high=tuple(min(1.0, a + e) for a, e in pairs) if last else None,
            )
        )
    order = [probe.cut for probe in plan.probes]
    cut = plan.best.cut
    mark = (float(order.index(cut) + 1), f"cut point {cut}") if cut in order else None
    return f.Curve(
        "Probe accuracy by cut point",
        x_label="layers or blocks before the cut point",
        y_label="accuracy of a linear probe",
        series=tuple(series),
        percent_y=True,
        mark=mark,
        note="Cross-validated on the training split. Band: one standard error.",
    )
