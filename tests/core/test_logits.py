"""The logits of a network's output, in the forms that networks return them."""

from types import SimpleNamespace

import pytest
import torch

from striate.core.errors import GeometryError
from striate.core.logits import find_logits, logits_of, output_text

LOGITS = torch.zeros(2, 3)
MAP = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, "state"),
        [LOGITS, MAP],
        (MAP, LOGITS),
        {"logits": LOGITS, "other": LOGITS},
        {"only": LOGITS},
        SimpleNamespace(logits=LOGITS),
    ],
)
def test_logits_are_found(output):
    assert find_logits(output) is LOGITS


@pytest.mark.parametrize(
    "output", [(), {}, None, (MAP, MAP), {"a": LOGITS, "b": LOGITS}]
)
def test_an_output_without_one_matrix_has_no_logits(output):
    assert find_logits(output) is None
    with pytest.raises(GeometryError, match="is required, got a"):
        logits_of(output)


def test_an_output_is_described():
    assert output_text(None) == "a NoneType"
    assert output_text(torch.tensor(1.0)) == "a scalar"
    assert output_text({"a": 1}) == "a dict with a"
