"""Report section on invariance: predictions and features under image transforms."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any

from torch import Tensor

from striate.core import findings as f
from striate.core.errors import GeometryError
from striate.core.format import count_text
from striate.data.batches import batches_in_order
from striate.data.subset import Subset
from striate.interpret.activations_at import images_at_once
from striate.interpret.invariance.invariance_curves import (
    OUTPUT,
    InvarianceCurve,
    invariance_curves,
)
from striate.interpret.invariance.transforms import TRANSFORMS, get_transform
from striate.interpret.layer_choice import layers_with_maps
from striate.models.head import last_dense
from striate.run.report_images import evenly_spaced
from striate.run.run import Run
from striate.workflows.explain.images import subsample
from striate.workflows.explain.one_pixel import one_pixel_blocks
from striate.workflows.explain.pooling_swap import POOLS, refit_head, replace_pools

MOVED = 300  # images; each is transformed about fifty times
BATCH = 100  # images per batch, at most
FITTED = 2000  # training images for refitting the last linear layer
LAYERS = 4  # layers whose features are compared

Batch = tuple[Tensor, Tensor]


def invariance_section(run: Run) -> tuple[f.Section, dict[str, Any]]:
    """Evaluate a run on transformed images, and with other pooling layers."""
    subset = subsample(run.data.subsets[run.evaluated_split], MOVED)
    batches = list(_batches(run, subset))
    layers = evenly_spaced(layers_with_maps(run.model, batches[0][0]), LAYERS)
    transforms = [each for each in TRANSFORMS.values() if _fits(each.name, run)]
    curves = invariance_curves(run.model, batches, transforms, layers)
    blocks: list[f.Block] = []
    for each in curves:
        blocks += _accuracy_curve(each), _distance_curve(each)
    pools, skipped = _pools(run, batches)
    blocks += _pool_blocks(pools)
    if not _fits("shift", run):
        skipped.insert(0, "shift: the images are too small")
    if skipped:
        blocks.append(f.Prose(f"Skipped: {'; '.join(skipped)}."))
    data: dict[str, Any] = {
        "images": len(subset),
        "transforms": [_as_data(each) for each in curves],
        "pools": {kind: _as_data(each) for kind, each in pools.items()},
        "skipped": skipped,
    }
    if subset.pixels.shape[-1] == 1:
        one_pixel, data["one_pixel"] = one_pixel_blocks(run.data)
        blocks += one_pixel
    lead = (
        f"{count_text(len(subset), 'image')} of the {run.evaluated_split} split, under "
        "transforms of growing strength. Consistency is the share of images with the "
        "same prediction as the original. Feature distance is 0 if the features do not "
        "change, and 1 if they change as much as for another image."
    )
    title = "Invariance to image transforms"
    return f.Section(title, tuple(blocks), lead=lead), data


def _fits(name: str, run: Run) -> bool:
    height, width = run.preprocess.spec.shape[1:]
    return name != "shift" or min(height, width) > max(TRANSFORMS[name].amounts)


def _batches(run: Run, subset: Subset) -> Iterator[Batch]:
    size = images_at_once(run.preprocess.spec.shape, BATCH)
    return batches_in_order(subset, run.preprocess, size)


def _accuracy_curve(curves: InvarianceCurve) -> f.Curve:
    # Half the width of the 95 % confidence interval. The copies of one image are not
    # independent, so each image counts once.
    half = [(y, 1.96 * sqrt(y * (1 - y) / curves.images)) for y in curves.accuracy]
    return f.Curve(
        f"Predictions under {curves.transform}",
        x_label=curves.unit,
        y_label="share of images",
        series=(
            f.Series(
                "accuracy",
                curves.amounts,
                curves.accuracy,
                low=tuple(max(0.0, y - h) for y, h in half),
                high=tuple(min(1.0, y + h) for y, h in half),
            ),
            f.Series("consistency", curves.amounts, curves.consistency),
        ),
        percent_y=True,
    )


def _distance_curve(curves: InvarianceCurve) -> f.Curve:
    return f.Curve(
        f"Features under {curves.transform}",
        x_label=curves.unit,
        y_label="feature distance (1: another image)",
        series=tuple(
            f.Series(name, curves.amounts, values)
            for name, values in curves.distance.items()
        ),
    )


def _pools(
    run: Run, batches: list[Batch]
) -> tuple[dict[str, InvarianceCurve], list[str]]:
    """Return the shift invariance by kind of pooling, and notes on skipped kinds."""
    name = last_dense(run.model)
    if name is None:
        return {}, ["other pooling: there is no last linear layer to refit"]
    if not _fits("shift", run):
        return {}, []
    subset = subsample(run.data.subsets["train"], FITTED)
    curves, skipped = {}, []
    for kind in POOLS:
        model, count = replace_pools(run.model, kind)
        if not count:
            return {}, ["other pooling: the network has no pooling module with stride"]
        try:
            refit_head(model, _batches(run, subset), name)
            shift = [get_transform("shift")]
            curves[kind] = invariance_curves(model, batches, shift)[0]
        except GeometryError as error:
            skipped.append(f"{kind} pooling: {error.what}")
    return curves, skipped


def _pool_blocks(pools: dict[str, InvarianceCurve]) -> list[f.Block]:
    if not pools:
        return []
    shifts = 1, 2, 4  # pixels
    columns = (
        f.Column("Pooling", key="pool"),
        f.Column("Accuracy", "percent"),
        *(
            f.Column(f"Consistency, {n} px", "percent", key=f"consistency_{n}")
            for n in shifts
        ),
        f.Column("Distance, 1 px", "number", key="distance_1"),
    )
    rows: list[tuple[f.Cell, ...]] = []
    for kind, each in pools.items():
        consistency = [each.consistency[pixels] for pixels in shifts]
        distance = round(each.distance[OUTPUT][1], 3)
        rows.append((kind, each.accuracy[0], *consistency, distance))
    note = (
        "The trained convolutions are kept, every pooling layer is replaced, and the "
        "last linear layer is refitted for each kind. Consistency: share of images "
        "with the same prediction as without shift."
    )
    curve = f.Curve(
        "Pooling and shifts",
        x_label="pixels, in four directions",
        y_label="same prediction",
        series=tuple(
            f.Series(kind, each.amounts, each.consistency)
            for kind, each in pools.items()
        ),
        percent_y=True,
    )
    title = "Other pooling layers"
    return [f.Table(title=title, columns=columns, rows=tuple(rows), note=note), curve]


def _as_data(curves: InvarianceCurve) -> dict[str, Any]:
    return {
        "transform": curves.transform,
        "amounts": list(curves.amounts),
        "accuracy": list(curves.accuracy),
        "consistency": list(curves.consistency),
        "distance": {name: list(values) for name, values in curves.distance.items()},
    }
