"""Filters, feature maps and rasters: right images, and the model as it was."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate.interpret.feature_maps import MAX_CHANNELS, feature_maps, map_sheet
from striate.interpret.filters import filter_limits, filter_tiles, first_convolution
from striate.interpret.render import diverging_colors, sequential_colors, tile, to_image
from support.foreign_networks import STRANGERS, Unchanged, stranger


def test_feature_maps_are_the_layers_outputs():
    """In-place ReLU behind the convolution must not change what was taken."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten()
    model = nn.Sequential(*layers)
    x = torch.randn(1, 1, 6, 6)
    random = torch.get_rng_state()
    maps = feature_maps(model, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert list(maps) == ["0", "1", "2"]
    assert torch.equal(maps["0"], model[0](x)[0])
    assert torch.equal(maps["1"], maps["0"].clamp(min=0))
    assert torch.equal(maps["2"], maps["1"])
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("kind", STRANGERS)
def test_networks_of_others_are_left_alone(kind):
    model = stranger(kind)
    x = torch.rand(1, 3, 12, 12)
    with Unchanged(model):
        maps = feature_maps(model, x)
    assert all(one.ndim == 3 for one in maps.values())
    assert maps


def test_a_sheet_shows_the_first_channels():
    sheet = map_sheet(torch.rand(MAX_CHANNELS + 9, 4, 4))
    single = map_sheet(torch.rand(1, 4, 4)).shape[0]
    rows, columns = ((side + 4) // (single + 4) for side in sheet.shape[:2])
    assert rows * columns == MAX_CHANNELS
    assert sheet[..., 3].max() == 255


def test_first_convolution():
    assert first_convolution(nn.Sequential(nn.Linear(2, 2))) is None
    name, module = first_convolution(nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3))))
    assert name == "0.0"
    assert module.out_channels == 2


def test_filters_share_a_scale_before_and_after():
    before = torch.tensor([[[[1.0, -1.0]]], [[[0.5, 0.0]]]])
    after = before * 2
    assert filter_limits(before, after).tolist() == [2, 1]
    small, large = (
        filter_tiles(before),
        filter_tiles(before, filter_limits(before, after)),
    )
    assert small[0][0, 0].tolist()[:3] == [190, 45, 40]
    assert large[0][0, 0].tolist()[:3] != [190, 45, 40]


def test_color_filters_are_colors_and_others_lie_side_by_side():
    gray = filter_tiles(torch.zeros(1, 3, 2, 2))[0]
    assert np.unique(gray).tolist() == [128]
    red = torch.zeros(1, 3, 1, 1)
    red[0, 0] = 1
    assert filter_tiles(red)[0][0, 0].tolist() == [255, 128, 128]
    side = gray.shape[0]
    five = filter_tiles(torch.zeros(1, 5, 2, 2))[0]
    assert five.shape[:2] == (side, 5 * (side + 1) - 1)


def test_colors_of_numbers():
    ends = diverging_colors(np.array([[-5.0, 0.0, 5.0]]), 1.0)[0].tolist()
    assert ends == [[33, 86, 165], [238, 238, 234], [190, 45, 40]]
    assert diverging_colors(np.zeros((1, 1)), 0.0)[0, 0].tolist() == [238, 238, 234]
    dark, light = sequential_colors(np.array([[3.0, 9.0]]))[0]
    assert light.sum() > dark.sum()
    assert sequential_colors(np.full((2, 2), 7.0)).shape == (2, 2, 3)


def test_tiles():
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(3)]
    sheet = tile(images, columns=2)
    assert sheet[0, 0].tolist() == [0, 0, 0, 255]
    assert sheet[0, 6].tolist() == [1, 1, 1, 255]
    assert sheet[6, 0].tolist() == [2, 2, 2, 255]
    assert sheet[0, 2, 3] == 0
    assert tile(images[:1], columns=9).shape == (2, 2, 4)


@pytest.mark.parametrize(
    ("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA"), (5, "L")]
)
def test_images_decode_to_what_went_in(channels, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, channels), np.uint8)
    made = to_image(pixels, "words", "more")
    opened = Image.open(io.BytesIO(made.png))
    assert (opened.mode, opened.size) == (mode, (6, 4))
    assert (made.width, made.height, made.caption) == (6, 4, "words")
    if channels in (3, 4):
        assert (np.asarray(opened) == pixels).all()


def test_large_maps_are_drawn_small():
    sheet = map_sheet(torch.rand(3, 200, 100))
    assert sheet.shape[:2] == (64, 3 * (32 + 4) - 4)


def test_large_maps_stand_in_as_many_columns_as_small_ones():
    """Two rows of sixteen tiles of 64×64, not one row as long as a map is wide."""
    sheet = map_sheet(torch.rand(32, 100, 100))
    assert sheet.shape[:2] == (2 * (64 + 4) - 4, 16 * (64 + 4) - 4)
