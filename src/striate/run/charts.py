"""Charts and tables of layers by depth, at initialization and through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from striate.core.findings import Block, Cell, Column, Curve, Series, Table
from striate.interpret.depth.layer_profile import LayerProfile
from striate.interpret.depth.snapshots import Snapshot
from striate.run.images import evenly

STAGES = 5  # of learning, drawn as a line each
LAYERS = 6  # followed through learning, likewise
SIZES = {
    "gradient": "gradient of an image's cost, root mean square",
    "activation": "output before its activation, root mean square",
    "update": "gradient over weight: what a step of rate 1 changes",
}


def by_depth(
    title: str, size: str, lines: Mapping[str, Sequence[LayerProfile]]
) -> Curve:
    """Return one size of the layers against their number, a line a network or stage.

    Args:
        title: Of the chart.
        size: A key of `SIZES`.
        lines: The layers by the line's name.
    """
    return Curve(
        title=title,
        x_label="layer with weights, from the input",
        y_label=SIZES[size],
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


def stages(snapshots: Sequence[Snapshot]) -> dict[str, tuple[LayerProfile, ...]]:
    """Return layers at some stages of learning, the first and the last among them.

    Example:
        >>> list(stages([Snapshot(step=s, layers=()) for s in (0, 1, 8)]))
        ['at initialization', 'after 1 step', 'after 8 steps']
    """
    return {stage_name(one.step): one.layers for one in evenly(snapshots, STAGES)}


def sights(snapshots: Sequence[Snapshot]) -> tuple[float, ...]:
    """Return the step that sees each snapshot, the first of a run being 1.

    What is found after n steps is what step n + 1 sees: 0 has no place on a logarithm.
    """
    return tuple(one.step + 1.0 for one in snapshots if one.step is not None)


def stage_name(step: int | None) -> str:
    """Say when it was.

    Example:
        >>> stage_name(0), stage_name(1_000), stage_name(None)
        ('at initialization', 'after 1,000 steps', 'as trained')
    """
    if step is None:
        return "as trained"
    if not step:
        return "at initialization"
    return f"after {step:,} step{'' if step == 1 else 's'}"


def through_training(snapshots: Sequence[Snapshot], size: str) -> Curve:
    """Return one size of some layers against the step of learning."""
    steps = sights(snapshots)
    numbers = evenly(range(min(len(one.layers) for one in snapshots)), LAYERS)
    return Curve(
        title=f"{size.capitalize()} through training",
        x_label="step that sees it",
        y_label=SIZES[size],
        series=tuple(
            Series(
                name=snapshots[0].layers[i].name,
                x=steps,
                y=tuple(getattr(one.layers[i], size) for one in snapshots),
            )
            for i in numbers
        ),
        log_x=True,
        log_y=True,
    )


def course_curves(snapshots: Sequence[Snapshot]) -> list[Curve]:
    """Return all charts of one network's snapshots."""
    charts = [
        by_depth(f"{size.capitalize()} by layer", size, stages(snapshots))
        for size in ("gradient", "activation")
    ]
    if len(sights(snapshots)) == len(snapshots) > 1:
        charts += [through_training(snapshots, s) for s in ("gradient", "update")]
    return charts


def course_table(snapshots: Sequence[Snapshot]) -> Table:
    """Return every layer's sizes in the first and in the last snapshot."""
    first, last = snapshots[0], snapshots[-1]
    moments = [first] if len(snapshots) == 1 else [first, last]
    columns = [
        Column(title="Layer", kind="code", key="layer"),
        Column(title="Number", kind="integer", key="depth", rank=3),
    ]
    for when, rank in zip(("first", "last"), (0, 1), strict=False):
        word = stage_name((first if when == "first" else last).step)
        columns += [
            Column(
                title=f"{size.capitalize()}, {when}",
                kind="number",
                key=f"{size}_{when}",
                hint=f"{SIZES[size]}, {word}",
                rank=rank + (size == "update"),
            )
            for size in SIZES
        ]
        if len(moments) == 1:
            break
    rows = tuple(
        (levels[0].name, levels[0].depth, *_sizes(levels))
        for levels in zip(*(one.layers for one in moments), strict=False)
    )
    return Table(columns=tuple(columns), rows=rows, title="Layer by layer")


def _sizes(levels: Sequence[LayerProfile]) -> list[Cell]:
    return [getattr(level, size) for level in levels for size in SIZES]


def course_blocks(snapshots: Sequence[Snapshot]) -> list[Block]:
    """Return the charts and the table of one network's snapshots."""
    return [*course_curves(snapshots), course_table(snapshots)]


def range_curve(rows: list[tuple[float, float]], chosen: float) -> Curve:
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
