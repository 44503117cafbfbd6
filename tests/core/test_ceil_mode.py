"""Output size of pooling with ceil_mode, against torch for every small case."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from striate.core.conv_arithmetic import output_side
from striate.core.errors import GeometryError


def ours(side, kernel, stride, padding, dilation, ceil):
    try:
        return output_side(side, kernel, stride, padding, dilation, ceil)
    except GeometryError:
        return None


def torchs(side, kernel, stride, padding, dilation, ceil):
    x = torch.zeros(1, 1, side)
    try:
        return F.max_pool1d(x, kernel, stride, padding, dilation, ceil).shape[-1]
    except RuntimeError:
        return None


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("kernel", range(1, 6))
def test_pooled_side_against_torch(kernel, ceil):
    paddings = range(kernel // 2 + 1)  # torch's own limit
    for side, stride, padding, d in product(
        range(1, 14), range(1, 5), paddings, (1, 2)
    ):
        case = side, kernel, stride, padding, d, ceil
        assert ours(*case) == torchs(*case), case
