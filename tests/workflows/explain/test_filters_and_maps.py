"""Sections of an explanation: every layer as the data flows; one pixel over a set."""

import numpy as np
import pytest
import torch
from torch import nn

import striate as st
from striate.core.findings import Curve, Images, Prose, Table
from striate.interpret.invariance.one_pixel_shift import resize_gray
from striate.interpret.layer_choice import layer_shapes
from striate.workflows.explain import filters_and_maps as flow
from striate.workflows.explain.filters_and_maps import filters_and_maps_section
from striate.workflows.explain.one_pixel import count_changes, one_pixel_blocks
from support.foreign_networks import InPlace, Reused, Unchanged, stranger


def inner_calls(model, x):
    shapes = layer_shapes(model, x)
    maps = [c for c, s in shapes.items() if len(s) == 3 and s[1] * s[2] > 1]
    return [c for c in maps if not any(o.startswith(f"{c}.") for o in maps)]


def galleries(section):
    return {b.title: b.images for b in section.blocks if isinstance(b, Images)}


@pytest.mark.parametrize("kind", [InPlace, Reused])
def test_filters_stand_before_the_maps_they_make(kind):
    model = stranger(kind)
    x = torch.randn(1, 3, 12, 12)
    calls = inner_calls(model, x)
    with Unchanged(model):
        section = filters_and_maps_section(model, x, calls)
    shown = galleries(section)
    assert list(shown) == [f"{i} · {call}" for i, call in enumerate(calls, 1)]
    filters = dict(model.named_modules())
    for call, images in zip(calls, shown.values(), strict=True):
        captions = [one.caption for one in images]
        own = " #" not in call and isinstance(filters[call], nn.Conv2d)
        assert len(captions) == 1 + own
        assert captions[-1].startswith("feature maps, ")
        if own:
            count = filters[call].out_channels
            assert captions[0].startswith(f"{count} filters of 3×3×")
    table = section.blocks[-1]
    assert isinstance(table, Table)
    convolutions = [n for n, m in filters.items() if isinstance(m, nn.Conv2d)]
    assert [row[0] for row in table.rows] == convolutions


def test_maps_are_those_of_the_layer_before_in_place_changes():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)
    x = torch.randn(1, 1, 6, 6)
    both = galleries(filters_and_maps_section(nn.Sequential(*layers), x, ["0", "1"]))
    alone = galleries(filters_and_maps_section(nn.Sequential(layers[0]), x, ["0"]))
    assert both["1 · 0"][-1].png == alone["1 · 0"][-1].png
    assert both["2 · 1"][-1].png != alone["1 · 0"][-1].png


def test_deep_networks_show_the_layers_with_filters(monkeypatch):
    monkeypatch.setattr(flow, "MOST", 4)
    pairs = [layer for _ in range(6) for layer in (nn.Conv2d(2, 2, 1), nn.ReLU())]
    model = nn.Sequential(*pairs)
    section = filters_and_maps_section(
        model, torch.randn(1, 2, 3, 3), [str(i) for i in range(12)]
    )
    assert list(galleries(section)) == ["1 · 0", "5 · 4", "7 · 6", "11 · 10"]
    assert "4 of 12 layers" in section.lead
    assert len(section.blocks[-1].rows) == 6  # in numbers all are there


def test_a_network_without_filters_has_maps():
    section = filters_and_maps_section(
        nn.Sequential(nn.ReLU()), torch.randn(1, 1, 3, 3), ["0"]
    )
    assert [type(block) for block in section.blocks] == [Images]


# --- one pixel -----------------------------------------------------------------------


def bars(count, side=28):
    """Upright bars of growing length, four pixels wide, and their classes."""
    pixels = np.zeros((count, side, side), np.uint8)
    for i in range(count):
        pixels[i, 2 : 8 + i % 3, 10:14] = 255
        pixels[i, -1, -1] = i  # too faint to be ink, and no image is another's copy
    return pixels


@pytest.fixture
def data():
    names = [("short", "middle", "long")[i % 3] for i in range(60)]
    return st.load_data(st.from_arrays("bars", bars(60), names))


def test_every_image_of_every_split_is_counted(data):
    counted = count_changes(data)
    assert counted.gray.shape == (60, 28, 28)
    expected = {"short": 12, "middle": 14, "long": 16}  # two sides, a row each
    for i, name in enumerate(data.labels.names):
        own = counted.stages[0].counts[counted.labels == i]
        assert set(own.tolist()) == {expected[name]}
    assert float(counted.relative_changes("image").abs().max()) == 0


def test_one_pixel_text_states_the_counts(data):
    blocks, facts = one_pixel_blocks(data)
    assert facts["images"] == 60
    stages = {row["stage"]: row for row in facts["stages"]}
    assert stages["image"]["changed"] == 14
    assert stages["max pool"]["cells"] == stages["subsampled"]["cells"] == 169
    classes = {row["class"]: row for row in facts["classes"]}
    assert classes["long"]["input"] == 16
    assert classes["long"]["images"] == 20
    words = next(b for b in blocks if isinstance(b, Prose)).text
    assert "over 60 images at 28×28: on average 14.0 pixels change at the " in words
    images = next(b for b in blocks if isinstance(b, Images)).images
    assert images[0].detail == "16 of 784 cells differ"  # nearest to the notes' 38
    chart = next(b for b in blocks if isinstance(b, Curve))
    for series in chart.series:
        assert list(series.x) == sorted(series.x)
        assert series.y[-1] == 1


def test_small_images_are_brought_to_the_notes_size():
    small = torch.zeros(1, 8, 8)
    small[0, :, 3:5] = 1
    large = resize_gray(small)
    assert large.shape == (1, 28, 28)
    assert large[0, :, 14].min() > 0.9
    assert float(large.mean()) == pytest.approx(0.25, abs=0.01)
    same = torch.rand(2, 28, 28)
    assert resize_gray(same) is same
    shrunk = resize_gray(torch.rand(1, 60, 44))
    assert shrunk.shape == (1, 28, 28)


def test_an_empty_set_of_images_changes_nothing():
    names = ["a", "b"] * 20
    blank = np.zeros((40, 28, 28), np.uint8)
    blank[:, 0, 0] = range(40)  # or they would be one image
    result = st.load_data(st.from_arrays("blank", blank, names))
    blocks, facts = one_pixel_blocks(result)
    assert facts["stages"][0]["changed"] == 0
    assert next(b for b in blocks if isinstance(b, Curve)).series == ()
