"""Charts and tables of layers by depth, at initialization and through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from striate.core.findings import Block, Cell, Column, Curve, Series, Table
from striate.interpret.depth.layer_profile import Level
from striate.interpret.depth.snapshots import Snapshot
from striate.run.images import evenly_spaced

STAGES = 5  # of learning, drawn as a line each
LAYERS = 6  # followed through learning, likewise
QUANTITIES = {
    "gradient": "gradient of an image's cost, root mean square",
    "activation": "output before its activation, root mean square",
    "update": "gradient over weight: what a step of rate 1 changes",
}


def chart_by_depth(
    title: str, size: str, lines: Mapping[str, Sequence[Level]]
) -> Curve:
    """Return one size of the layers against their number, a line a network or stage.

    Args:
        title: Of the chart.
        size: A key of `QUANTITIES`.
        lines: The layers by the line's name.
    """
    return Curve(
        title=title,
        x_label="layer with weights, from the input",
        y_label=QUANTITIES[size],
        series=tuple(
            Series(
                name=name,
                x=tuple(float(level.depth) for level in levels),
                y=tuple(getattr(level, size) for level in levels),
            )
            for name, levels in lines.items()
        ),
        log_y=True,
    )


def snapshots_by_stage(snapshots: Sequence[Snapshot]) -> dict[str, tuple[Level, ...]]:
    """Return layers at some stages of learning, the first and the last among them.

    Example:
        >>> list(snapshots_by_stage([Snapshot(step=s, levels=()) for s in (0, 1, 8)]))
        ['at initialization', 'after 1 step', 'after 8 steps']
    """
    return {
        stage_text(one.step): one.levels for one in evenly_spaced(snapshots, STAGES)
    }


def snapshot_steps(snapshots: Sequence[Snapshot]) -> tuple[float, ...]:
    """Return the step that sees each snapshot, the first of a run being 1.

    What is found after n steps is what step n + 1 sees: 0 has no place on a logarithm.
    """
    return tuple(one.step + 1.0 for one in snapshots if one.step is not None)


def stage_text(step: int | None) -> str:
    """Say when it was.

    Example:
        >>> stage_text(0), stage_text(1_000), stage_text(None)
        ('at initialization', 'after 1,000 steps', 'as trained')
    """
    if step is None:
        return "as trained"
    if not step:
        return "at initialization"
    return f"after {step:,} step{'' if step == 1 else 's'}"


def chart_over_steps(snapshots: Sequence[Snapshot], size: str) -> Curve:
    """Return one size of some layers against the step of learning."""
    steps = snapshot_steps(snapshots)
    numbers = evenly_spaced(range(min(len(one.levels) for one in snapshots)), LAYERS)
    return Curve(
        title=f"{size.capitalize()} through training",
        x_label="step that sees it",
        y_label=QUANTITIES[size],
        series=tuple(
            Series(
                name=snapshots[0].levels[i].name,
                x=steps,
                y=tuple(getattr(one.levels[i], size) for one in snapshots),
            )
            for i in numbers
        ),
        log_x=True,
        log_y=True,
    )


def layer_charts(snapshots: Sequence[Snapshot]) -> list[Curve]:
    """Return all charts of one network's snapshots."""
    charts = [
        chart_by_depth(
            f"{size.capitalize()} by layer", size, snapshots_by_stage(snapshots)
        )
        for size in ("gradient", "activation")
    ]
    if len(snapshot_steps(snapshots)) == len(snapshots) > 1:
        charts += [chart_over_steps(snapshots, s) for s in ("gradient", "update")]
    return charts


def layer_norms_table(snapshots: Sequence[Snapshot]) -> Table:
    """Return every layer's sizes in the first and in the last snapshot."""
    first, last = snapshots[0], snapshots[-1]
    moments = [first] if len(snapshots) == 1 else [first, last]
    columns = [
        Column(title="Layer", kind="code", key="layer"),
        Column(title="Number", kind="integer", key="depth", rank=3),
    ]
    for when, rank in zip(("first", "last"), (0, 1), strict=False):
        word = stage_text((first if when == "first" else last).step)
        columns += [
            Column(
                title=f"{size.capitalize()}, {when}",
                kind="number",
                key=f"{size}_{when}",
                hint=f"{QUANTITIES[size]}, {word}",
                rank=rank + (size == "update"),
            )
            for size in QUANTITIES
        ]
        if len(moments) == 1:
            break
    rows = tuple(
        (levels[0].name, levels[0].depth, *_sizes(levels))
        for levels in zip(*(one.levels for one in moments), strict=False)
    )
    return Table(columns=tuple(columns), rows=rows, title="Layer by layer")


def _sizes(levels: Sequence[Level]) -> list[Cell]:
    return [getattr(level, size) for level in levels for size in QUANTITIES]


def layer_norms_blocks(snapshots: Sequence[Snapshot]) -> list[Block]:
    """Return the charts and the table of one network's snapshots."""
    return [*layer_charts(snapshots), layer_norms_table(snapshots)]


def lr_range_chart(rows: list[tuple[float, float]], chosen: float) -> Curve:
    """Return a range test's chart, the chosen rate marked."""
    rates, costs = zip(*rows, strict=True)
    return Curve(
        title="Learning-rate range test",
        x_label="learning rate",
        y_label="training cost, smoothed",
        series=(Series(name="cost", x=rates, y=costs),),
        log_x=True,
        mark=(chosen, f"chosen: {chosen:g}"),
        note="One step a rate, on a copy of the network.",
    )
