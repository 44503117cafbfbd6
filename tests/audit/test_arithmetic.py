"""Whole-number arithmetic against torch: it predicts the side, or both refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.core.conv_arithmetic import output_side, pooled_side, transposed_side
from striate.core.errors import GeometryError

SIDES = st.integers(0, 40)
KERNELS = st.integers(0, 9)
STRIDES = st.integers(0, 5)
PADS = st.integers(0, 6)
DILATIONS = st.integers(0, 4)


def torch_side(call):
    """Return the side torch gives, or None where it refuses."""
    try:
        return call().shape[-1]
    except (RuntimeError, ValueError):
        return None


def ours(call):
    try:
        return call()
    except GeometryError:
        return None


def convolution(side, kernel, stride, before, after, dilation):
    padded = F.pad(torch.empty(1, 1, side), (before, after))
    weight = torch.empty(1, 1, kernel)
    return F.conv1d(padded, weight, stride=stride, dilation=dilation)


def check_convolution(side, kernel, stride, before, after, dilation):
    got = torch_side(lambda: convolution(side, kernel, stride, before, after, dilation))
    output = ours(lambda: output_side(side, kernel, stride, (before, after), dilation))
    assert output == got


def check_same(side, kernel, dilation):
    image = torch.empty(1, 1, side)
    got = torch_side(
        lambda: F.conv1d(
            image, torch.empty(1, 1, kernel), padding="same", dilation=dilation
        )
    )
    output = ours(lambda: output_side(side, kernel, 1, "same", dilation))
    assert output == got


def check_pool(side, kernel, stride, pad, dilation, ceil):
    image = torch.zeros(1, 1, 1, side)
    geometry = ((1, n) for n in (kernel, stride))
    got = torch_side(
        lambda: F.max_pool2d(image, *geometry, (0, pad), (1, dilation), ceil)
    )
    output = ours(lambda: pooled_side(side, kernel, stride, pad, dilation, ceil))
    assert output == got


def check_transposed(side, kernel, stride, pad, dilation, extra):
    image, weight = torch.empty(1, 1, side), torch.empty(1, 1, kernel)
    got = torch_side(
        lambda: F.conv_transpose1d(image, weight, None, stride, pad, extra, 1, dilation)
    )
    output = ours(lambda: transposed_side(side, kernel, stride, pad, dilation, extra))
    assert output == got


CASES = [
    (check_convolution, (SIDES, KERNELS, STRIDES, PADS, PADS, DILATIONS)),
    (check_same, (SIDES, KERNELS, DILATIONS)),
    (
        check_pool,
        (SIDES.filter(bool), KERNELS, STRIDES, PADS, DILATIONS, st.booleans()),
    ),
    (check_transposed, (SIDES, KERNELS, STRIDES, PADS, DILATIONS, PADS)),
]
NAMES = ["convolution", "same", "pool", "transposed"]


# torch warns that it copies the image for an even kernel.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize(("check", "parts"), CASES, ids=NAMES)
def test_output_side_equals_torch(check, parts):
    """500 cases of each of four kinds: 2,000 in the commit tier."""
    repeat(check, parts, 500)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize(("check", "parts"), CASES, ids=NAMES)
def test_output_side_equals_torch_exhaustive(check, parts):
    """5,000 cases of each of four kinds: 20,000."""
    repeat(check, parts, 5000)


def repeat(check, parts, times):
    @settings(max_examples=times, deadline=None, derandomize=True)
    @given(st.tuples(*parts))
    def run(values):
        check(*values)

    run()
