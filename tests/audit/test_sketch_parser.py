"""A network in one line."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.audit.network import audit
from striate.audit.sketch_parser import is_sketch, sketch
from striate.core.errors import GeometryError, StriateError

GOOD = {
    "28x28x1 > conv 5x5 8 same > relu > pool 2 > dense 10": (10,),
    "28×28×1 → conv 5×5 8 same | bn | tanh | sigmoid | avgpool 2": (8, 14, 14),
    "9x8x3 > conv 3x3 4 /2 pad 1": (4, 5, 4),
    "9x8x3 > conv 2x2 4 same": (4, 9, 8),
    "9x8x3 > conv 4x4 4 s2 same nobias": (4, 5, 4),
    "9x8x4 > conv 3x3 depthwise > conv 1x1 8": (8, 7, 6),
    "9x8x4 > conv 3x3 8 depthwise": (8, 7, 6),
    "9x8x4 > conv 8 groups 2 dilation 2": (8, 5, 4),
    "8x8x4 > deconv 2x2 6 > deconv 3x3 2 stride 1 pad 1 nobias": (2, 16, 16),
    "8x8x4 > upsample > upsample 3": (4, 48, 48),
    "9x9x4 > maxpool 3 /2 ceil > pool 3 /1 same > pool 2x1 s1": (4, 3, 4),
    "12x12x3 > pool 3x2 > avgpool 2x3": (3, 2, 2),
    "9x9x4 > lrn > dropout > id > gap > flatten > softmax": (4,),
    "9x9x4 > gap 3 > dense 5 nobias > bn": (5,),
    "9x9x4 > [conv 1x1 2, conv 3x3 3 same > relu, ] > conv 1x1 1": (1, 9, 9),
    "9x9x4 > sum [conv 3x3 4 same, ]": (4, 9, 9),
    "9x9x4 > 3 * (conv 3x3 4 > relu) > [[conv 1x1 1, conv 1x1 2], id]": (7, 3, 3),
}


@pytest.mark.parametrize(("line", "shape"), GOOD.items())
def test_sketch_builds_the_network(line, shape):
    """The shape it predicts while reading is the shape of a real run."""
    assert is_sketch(line)
    model, image = sketch(line)
    assert tuple(model.eval()(torch.zeros(1, *image)).shape[1:]) == shape
    assert audit(model, image).layers[-1].output == shape


BAD = {
    "8x8x3 > konv 3x3 2": "no layer of a sketch is called 'konv'",
    "8x8x3 > conv 3x3": "conv needs the number of outputs",
    "8x8x3 > conv 3x3 2 4": "'4' is not a layer setting",
    "8x8x3 > conv 3x3 2 sane": "'sane' is not a layer setting",
    "8x8x3 > conv 9x9 2": "does not fit",
    "8x8x3 > conv 3x3 4 g2": "groups=2 does not divide 3 → 4",
    "8x8x4 > conv 3x3 4 depthwise g2": "depthwise and groups 2 cannot be combined",
    "8x8x3 > conv 3x3 4 s0": "at least 1",
    "8x8x3 > conv 3x3 4 g0": "at least 1",
    "8x8x3 > dense 3 > conv 3x3 4": "conv needs a feature map",
    "8x8x3 > pool 2 same": "needs an odd kernel",
    "8x8x3 > [conv 3x3 2, conv 1x1 2]": "cannot be joined",
    "8x8x3 > [conv 1x1 2, conv 1x1 2": "is expected here",
    "8x8x3 > sum conv 1x1 2": "is expected here",
    "8x8x3 > conv 1x1 2 ] > relu": "unexpected",
    "8x8x3 > 2 * (relu": "is expected here",
    "8x8x3 > dense 0": "at least 1",
    "0x8x3 > dense 1": "at least 1",
    "8x8x3 >": "has no layer",
    "8x8x3 > gap 0": "at least 1",
    "8x8x3 > upsample 0": "at least 1",
    "8x8x3 > 0 * (relu)": "at least 1",
    "8x8x3 > gap 7x7": "gap does not accept '7x7'",
    "8x8x3 > dropout 30": "dropout does not accept '30'",
    "8x8x3 > lrn 3": "remove all settings",
    "8x8x3 > dense 3x3 10": "allowed settings: 32, nobias",
    "8x8x3 > deconv 4 same": "deconv does not accept 'same'",
    "8x8x3 > relu nobias": "relu does not accept 'nobias'",
    "8x8x3 > upsample 2 /2": "upsample does not accept 'stride 2'",
    "8x8x3 > pool 3x3 2": "3x3 and 2",
    "8x8x3 > conv 3x3 2 same pad 1": "same and pad 1 cannot be combined",
}


@pytest.mark.parametrize(("line", "message"), BAD.items())
def test_sketch_errors(line, message):
    with pytest.raises(StriateError) as caught:
        sketch(line)
    assert message in str(caught.value)


POSITIONS = {
    "8x8x3 > konv 3x3 2 > relu": "konv",
    "8x8x3 > conv 3x3 2 sane > relu": "sane",
    "8x8x3 > relu > conv 9x9 2 > relu": "conv 9x9 2",
    "8x8x3 → conv 3×3 4 g2 → relu": "conv 3×3 4 g2",
    "8x8x3 > 2 * (relu > konv 3x3 2) > relu": "konv",
    "8x8x3 > [conv 3x3 2, conv 1x1 2] > relu": "[conv 3x3 2, conv 1x1 2]",
    "8x8x3 > conv 1x1 2 ] > relu": "]",
    "8x8x3 > 0 * (relu)": "0",
    "8x8x3 > " + "relu > " * 20 + "RELUU > " + "relu > " * 20 + "relu": "RELUU",
    "8x8x3 > " + "relu > " * 20 + "conv 9x9 2": "conv 9x9 2",
    "8x8x3 > reluu" + " > relu" * 20: "reluu",
}


@pytest.mark.parametrize(("line", "part"), POSITIONS.items())
def test_the_position_of_an_error_is_underlined(line, part):
    with pytest.raises(StriateError) as caught:
        sketch(line)
    _, shown, carets = caught.value.what.splitlines()
    start = carets.index("^")
    assert set(carets.strip()) == {"^"}
    assert shown[start : len(carets)] == part
    assert len(shown) < 110


def test_a_missing_end_is_marked_behind_the_sketch():
    with pytest.raises(StriateError) as caught:
        sketch("8x8x3 > 2 * (relu")
    _, shown, carets = caught.value.what.splitlines()
    assert len(carets) == len(shown) + 1


def test_a_misfit_is_a_geometry_error():
    with pytest.raises(GeometryError):
        sketch("8x8x3 > conv 9x9 2")


TEXT = "conv pool dense [ ] , > | ( ) * sum 3x3 2 0 16 same /2 d2 g2 gap relu id"
WORDS = st.sampled_from(TEXT.split())


@given(st.lists(WORDS, max_size=10))
def test_any_line_gives_a_network_or_an_error(words):
    """What a person may type never ends in a traceback."""
    try:
        model, shape = sketch("8x8x3 > " + " ".join(words))
    except StriateError:
        return
    assert audit(model, shape).layers
