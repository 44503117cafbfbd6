"""Corners of the receptive field's bookkeeping that few networks reach."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from striate.audit.findings import layer_table
from striate.audit.macs import count_macs
from striate.audit.network import audit
from striate.audit.receptive_field import (
    SEES_NOTHING,
    gather_units,
    input_axis,
    repeat_units,
    transposed_window,
)
from striate.audit.window_args import SlidingWindow
from support.random_networks import Apply


def test_axes_without_units_or_readers_see_nothing():
    none = gather_units(input_axis(0), np.zeros((2, 1), dtype=np.int64))
    assert (none.low.tolist(), none.high.tolist()) == (
        [SEES_NOTHING, SEES_NOTHING],
        [-1, -1],
    )
    unread = gather_units(input_axis(3), np.zeros((2, 0), dtype=np.int64))
    assert not unread.full
    assert unread.size == 0


def test_enlarging_by_one_changes_nothing_and_tiles_repeat():
    axis = input_axis(3)
    assert transposed_window(axis, 1, 1, 0, 1, outputs=3) is axis
    assert repeat_units(axis, before=2, after=1).low.tolist() == [0, 1, 2, 0, 1, 2]


def test_fused_attention_counts_both_products():
    query = torch.empty(1, 2, 7, 4)
    func = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    assert count_macs(func, (query, query, query), (1, 2, 7, 4)) == 2 * 2 * 7 * 7 * 4


def last(function, *shape):
    model = nn.Sequential(Apply(function))
    return audit(model, shape).layers[-1].receptive_field


def test_image_dependent_bias_gives_a_bound():
    sight = last(lambda x: torch.addmm(x[0, 0, 0], x[0, 0], x[0, 0]), 1, 4, 4)
    assert sight.is_bound
    assert sight.box(0, 0) == ((0, 3), (0, 3))


def test_shuffles_and_resampling_across_plain_dimensions():
    """Here the last two dimensions are channels, and the image's are elsewhere."""
    turned = lambda x: x.permute(0, 2, 3, 1)  # noqa: E731

    def unturned(function):
        return lambda x: function(turned(x).unsqueeze(0).flatten(1, 2))

    for function in (
        lambda x: F.interpolate(x, (3, 4)),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.avg_pool2d(x, 2),
    ):
        sight = last(unturned(function), 4, 8, 4)
        assert sight.box(0, 0) is not None


def test_one_row_that_stands_among_channels():
    sight = last(lambda x: F.avg_pool2d(x.transpose(1, 2), 2), 4, 1, 4)
    assert sight.box(0, 0) == ((0, 0), (0, 1))


def test_a_shuffle_by_hand_is_an_axis_again():
    def by_hand(x):
        n, c, h, w = x.shape
        parts = x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        return F.avg_pool2d(parts.reshape(n, c // 4, 2 * h, 2 * w), 3, 1)

    sight = last(by_hand, 4, 3, 3)
    assert sight.sides == (4, 4)
    assert sight.box(1, 0) == ((0, 1), (0, 1))


def test_axes_merge_all_paths():
    """A branch that sees padding alone is kept apart, and united for the table."""
    pads = [(1, 0, 0, 0), (0, 1, 0, 0)]
    model = Apply(lambda x: torch.cat([F.pad(x, pad) for pad in pads], 1))
    result = audit(model, (1, 4, 4))
    sight = result.layers[-1].receptive_field
    assert len(sight.paths) == 2
    assert layer_table(result).rows[-1][10] == "1×2"
    assert sight.box(0, 1) == ((0, 0), (0, 1))


def test_oblong_windows_are_written_out():
    made = SlidingWindow(kernel=(3, 5), stride=(2, 1), padding=(0, 0), dilation=(1, 2))
    assert str(made) == "3×5/2×1 d1×2"
    assert not made.pointwise


class Idles(nn.Module):
    """Makes a constant between its layers, which is no layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU())

    def forward(self, x):
        torch.zeros(3)
        return self.layers(x)


def test_constants_alone_are_no_layer():
    assert [x.name for x in audit(Idles(), (1, 2, 2)).layers] == ["layers.0"]


def test_foreign_hooks_do_not_matter():
    """A module made on the way is none of the network's; its work is still seen."""
    result = audit(Apply(lambda x: nn.Conv2d(1, 1, 1)(x)), (1, 3, 3))
    assert [(x.name, x.macs) for x in result.layers] == [("(model)", 9)]


def test_a_network_lent_without_stand_ins_comes_back(monkeypatch):
    from striate.core.hooks import model_restored

    model = nn.Linear(1, 1)
    with model_restored(model):
        model.added = 1
    assert not hasattr(model, "added")
