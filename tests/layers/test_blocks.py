"""What the blocks compute, against the same computed another way."""

import pytest
import torch
from torch.nn import functional as F

from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.layers.blur import BlurPool
from striate.layers.depth_max_pool import DepthMaxPool
from striate.layers.inception import Inception, InceptionWidths
from striate.layers.inverted_residual import InvertedResidual
from striate.layers.partial_conv import LENET_C3, PartialConv2d
from striate.layers.residual import PadShortcut, bottleneck_branch, shortcut


def test_depth_pool_is_the_largest_of_each_window():
    x = torch.randn(2, 9, 4, 5)
    expected = [x[:, i : i + 3].amax(1) for i in range(0, 7, 2)]
    assert torch.equal(DepthMaxPool(3, 2)(x), torch.stack(expected, 1))
    assert DepthMaxPool(3, 2).out_channels(9) == len(expected)


def test_depth_pool_sends_ties_to_the_first():
    x = torch.ones(1, 4, 1, 1, requires_grad=True)
    DepthMaxPool(2)(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 1, 0]


def test_depth_pool_names_the_channels_it_needs():
    with pytest.raises(GeometryError, match="got 2 channels, needs at least 3"):
        DepthMaxPool(3)(torch.zeros(1, 2, 4, 4))


def test_shortcut_a_keeps_every_other_position_and_pads_with_zeros():
    x = torch.randn(2, 3, 5, 4)
    y = PadShortcut(3, 5, 2)(x)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()
    with pytest.raises(GeometryError, match="cannot reduce 3 channels to 2"):
        PadShortcut(3, 2, 1)


@pytest.mark.parametrize(
    ("option", "same", "changed"),
    [("A", 0, 0), ("B", 0, 4 * 8 + 16), ("C", 4 * 4 + 8, 4 * 8 + 16)],
)
def test_parameters_of_shortcuts(option, same, changed):
    def count(*shape):
        return sum(p.numel() for p in shortcut(option, *shape).parameters())

    assert count(4, 4, 1) == same
    assert count(4, 8, 2) == changed


def test_unknown_shortcut_and_stride():
    with pytest.raises(UnknownNameError, match="no shortcut is called 'D'"):
        shortcut("D", 1, 1, 1)
    with pytest.raises(UnknownNameError, match="place of the stride"):
        bottleneck_branch(4, 1, 2, "2x2")


def test_stride_stands_where_it_is_told():
    paper, later = (bottleneck_branch(4, 2, 2, at) for at in ("1x1", "3x3"))
    assert [paper[n].stride for n in ("conv1", "conv2")] == [(2, 2), (1, 1)]
    assert [later[n].stride for n in ("conv1", "conv2")] == [(1, 1), (2, 2)]


def test_inception_stacks_its_branches_in_the_tables_order():
    block = Inception(4, InceptionWidths(1, 2, 3, 4, 5, 6)).eval()
    x = torch.randn(2, 4, 6, 6)
    y = block(x)
    assert y.shape == (2, 15, 6, 6)
    assert torch.equal(y[:, :1], F.relu(block.branch1.conv(x)))
    pooled = F.max_pool2d(x, 3, 1, 1)
    assert torch.equal(y[:, 9:], block.branch4[1](pooled))
    assert block.branch3[1].conv.kernel_size == (5, 5)


def test_inception_costs_what_row_a6_says():
    direct = 28 * 28 * 192 * 5 * 5 * 32
    block = Inception(192, InceptionWidths(64, 96, 128, 16, 32, 32))
    weights = [layer.conv.weight for layer in block.branch3]
    assert direct == 120_422_400
    assert 28 * 28 * sum(w.numel() for w in weights) == 12_443_648


def test_inverted_residual_adds_only_where_shapes_agree():
    same = InvertedResidual(4, 4, 1, 2).eval()
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(same(x), x + same.conv(x))
    assert not InvertedResidual(4, 4, 2, 2).use_shortcut
    assert not InvertedResidual(4, 6, 1, 2).use_shortcut
    assert [len(InvertedResidual(4, 6, 1, t).conv) for t in (1, 6)] == [3, 4]


def test_blur_leaves_a_constant_and_softens_a_shift():
    line = torch.zeros(1, 1, 16, 16)
    line[..., 6] = 1
    moved = line.roll(1, -1)
    blur = BlurPool(1, 3)
    # Every other position alone loses the moved line; blurred, its sum stays.
    assert moved[..., ::2, ::2].sum() == 0
    assert blur(line).sum() == blur(moved).sum() > 0
    assert torch.allclose(blur(torch.ones(1, 1, 9, 9)), torch.ones(1, 1, 5, 5))


def test_blur_refuses_what_it_cannot_mirror():
    with pytest.raises(GeometryError, match="got 2×5, needs height and width ≥ 3"):
        BlurPool(1, 5)(torch.zeros(1, 1, 2, 5))
    with pytest.raises(GeometryError, match="got 2 channels, not 1"):
        BlurPool(1)(torch.zeros(1, 2, 5, 5))
    with pytest.raises(SettingError, match="BlurPool"):
        BlurPool(1, 0)


def test_partial_connections_are_a_dense_kernel_with_holes():
    layer = PartialConv2d(LENET_C3, 5)
    full = layer.dense_weight()
    connected = full.abs().sum((2, 3)) > 0
    assert connected.sum() == sum(map(len, LENET_C3)) == 60
    with pytest.raises(GeometryError, match="got 5 channels, not 6"):
        layer(torch.zeros(1, 5, 14, 14))
