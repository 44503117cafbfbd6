"""Why depth needs a bend, as a page's section: four boundaries and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Images,
    Section,
    Series,
    Table,
)
from striate.interpret.depth.nonlinearity import (
    FittedNetwork,
    draw_boundary,
    fit_networks,
    probability_profile,
    ring_points,
)
from striate.interpret.render import to_image
from striate.report.format import number, percent
from striate.report.records import records
from striate.run.run import Run

POINTS = 400


def nonlinearity_section(run: Run) -> tuple[Section, dict[str, Any]]:
    """Show what one dense layer can tell apart, and what makes it more.

    Of the run only the seed is used: the points are drawn.
    """
    found = fit_networks(POINTS, run.recipe.seed)
    table = _table(found)
    blocks: tuple[Block, ...] = (_planes(found, run.recipe.seed), table, _line(found))
    lead = (
        f"{POINTS} points of two rings, told apart by networks with one logistic "
        "output, each fitted by the same search. Linear layers in a row are one layer: "
        "depth alone adds nothing. Products of the inputs bend the boundary of a "
        "single layer; an activation between two layers lets the network find its own."
    )
    section = Section(title="Why depth needs a bend", lead=lead, blocks=blocks)
    return section, {"networks": records(table)}


def _planes(found: Sequence[FittedNetwork], seed: int) -> Images:
    points, inner = ring_points(POINTS, seed)
    drawn = tuple(
        to_image(draw_boundary(one.model, points, inner), one.name, _detail(one))
        for one in found
    )
    note = "Red: held for the inner ring; blue: for the outer; pale: the boundary."
    return Images(title="Boundaries", images=drawn, note=note)


def _detail(one: FittedNetwork) -> str:
    right = f"{percent(one.accuracy)} right"
    if one.apart is None:
        return right
    return f"{right}; the one layer it is differs by {number(one.apart)}"


def _table(found: Sequence[FittedNetwork]) -> Table:
    columns = (
        Column(title="Network", key="network"),
        Column(title="Weights", kind="integer", key="weights"),
        Column(title="Right", kind="percent", key="accuracy"),
        Column(
            title="From its collapse",
            kind="number",
            key="apart",
            hint="largest difference of its logits from those of the one dense layer "
            "whose weights are the product of its own",
        ),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (one.name, one.weights, one.accuracy, one.apart) for one in found
    )
    return Table(title="What each tells apart", columns=columns, rows=rows)


def _line(found: Sequence[FittedNetwork]) -> Curve:
    series = []
    for one in found:
        places, probs = probability_profile(one.model)
        series.append(Series(name=one.name, x=tuple(places), y=tuple(probs)))
    return Curve(
        title="The logistic output along a line through the middle",
        x_label="place, from left to right",
        y_label="probability of the inner ring",
        series=tuple(series),
        percent_y=True,
    )
