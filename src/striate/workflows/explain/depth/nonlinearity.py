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
    networks = fit_networks(POINTS, run.recipe.seed)
    table = _table(networks)
    blocks: tuple[Block, ...] = (
        _planes(networks, run.recipe.seed),
        table,
        _line(networks),
    )
    lead = (
        f"{POINTS} points of two rings, told apart by networks with one logistic "
        "output, each fitted by the same search. Linear layers in a row are one layer: "
        "depth alone adds nothing. Products of the inputs bend the boundary of a "
        "single layer; an activation between two layers lets the network find its own."
    )
    section = Section(title="Why depth needs a bend", lead=lead, blocks=blocks)
    return section, {"networks": records(table)}


def _planes(networks: Sequence[FittedNetwork], seed: int) -> Images:
    points, inner = ring_points(POINTS, seed)
    images = tuple(
        to_image(
            draw_boundary(network.model, points, inner), network.name, _detail(network)
        )
        for network in networks
    )
    note = "Red: held for the inner ring; blue: for the outer; pale: the boundary."
    return Images(title="Boundaries", images=images, note=note)


def _detail(network: FittedNetwork) -> str:
    text = f"{percent(network.accuracy)} right"
    if network.collapse_error is None:
        return text
    return f"{text}; the one layer it is differs by {number(network.collapse_error)}"


def _table(networks: Sequence[FittedNetwork]) -> Table:
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
        (network.name, network.weights, network.accuracy, network.collapse_error)
        for network in networks
    )
    return Table(title="What each tells apart", columns=columns, rows=rows)


def _line(networks: Sequence[FittedNetwork]) -> Curve:
    series = []
    for network in networks:
        positions, probs = probability_profile(network.model)
        series.append(Series(name=network.name, x=tuple(positions), y=tuple(probs)))
    return Curve(
        title="The logistic output along a line through the middle",
        x_label="place, from left to right",
        y_label="probability of the inner ring",
        series=tuple(series),
        percent_y=True,
    )
