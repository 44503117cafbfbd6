"""Resize, crop, pad and normalization inside the graph: bit-equal to training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from striate.core.preprocess_config import Preprocess
from striate.data.decode.preprocess import batch_to_input, normalize
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.onnx_preprocess import write_preprocess
from striate.exporters.onnx_target import onnx_session
from striate.exporters.resize_reference import resize_pixels, resize_weights

SIZES = [(1, 1), (1, 50), (50, 1), (96, 80), (4000, 3), (3, 4000), (97, 81), (95, 80)]


def preprocess(mode, channels=3, height=96, width=80, **fields):
    stats = {"mean": (0.45, 0.5, 0.3)[:channels], "std": (0.23, 0.2, 0.11)[:channels]}
    return Preprocess(
        channels=channels, height=height, width=width, resize=mode, **stats, **fields
    )


def session(p, kind="image"):
    model = OnnxModel()
    write_preprocess(model, p, input_kind=kind, batch="batch")
    model.output("normalized", np.float32, ["batch", *p.spec.shape])
    if kind == "image":
        model.output("resized", np.uint8, ["batch", *p.shape])
    return onnx_session(model.as_bytes({}), threads=1)


def compare(p, sizes, seed=0):
    """The number of values, after a comparison of every one of them."""
    draw, program, count = np.random.default_rng(seed), session(p), 0
    for height, width in sizes:
        shape = int(draw.integers(1, 3)), height, width, p.channels
        pixels = draw.integers(0, 256, shape, dtype=np.uint8)
        resized = batch_to_input(pixels, p)
        values = program.run(["resized", "normalized"], {"image": pixels})
        assert np.array_equal(values[0], resized.numpy()), (height, width)
        assert np.array_equal(values[1], normalize(resized, p).numpy())
        count += resized.numel()
    return count


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_resized_and_normalized_values_are_bit_equal(mode, channels):
    draw = np.random.default_rng(channels)
    sizes = SIZES + [tuple(draw.integers(1, 700, 2)) for _ in range(8)]
    assert compare(preprocess(mode, channels), sizes) > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_a_thousand_sizes(mode):
    draw = np.random.default_rng(7)
    sizes = np.exp(draw.uniform(0, np.log(4000), (1000, 2))).astype(int).clip(1)
    sizes = [tuple(size) for size in sizes if size.prod() < 6e6]
    compare(preprocess(mode, 3, 224, 224), sizes, seed=1)


def test_padding_has_the_background():
    p = preprocess("pad", channels=1, height=8, width=8, background=77)
    pixels = np.full((1, 2, 4, 1), 200, np.uint8)
    (resized,) = session(p).run(["resized"], {"image": pixels})
    assert resized[0, 0, 0, 0] == 77
    assert resized[0, 4, 4, 0] == 200


def test_the_input_at_the_size_of_the_network():
    p = preprocess("stretch")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *p.shape), dtype=np.uint8)
    (values,) = session(p, "resized").run(["normalized"], {"resized": pixels})
    expected = normalize(torch.from_numpy(pixels), p)
    assert np.array_equal(values, expected.numpy())


def test_the_comparison_bites():
    """ONNX's own resize gives other pixels, as do weights that are not rounded."""
    import onnx.helper

    model = OnnxModel()
    model.input("image", np.uint8, ["batch", 3, "height", "width"])
    model.add("Cast", ["image"], "float", to=1)
    sizes = model.constant(np.array([1, 3, 96, 80], np.int64))
    model.add("Resize", ["float", "", "", sizes], "resized", mode="linear", antialias=1)
    model.output("resized", np.float32, ["batch", 3, 96, 80])
    assert onnx.helper is not None
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 300, 200), dtype=np.uint8)
    program = onnx_session(model.as_bytes({}))
    (values,) = program.run(None, {"image": pixels})
    expected = F.interpolate(
        torch.from_numpy(pixels), (96, 80), mode="bilinear", antialias=True
    )
    share = (np.rint(values) != expected.numpy()).mean()
    assert 0.01 < share < 0.9


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 120),
    st.integers(1, 120),
    st.integers(0, 2**32 - 1),
)
def test_the_numpy_resize_is_torchs(height, width, rows, columns, seed):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    expected = F.interpolate(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        (rows, columns),
        mode="bilinear",
        antialias=True,
    ).permute(0, 2, 3, 1)
    assert np.array_equal(resize_pixels(pixels, rows, columns), expected.numpy())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 300))
def test_integer_weights_use_their_range(size, out_size):
    weights, precision = resize_weights(size, out_size)
    assert weights.max() < 2**15
    assert precision == 22 or weights.max() >= 2**13
    assert np.abs(weights.sum(axis=1) - 2**precision).max() <= weights.shape[1]
