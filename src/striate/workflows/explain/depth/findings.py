"""What depth does, as a page's section: a run's own layers, and chains to compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from striate.core.errors import RunError
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
from striate.data.batches import Batches
from striate.interpret.depth.layer_profile import depth_profile
from striate.interpret.depth.snapshots import Snapshot
from striate.layers.whiten import whiten_layers
from striate.report.format import number, percent
from striate.run.charts import by_depth, course_blocks, sights
from striate.run.layer_norms import IMAGES
from striate.run.run import Run
from striate.workflows.explain.depth.depth_study import Course, DepthStudy, depth_study
from striate.workflows.explain.images import Told, nobody, some

SMOOTH = 8  # steps whose costs are averaged for a point of the chart
VANISHING = 1e-3  # of the last layer's gradient: below this the first learns nothing


def own_layers(run: Run) -> list[Snapshot]:
    """Return a run's layers through training where it kept them, else now and before.

    Before is the network built again, where it has a name and began from noise.
    """
    if kept := run.norms:
        return kept
    subset = some(run.data.subset("train"), IMAGES)
    made = Batches(
        subset=subset, preprocess=run.preprocess, batch_size=len(subset), shuffle=False
    )
    x, y = next(made(0))
    now = Snapshot(step=None, levels=tuple(depth_profile(run.model, x, y, True)))
    try:
        fresh = None if run.recipe.pretrained else run.fresh_model()
    except RunError:
        fresh = None
    if fresh is None or whiten_layers(fresh):
        return [now]
    return [Snapshot(step=0, levels=tuple(depth_profile(fresh, x, y, True))), now]


def depth_section(run: Run, told: Told = nobody) -> tuple[Section, dict[str, Any]]:
    """Show a run's layers by depth, and what activations and shortcuts do to them."""
    own = own_layers(run)
    study = depth_study(run.data, seed=run.recipe.seed, told=told)
    depth = study.courses[0].design.depth
    lead = (
        f"A gradient that came through many layers is a product of as many factors. "
        f"First this network, over {IMAGES} training images; then chains of "
        f"{depth} layers that differ in activation and shortcuts alone, without batch "
        "norm, each trained on these images at the best of some rates."
    )
    blocks = [*course_blocks(own), *study_blocks(study)]
    data = {
        "layers": [
            {"step": one.step, "levels": [asdict(level) for level in one.levels]}
            for one in own
        ],
        "chains": [_plain(one) for one in study.courses],
        "chance": study.chance,
    }
    return Section(title="What depth does", lead=lead, blocks=tuple(blocks)), data


def study_blocks(study: DepthStudy) -> list[Block]:
    """Return the words, the table and the charts of a study."""
    return [*_words(study), _table(study), *study_curves(study)]


def study_curves(study: DepthStudy) -> list[Curve]:
    """Return the charts of a study: at initialization, after training, and between."""
    chains = {one.design.name: one for one in study.courses}
    first = {name: one.snapshots[0].levels for name, one in chains.items()}
    last = {name: one.snapshots[-1].levels for name, one in chains.items()}
    return [
        by_depth("Chains: gradients at initialization", "gradient", first),
        by_depth("Chains: gradients after training", "gradient", last),
        by_depth("Chains: activations at initialization", "activation", first),
        by_depth("Chains: activations after training", "activation", last),
        _first_layers(chains),
        _costs(chains),
    ]


def _first_layers(chains: dict[str, Course]) -> Curve:
    return Curve(
        title="Chains: the first layer's gradient",
        x_label="step that sees it",
        y_label="gradient of an image's cost, root mean square",
        series=tuple(
            Series(
                name=name,
                x=sights(one.snapshots),
                y=tuple(s.levels[0].gradient for s in one.snapshots),
            )
            for name, one in chains.items()
        ),
        log_x=True,
        log_y=True,
    )


def _costs(chains: dict[str, Course]) -> Curve:
    return Curve(
        title="Chains: cost through training",
        x_label="step",
        y_label="cross-entropy, nats",
        series=tuple(
            Series(name=name, **_smooth(one.costs)) for name, one in chains.items()
        ),
        note=f"Means of {SMOOTH} steps.",
    )


def _smooth(costs: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    starts = range(0, len(costs), SMOOTH)
    groups = [costs[start : start + SMOOTH] for start in starts]
    x = tuple(start + len(g) / 2 for start, g in zip(starts, groups, strict=True))
    return {"x": x, "y": tuple(sum(group) / len(group) for group in groups)}


def _table(study: DepthStudy) -> Table:
    columns = (
        Column(title="Chain", key="chain"),
        Column(
            title="Factor a layer",
            kind="number",
            key="factor",
            hint="what one layer more between it and the answer makes of a gradient",
        ),
        Column(
            title="First over last",
            kind="number",
            key="first",
            hint="gradient of the first layer over that of the last, at initialization",
        ),
        Column(
            title="after training", kind="number", key="end", hint="the same at the end"
        ),
        Column(title="Accuracy", kind="percent", key="accuracy"),
        Column(title="Rate", kind="number", key="lr", rank=2),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (c.design.name, c.factor, c.first, c.end, c.accuracy, c.lr)
        for c in study.courses
    )
    steps = len(study.courses[0].costs)
    note = (
        f"{steps:,} steps of SGD with momentum; accuracy on {study.judged:,} "
        f"validation images, {percent(study.chance)} by naming the commonest class."
    )
    return Table(title="Chains", columns=columns, rows=rows, note=note)


def _words(study: DepthStudy) -> list[Block]:
    """Say of each activation what depth did to it, and what shortcuts do."""
    said: list[Block] = []
    for plain, twin in study.twins:
        lost = plain.first < VANISHING
        head = (
            f"{plain.design.activation}: the first layer gets {number(plain.first)} of "
            f"the last one's gradient, {number(plain.factor)} times as much with each "
            f"layer of way, and {percent(plain.accuracy)} are answered rightly after "
            "training"
        )
        tail = (
            f"; with shortcuts {number(twin.first)}, {number(twin.factor)} a layer and "
            f"{percent(twin.accuracy)}."
        )
        said.append(Prose(text=head + tail, tone="warning" if lost else "plain"))
    return said


def _plain(one: Course) -> dict[str, Any]:
    return {
        **asdict(one.design),
        "lr": one.lr,
        "factor": one.factor,
        "first_over_last": one.first,
        "first_over_last_trained": one.end,
        "accuracy": one.accuracy,
        "steps": len(one.costs),
        "snapshots": [
            {
                "step": snapshot.step,
                "activation": [level.activation for level in snapshot.levels],
                "gradient": [level.gradient for level in snapshot.levels],
            }
            for snapshot in one.snapshots
        ],
    }
