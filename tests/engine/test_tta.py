"""Test-time views: what is averaged, over which images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from striate.engine.config import TTA_NAMES
from striate.engine.tta import TTA_MODES


def test_recipe_lists_every_tta_mode():
    assert tuple(TTA_MODES) == TTA_NAMES


def moved(x, down, right):
    """Move an image (H, W) by single steps, the edge repeated."""
    for axis, by in ((0, down), (1, right)):
        if by:
            index = np.arange(x.shape[axis]) - by
            x = np.take(x, index.clip(0, x.shape[axis] - 1), axis)
    return x


@given(height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 1 << 30))
def test_flip_shift_against_ten_views(height, width, seed):
    """A network that is no linear one: mean of the answers, not answer to the mean."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(height, width)).astype(np.float32)
    weights = draw.normal(size=(3, height, width)).astype(np.float32)

    def forward(image):
        return np.maximum((weights * image).sum((1, 2)), 0)

    steps = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    views = [moved(x, *step) for step in steps]
    expected = np.mean(
        [forward(v) for v in views] + [forward(v[:, ::-1]) for v in views], 0
    )

    model = nn.Sequential(nn.Flatten(), nn.Linear(x.size, 3, bias=False), nn.ReLU())
    model[1].weight.data = torch.from_numpy(weights.reshape(3, -1))
    with torch.no_grad():
        output = TTA_MODES["flip_shift"](model, torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(output[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["flip", "flip_shift"])
def test_tta_of_the_mirror_image_is_equal(name):
    x = torch.rand(4, 3, 5, 7)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    with torch.no_grad():
        logits, flipped_logits = (
            TTA_MODES[name](model, x),
            TTA_MODES[name](model, x.flip(3)),
        )
    torch.testing.assert_close(logits, flipped_logits)


@pytest.mark.parametrize("name", TTA_NAMES)
def test_tta_does_not_change_its_input(name):
    x = torch.rand(2, 1, 4, 4)
    original = x.clone()
    TTA_MODES[name](nn.Flatten(), x)
    assert torch.equal(x, original)
