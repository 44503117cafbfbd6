"""The predicted box is the box of non-zero input gradients, every time."""

from __future__ import annotations

import collections
import random

import torch
from brute import boxes, positive
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import chain
from torch import nn

from striate.audit.network import audit
from striate.core.errors import GeometryError

REASONS = collections.Counter()


def contains(outer, inner):
    pairs = zip(outer, inner or outer, strict=True)
    return all(a[0] <= b[0] and b[1] <= a[1] for a, b in pairs)


def check(seed: int) -> str:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = positive(chain(draw, draw.randint(1, 6)))
    shape = 4, draw.randint(7, 24), draw.randint(7, 24)
    try:
        found = audit(model, shape)
    except GeometryError as error:
        if REASONS is not None:
            REASONS[str(error)[:60]] += 1
        return "refused"
    out = model(torch.zeros(1, *shape, dtype=torch.double))
    if not out.numel():
        return "empty"
    sight = found.ends[""].sight
    sides = out.shape[2:]
    assert found.layers[-1].output == tuple(out.shape[1:])
    for _ in range(4):
        unit = draw.randrange(sides[0]), draw.randrange(sides[1])
        said, real = sight.box(*unit), boxes(model, shape, unit)
        assert said == real or (sight.loose and contains(said, real)), (
            model,
            shape,
            unit,
            said,
            real,
        )
    return "bound" if sight.loose else "exact"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_boxes_are_those_of_gradients(seed):
    check(seed)


def stem(*layers):
    return audit(nn.Sequential(*layers), (3, 224, 224)).layers[-1].sight.axes[0].line
