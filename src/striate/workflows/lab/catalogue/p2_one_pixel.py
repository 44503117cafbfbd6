"""P2: after an edge filter and max pooling, a shift by one pixel changes less.

Claim: a digit that moves by one pixel changes fewer cells after a vertical-edge filter
and 2×2 max pooling than at the input.
Source: the notes count 38 changed pixels and 12 changed cells (−68 %) in one digit.
Measured over all digits of a data set. A pooled map has only a quarter of the cells;
the share of changed cells and a subsampled map are shown for this reason.
Cost: a few seconds; exact.
"""

from __future__ import annotations

from typing import Any

import torch

from striate.interpret.invariance.one_pixel_shift import one_pixel_shift, resize_gray
from striate.workflows.lab.card import Arm, ArmResults, Card
from striate.workflows.lab.lab_data import pooled_source
from striate.workflows.lab.trial import Trial

IMAGES = 10_000  # at most


def count_changed_cells(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Return the mean number and share of changed cells of each map."""
    arrays = pooled_source(trial.settings["data"]).arrays
    if arrays is None:
        raise TypeError("card P2 needs a data set in memory, such as digits")
    images = torch.from_numpy(arrays[:IMAGES, :, :, 0]).float() / 255
    measured: dict[str, Any] = {"images": len(images)}
    for cells in one_pixel_shift(resize_gray(images)):
        name = cells.stage.replace(" ", "_")
        measured |= {f"{name}_cells": cells.mean, f"{name}_share": cells.share}
    return measured


def is_smaller(results: ArmResults) -> bool:
    """Return whether pooling leaves fewer changed cells than the image has."""
    measured = results["digits"]
    return bool(measured["max_pool_cells"] < measured["image_cells"])


def _sentence(results: ArmResults) -> str:
    """Return the counts as a sentence."""
    m = results["digits"]
    return (
        f"Over {m['images']:,} digits, {m['image_cells']:.1f} pixels change "
        f"({100 * m['image_share']:.1f} % of them), and {m['max_pool_cells']:.1f} "
        f"cells after filter and pooling ({100 * m['max_pool_share']:.1f} %); "
        f"subsampling in place of pooling leaves {m['subsampled_cells']:.1f} "
        f"({100 * m['subsampled_share']:.1f} %)."
    )


CARD = Card(
    id="P2",
    title="A shift by one pixel",
    claim="A digit that moves by one pixel changes fewer cells after an edge filter "
    "and max pooling than at the input.",
    source="the notes",
    published="38 changed pixels, 12 changed cells (−68 %) in one digit",
    rule="Holds if the mean number of changed cells is smaller after pooling.",
    arms=(Arm(name="digits"),),
    comparisons=(),
    measure=count_changed_cells,
    settings={"data": "digits"},
    quick={},
    seconds=3,
    columns={
        "image_cells": "image",
        "max_pool_cells": "after pooling",
        "max_pool_share": "share after pooling",
        "subsampled_share": "share, subsampled",
    },
    check=is_smaller,
    statement=_sentence,
    limits="A pooled map has a quarter of the cells; compare the shares too.",
)
