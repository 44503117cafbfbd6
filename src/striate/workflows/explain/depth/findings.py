"""Report section on depth: gradients by layer, in a run and in deep chains."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from striate.core import findings as f
from striate.core.errors import RunError
from striate.core.format import count_text
from striate.data.batches import batches_in_order
from striate.interpret.depth.layer_profile import depth_profile
from striate.interpret.depth.snapshots import Snapshot
from striate.layers.whiten import whiten_layers
from striate.report.format import number, percent
from striate.run.layer_norm_charts import (
    chart_by_depth,
    layer_norms_blocks,
    snapshot_steps,
)
from striate.run.layer_norms import MAX_IMAGES
from striate.run.run import Run
from striate.workflows.explain.depth.depth_study import (
    ChainResult,
    DepthStudy,
    depth_study,
)
from striate.workflows.explain.images import subsample
from striate.workflows.explain.options import OnProgress, no_progress

SMOOTH = 8  # steps whose losses are averaged for a point of the chart
VANISHING = 1e-3  # of the last layer's gradient: the first layer then does not learn


def run_snapshots(run: Run) -> list[Snapshot]:
    """Return layer statistics of a run, before and during or after training.

    Recorded statistics are preferred. Else the initial weights are created again, if
    the network has a name and random initial weights.
    """
    if recorded := run.layer_norms:
        return recorded
    subset = subsample(run.data.subset("train"), MAX_IMAGES)
    x, y = next(batches_in_order(subset, run.preprocess, len(subset)))
    current = Snapshot(step=None, layers=tuple(depth_profile(run.model, x, y, True)))
    try:
        untrained = None if run.recipe.pretrained else run.fresh_model()
    except RunError:
        untrained = None
    if untrained is None or whiten_layers(untrained):
        return [current]
    first = depth_profile(untrained, x, y, True)
    return [Snapshot(step=0, layers=tuple(first)), current]


def depth_section(
    run: Run, on_progress: OnProgress = no_progress
) -> tuple[f.Section, dict[str, Any]]:
    """Return the report section on gradients by layer, in a run and in deep chains."""
    snapshots = run_snapshots(run)
    study = depth_study(run.data, seed=run.recipe.seed, on_progress=on_progress)
    depth = study.chains[0].design.depth
    count = min(MAX_IMAGES, len(run.data.subset("train")))
    lead = (
        "The gradient of an early layer is a product of one factor per layer. First "
        f"this network, over {count_text(count, 'training image')}. "
        f"Then chains of {depth} "
        "layers that differ only in activation and shortcuts, without batch norm, each "
        "trained on these images with its best learning rate."
    )
    blocks = [*layer_norms_blocks(snapshots), *study_blocks(study)]
    data = {
        "layers": [
            {"step": chain.step, "levels": [asdict(level) for level in chain.layers]}
            for chain in snapshots
        ],
        "chains": [_as_data(chain) for chain in study.chains],
        "majority_accuracy": study.majority_accuracy,
    }
    return f.Section("Gradients by depth", tuple(blocks), lead=lead), data


def study_blocks(study: DepthStudy) -> list[f.Block]:
    """Return the text, table and charts of a depth study."""
    return [*_text(study), _table(study), *study_curves(study)]


def study_curves(study: DepthStudy) -> list[f.Curve]:
    """Return the charts of a depth study: activations, gradients and training loss."""
    chains = {chain.design.name: chain for chain in study.chains}
    first = {name: chain.snapshots[0].layers for name, chain in chains.items()}
    last = {name: chain.snapshots[-1].layers for name, chain in chains.items()}
    return [
        chart_by_depth("Chains: gradients at initialization", "gradient", first),
        chart_by_depth("Chains: gradients after training", "gradient", last),
        chart_by_depth("Chains: activations at initialization", "activation", first),
        chart_by_depth("Chains: activations after training", "activation", last),
        _first_layers(chains),
        _loss_curve(chains),
    ]


def _first_layers(chains: dict[str, ChainResult]) -> f.Curve:
    return f.Curve(
        "Chains: gradient of the first layer",
        x_label="training step",
        y_label="gradient of the loss, root mean square",
        series=tuple(
            f.Series(
                name,
                snapshot_steps(chain.snapshots),
                tuple(s.layers[0].gradient for s in chain.snapshots),
            )
            for name, chain in chains.items()
        ),
        log_x=True,
        log_y=True,
    )


def _loss_curve(chains: dict[str, ChainResult]) -> f.Curve:
    return f.Curve(
        "Chains: training loss",
        x_label="step",
        y_label="cross-entropy loss",
        series=tuple(_smoothed(name, chain.losses) for name, chain in chains.items()),
        note=f"Mean of {SMOOTH} steps.",
    )


def _smoothed(name: str, losses: tuple[float, ...]) -> f.Series:
    starts = range(0, len(losses), SMOOTH)
    groups = [losses[start : start + SMOOTH] for start in starts]
    x = tuple(start + len(g) / 2 for start, g in zip(starts, groups, strict=True))
    return f.Series(name, x, tuple(sum(group) / len(group) for group in groups))


def _table(study: DepthStudy) -> f.Table:
    columns = (
        f.Column("Chain"),
        f.Column(
            "Factor per Layer",
            "number",
            key="factor",
            hint="change of the gradient per additional layer of distance from the "
            "loss",
        ),
        f.Column(
            "First / Last",
            "number",
            key="first",
            hint="gradient of the first layer over that of the last, at initialization",
        ),
        f.Column(
            "First / Last, trained",
            "number",
            key="end",
            hint="the same ratio after training",
        ),
        f.Column("Accuracy", "percent"),
        f.Column("Learning Rate", "number", key="lr", rank=2),
    )
    rows: tuple[tuple[f.Cell, ...], ...] = tuple(
        (c.design.name, c.factor, c.first, c.end, c.accuracy, c.lr)
        for c in study.chains
    )
    steps = len(study.chains[0].losses)
    note = (
        f"{count_text(steps, 'step')} of SGD with momentum; accuracy on "
        f"{count_text(study.num_images, 'validation image')}; always "
        "predicting the most frequent class: "
        f"{percent(study.majority_accuracy)}."
    )
    return f.Table(title="Chains", columns=columns, rows=rows, note=note)


def _text(study: DepthStudy) -> list[f.Block]:
    """Return a sentence per activation function: the effect of depth and shortcuts."""
    blocks: list[f.Block] = []
    for plain, twin in study.twins:
        vanishes = plain.first < VANISHING
        head = (
            f"{plain.design.activation}: the gradient of the first layer is "
            f"{number(plain.first)} of that of the last (factor {number(plain.factor)} "
            f"per layer); accuracy after training {percent(plain.accuracy)}."
        )
        tail = (
            f" With shortcuts: {number(twin.first)} (factor {number(twin.factor)}), "
            f"accuracy {percent(twin.accuracy)}."
        )
        blocks.append(f.Prose(head + tail, "warning" if vanishes else "plain"))
    return blocks


def _as_data(chain: ChainResult) -> dict[str, Any]:
    return {
        **asdict(chain.design),
        "lr": chain.lr,
        "factor": chain.factor,
        "first_over_last": chain.first,
        "first_over_last_trained": chain.end,
        "accuracy": chain.accuracy,
        "steps": len(chain.losses),
        "snapshots": [
            {
                "step": snapshot.step,
                "activation": [level.activation for level in snapshot.layers],
                "gradient": [level.gradient for level in snapshot.layers],
            }
            for snapshot in chain.snapshots
        ],
    }
