"""Report section on nonlinearity: decision boundaries of four small networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from striate.core.findings import Cell, Column, Curve, Images, Section, Series, Table
from striate.interpret.depth.nonlinearity import (
    FittedNetwork,
    draw_boundary,
    fit_networks,
    probability_profile,
    ring_points,
)
from striate.interpret.render import to_image
from striate.report.format import number, percent
from striate.report.table_records import records
from striate.run.run import Run

POINTS = 400


def nonlinearity_section(run: Run) -> tuple[Section, dict[str, Any]]:
    """Return the report section on why networks need nonlinear activations.

    Only the seed of the run is used; the points are random.
    """
    networks = fit_networks(POINTS, run.recipe.seed)
    table = _table(networks)
    blocks = _planes(networks, run.recipe.seed), table, _line(networks)
    lead = (
        f"{POINTS} points in two rings, classified by four networks with one logistic "
        "output, all fitted with the same optimizer. Several linear layers equal one "
        "linear layer, so depth alone does not help. Squared inputs bend the boundary "
        "of a single layer; an activation between two layers lets the network learn "
        "its own features."
    )
    title = "Why activations are needed (nonlinearity)"
    section = Section(title, blocks, lead=lead)
    return section, {"networks": records(table)}


def _planes(networks: Sequence[FittedNetwork], seed: int) -> Images:
    points, inner = ring_points(POINTS, seed)
    images = []
    for network in networks:
        pixels = draw_boundary(network.model, points, inner)
        images.append(to_image(pixels, network.name, _detail(network)))
    note = (
        "Red: predicted as inner ring. Blue: predicted as outer ring. Pale: boundary."
    )
    return Images(title="Decision boundaries", images=tuple(images), note=note)


def _detail(network: FittedNetwork) -> str:
    text = f"accuracy {percent(network.accuracy)}"
    if network.collapse_error is None:
        return text
    return f"{text}; differs from a single layer by {number(network.collapse_error)}"


def _table(networks: Sequence[FittedNetwork]) -> Table:
    columns = (
        Column("Network"),
        Column("Param #", "integer", key="weights"),
        Column("Accuracy", "percent"),
        Column(
            "Collapse Error",
            "number",
            hint="largest difference between its logits and those of the single linear "
            "layer that equals it",
        ),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (network.name, network.weights, network.accuracy, network.collapse_error)
        for network in networks
    )
    return Table(title="Networks and accuracy", columns=columns, rows=rows)


def _line(networks: Sequence[FittedNetwork]) -> Curve:
    series = []
    for network in networks:
        positions, probs = probability_profile(network.model)
        series.append(Series(network.name, tuple(positions), tuple(probs)))
    return Curve(
        "Predicted probability along a line through the center",
        x_label="x, from left to right",
        y_label="probability of the inner ring",
        series=tuple(series),
        percent_y=True,
    )
