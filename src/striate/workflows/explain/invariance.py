"""The part of an explanation that moves images: what a trained network forgives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

from torch import Tensor

from striate.core.errors import GeometryError
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
from striate.data.subset import Subset
from striate.interpret.activations_at import together
from striate.interpret.invariance.invariance_curves import OUTPUT, Response, respond
from striate.interpret.invariance.transforms import MOVES, move_of
from striate.interpret.layer_choice import calls_of
from striate.models.head import last_dense
from striate.run.images import evenly
from striate.run.run import Run
from striate.workflows.explain.images import some
from striate.workflows.explain.one_pixel import one_pixel_blocks
from striate.workflows.explain.pooling_swap import POOLS, refit, with_pool

MOVED = 300  # images, each moved some fifty times
BATCH = 100  # of them at once, at most
FITTED = 2000  # training images that a dense layer is fitted to
LAYERS = 4  # whose features are compared

Batch = tuple[Tensor, Tensor]


def invariance_section(run: Run) -> tuple[Section, dict[str, Any]]:
    """Measure a run's network on moved images, and its base under other pools."""
    subset = some(run.data.subsets[run.evaluated_split], MOVED)
    batches = list(_batches(run, subset))
    shapes = calls_of(run.model, batches[0][0])
    maps = [c for c, s in shapes.items() if len(s) == 3 and s[1] * s[2] > 1]
    inner = [c for c in maps if not any(o.startswith(f"{c}.") for o in maps)]
    moves = [move for move in MOVES.values() if _fits(move.name, run)]
    found = respond(run.model, batches, moves, evenly(inner, LAYERS))
    blocks: list[Block] = []
    for each in found:
        blocks.append(_answers(each))
        blocks.append(_features(each))
    pools, left_out = _pools(run, batches)
    blocks += _pool_blocks(pools)
    if not _fits("shift", run):
        left_out.insert(0, "the images are too small to be shifted")
    if left_out:
        blocks.append(Prose(text=f"Left out: {'; '.join(left_out)}."))
    data: dict[str, Any] = {
        "images": len(subset),
        "moves": [_plain(each) for each in found],
        "pools": {kind: _plain(each) for kind, each in pools.items()},
        "left_out": left_out,
    }
    if subset.pixels.shape[-1] == 1:
        found_there, data["one_pixel"] = one_pixel_blocks(run.data)
        blocks += found_there
    lead = (
        f"{len(subset)} {run.evaluated_split} images, moved by growing amounts. "
        "Accuracy says what is right, consistency what stays the answer it was; the "
        "distance of features is 0 where nothing was noticed and 1 where another image "
        "of the set would be as far."
    )
    return Section(title="What it forgives", lead=lead, blocks=tuple(blocks)), data


def _fits(name: str, run: Run) -> bool:
    height, width = run.preprocess.spec.shape[1:]
    return name != "shift" or min(height, width) > max(MOVES[name].amounts)


def _batches(run: Run, subset: Subset) -> Iterator[Batch]:
    size = together(*run.preprocess.spec.shape[1:], BATCH)
    made = Batches(
        subset=subset, preprocess=run.preprocess, batch_size=size, shuffle=False
    )
    return made(0)


def _answers(found: Response) -> Curve:
    half = _half(found.accuracy, found.images)
    return Curve(
        title=f"Answers under {found.move}",
        x_label=found.unit,
        y_label="share of images",
        series=(
            Series(
                name="accuracy",
                x=found.amounts,
                y=found.accuracy,
                low=tuple(max(0.0, y - h) for y, h in half),
                high=tuple(min(1.0, y + h) for y, h in half),
            ),
            Series(name="consistency", x=found.amounts, y=found.consistency),
        ),
        percent_y=True,
    )


def _half(shares: Sequence[float], count: int) -> list[tuple[float, float]]:
    """Return each share with half its 95 % interval.

    The copies of one image are not independent: each image counts once.
    """
    return [(y, 1.96 * sqrt(y * (1 - y) / count)) for y in shares]


def _features(found: Response) -> Curve:
    return Curve(
        title=f"Features under {found.move}",
        x_label=found.unit,
        y_label="distance, 1 = another image",
        series=tuple(
            Series(name=name, x=found.amounts, y=values)
            for name, values in found.distance.items()
        ),
    )


def _pools(run: Run, batches: list[Batch]) -> tuple[dict[str, Response], list[str]]:
    """Return the response to shifts under each kind of pool, and what was left out."""
    name = last_dense(run.model)
    if name is None:
        return {}, ["other pools, for want of a last dense layer to fit again"]
    if not _fits("shift", run):
        return {}, []
    subset = some(run.data.subsets["train"], FITTED)
    found, left_out = {}, []
    for kind in POOLS:
        model, count = with_pool(run.model, kind)
        if not count:
            return {}, ["other pools: no pool of the network is a striding module"]
        try:
            refit(model, _batches(run, subset), name)
            found[kind] = respond(model, batches, [move_of("shift")])[0]
        except GeometryError as error:
            left_out.append(f"{kind} pools: {error.what}")
    return found, left_out


def _pool_blocks(pools: dict[str, Response]) -> list[Block]:
    if not pools:
        return []
    columns = (
        Column(title="Pool", key="pool"),
        Column(title="Accuracy", kind="percent", key="accuracy"),
        *(
            Column(title=f"Same at {pixels} px", kind="percent", key=f"same_{pixels}")
            for pixels in (1, 2, 4)
        ),
        Column(title="Distance at 1 px", kind="number", key="distance_1"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            kind,
            one.accuracy[0],
            *(one.consistency[pixels] for pixels in (1, 2, 4)),
            round(one.distance[OUTPUT][1], 3),
        )
        for kind, one in pools.items()
    ]
    note = (
        "One trained base: the convolutions are the run's own, every pool is "
        "exchanged, and the last dense layer is fitted again for each kind alike. "
        "Same: the answer is the one given without a shift."
    )
    curve = Curve(
        title="Pools under shift",
        x_label="pixels, in four directions",
        y_label="same answer",
        series=tuple(
            Series(name=kind, x=one.amounts, y=one.consistency)
            for kind, one in pools.items()
        ),
        percent_y=True,
    )
    return [
        Table(title="Other pools", columns=columns, rows=tuple(rows), note=note),
        curve,
    ]


def _plain(found: Response) -> dict[str, Any]:
    return {
        "move": found.move,
        "amounts": list(found.amounts),
        "accuracy": list(found.accuracy),
        "consistency": list(found.consistency),
        "distance": {name: list(values) for name, values in found.distance.items()},
    }
