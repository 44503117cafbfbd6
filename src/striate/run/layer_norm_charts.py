"""Charts and tables of layer norms by depth, before and during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from striate.core.findings import Block, Column, Curve, Series, Table
from striate.core.format import count_text
from striate.interpret.depth.layer_profile import LayerProfile
from striate.interpret.depth.snapshots import Snapshot
from striate.run.report_images import evenly_spaced

MAX_STAGES = 5  # lines of a chart by layer
MAX_LAYERS = 6  # lines of a chart by step
QUANTITIES = {
    "gradient": "gradient of the loss per image (RMS)",
    "activation": "output before the activation function (RMS)",
    "update": "gradient-to-weight ratio (relative SGD step at learning rate 1)",
}


def chart_by_depth(
    title: str,  # title of the chart
    quantity: str,  # a key of `QUANTITIES`
    # The layer profiles of each line, by line name.
    lines: Mapping[str, Sequence[LayerProfile]],
) -> Curve:
    """Return the chart of a quantity by layer, one line per network or snapshot.

    `quantity` is a key of `QUANTITIES`.
    """
    return Curve(
        title,
        x_label="layer with weights, counted from the input",
        y_label=QUANTITIES[quantity],
        series=tuple(
            Series(
                name,
                tuple(float(level.depth) for level in levels),
                tuple(getattr(level, quantity) for level in levels),
            )
            for name, levels in lines.items()
        ),
        log_y=True,
    )


def snapshots_by_stage(
    snapshots: Sequence[Snapshot],
) -> dict[str, tuple[LayerProfile, ...]]:
    """Return the layer profiles of up to five snapshots, by training stage.

    Example:
        >>> list(snapshots_by_stage([Snapshot(step=s, layers=()) for s in (0, 1, 8)]))
        ['before training', 'after 1 step', 'after 8 steps']
    """
    return {
        stage_text(snapshot.step): snapshot.layers
        for snapshot in evenly_spaced(snapshots, MAX_STAGES)
    }


def snapshot_steps(snapshots: Sequence[Snapshot]) -> tuple[float, ...]:
    """Return each snapshot's step number plus 1, because a log axis has no 0."""
    steps = (snapshot.step for snapshot in snapshots)
    return tuple(step + 1.0 for step in steps if step is not None)


def stage_text(step: int | None) -> str:
    """Return the training stage of a snapshot as text.

    Example:
        >>> stage_text(0), stage_text(1_000), stage_text(None)
        ('before training', 'after 1,000 steps', 'as trained')
    """
    if step is None:
        return "as trained"
    if not step:
        return "before training"
    return f"after {count_text(step, 'step')}"


def chart_over_steps(snapshots: Sequence[Snapshot], quantity: str) -> Curve:
    """Return the chart of a quantity by training step, one line per layer."""
    steps = snapshot_steps(snapshots)
    depth = min(len(snapshot.layers) for snapshot in snapshots)
    return Curve(
        f"{quantity.capitalize()} during training",
        x_label="training step",
        y_label=QUANTITIES[quantity],
        series=tuple(
            Series(
                name=snapshots[0].layers[i].name,
                x=steps,
                y=tuple(getattr(each.layers[i], quantity) for each in snapshots),
            )
            for i in evenly_spaced(range(depth), MAX_LAYERS)
        ),
        log_x=True,
        log_y=True,
    )


def layer_charts(snapshots: Sequence[Snapshot]) -> list[Curve]:
    """Return all layer-norm charts of the snapshots of one network."""
    stages = snapshots_by_stage(snapshots)
    charts = [
        chart_by_depth(f"{quantity.capitalize()} by layer", quantity, stages)
        for quantity in ("gradient", "activation")
    ]
    if len(snapshot_steps(snapshots)) == len(snapshots) > 1:
        charts += [chart_over_steps(snapshots, s) for s in ("gradient", "update")]
    return charts


def layer_norms_table(snapshots: Sequence[Snapshot]) -> Table:
    """Return the table of layer norms in the first and the last snapshot."""
    moments = [snapshots[0], snapshots[-1]][: len(snapshots)]
    columns = [
        Column("Layer", "code"),
        Column("Number", "integer", key="depth", rank=3),
    ]
    for rank, moment in enumerate(moments):
        when, stage = ("first", "last")[rank], stage_text(moment.step)
        columns += [
            Column(
                f"{quantity.capitalize()}, {when}",
                "number",
                key=f"{quantity}_{when}",
                hint=f"{QUANTITIES[quantity]}, {stage}",
                rank=rank + (quantity == "update"),
            )
            for quantity in QUANTITIES
        ]
    rows = tuple(
        (
            levels[0].name,
            levels[0].depth,
            *(getattr(level, quantity) for level in levels for quantity in QUANTITIES),
        )
        for levels in zip(*(snapshot.layers for snapshot in moments), strict=False)
    )
    return Table(columns=tuple(columns), rows=rows, title="Norms by layer")


def layer_norms_blocks(snapshots: Sequence[Snapshot]) -> list[Block]:
    """Return the charts and the table of layer norms of one network."""
    return [*layer_charts(snapshots), layer_norms_table(snapshots)]
