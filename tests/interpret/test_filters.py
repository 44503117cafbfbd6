"""Filters of any layer: which there are, how they are drawn, and in numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from striate.interpret.filters import (
    COLUMNS,
    ROWS,
    filter_statistics,
    kernel_sheet,
    layers_with_filters,
)
from striate.interpret.render import diverging_colors
from support.foreign_networks import Functional, Reused, stranger


def test_every_layer_with_filters_and_no_other():
    result = layers_with_filters(stranger(Functional))
    assert {name: tuple(w.shape) for name, w in result.items()} == {
        "left": (5, 3, 3, 3),
        "right": (4, 3, 5, 5),
        "top": (10, 9, 3, 3),
    }
    assert list(layers_with_filters(stranger(Reused))) == ["first", "again"]
    up = nn.Sequential(nn.ConvTranspose2d(3, 8, 2))
    assert layers_with_filters(up)["0"].shape == (8, 3, 2, 2)
    assert layers_with_filters(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == {}


def test_a_row_is_a_filter_and_a_column_a_channel():
    weight = torch.zeros(3, 4, 2, 2)
    weight[1, 2, 0, 1] = -0.5
    weight[1, 3, 1, 0] = 0.25
    sheet, words = kernel_sheet(weight)
    assert words == "3 filters × 4 channels"
    side = (sheet.shape[0] + 1) // 3 - 1
    assert sheet.shape[:2] == (3 * (side + 1) - 1, 4 * (side + 1) - 1)
    assert side % 2 == 0

    def cell(row, column, y, x):
        """The color of a kernel's cell."""
        top, left = row * (side + 1), column * (side + 1)
        half = side // 2
        return sheet[top + y * half, left + x * half, :3].tolist()

    colors = diverging_colors(np.array([[-0.5, 0.25, 0.0]]), 0.5)[0].tolist()
    assert cell(1, 2, 0, 1) == colors[0]
    assert cell(1, 3, 1, 0) == colors[1]
    assert cell(1, 2, 1, 1) == cell(0, 0, 0, 0) == colors[2]


def test_large_layers_show_their_strongest_channels_in_order():
    weight = torch.full((ROWS + 4, COLUMNS + 3, 1, 1), 0.01)
    strong = [1, 5, COLUMNS + 2]
    weight[:, strong] = 1.0
    weight[:, 0], weight[:, 2], weight[:, 3] = 0.0, 0.0, 0.0
    sheet, words = kernel_sheet(weight)
    assert f"{ROWS} of {ROWS + 4} filters × the {COLUMNS} strongest of" in words
    side = (sheet.shape[0] + 1) // ROWS
    row = [sheet[0, i * side, :3].tolist() for i in range(COLUMNS)]
    red = diverging_colors(np.array([[1.0]]), 1.0)[0, 0].tolist()
    # Of the weak ones 0, 2 and 3 are left out, so that 1 comes first and 5 third.
    assert [i for i, color in enumerate(row) if color == red] == [0, 2, COLUMNS - 1]


def test_filter_statistics_by_hand():
    weight = torch.randn(7, 3, 5, 3, generator=torch.manual_seed(2))
    weight[4] = 0
    facts = filter_statistics(weight)
    rows = weight.double().numpy().reshape(7, -1)
    norms = np.sqrt((rows**2).sum(1))
    assert (facts.count, facts.kernel, facts.dead) == (7, (3, 5, 3), 1)
    assert facts.max_norm == pytest.approx(norms.max())
    assert facts.min_norm == 0
    means = weight.double().numpy().mean((2, 3))
    assert facts.mean_share == pytest.approx((means**2).sum() * 15 / (rows**2).sum())
    nearest = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        nearest.append(
            max(
                abs(rows[i] @ rows[j]) / max(norms[i] * norms[j], 1e-30) for j in others
            )
        )
    assert facts.max_cosine == pytest.approx(sorted(nearest)[3])


def test_filter_statistics_of_extreme_filters():
    assert filter_statistics(torch.ones(2, 1, 3, 3)).mean_share == 1
    nothing = filter_statistics(torch.zeros(2, 1, 3, 3))
    assert (nothing.max_norm, nothing.mean_share) == (0, 0)
    assert math.isfinite(filter_statistics(torch.ones(1, 1, 1, 1)).max_cosine)
