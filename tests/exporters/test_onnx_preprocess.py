"""Resize, crop, pad and normalization inside the graph: bit-equal to training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from striate.core.preprocess_config import Preprocess, scaled_sides
from striate.data.decode.preprocess import batch_to_input, normalize
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.onnx_preprocess import write_preprocess
from striate.exporters.openvino_session import compile_for_cpu, import_openvino
from striate.exporters.ort_session import onnx_session
from striate.exporters.resize_reference import (
    normalize_pixels,
    preprocess_pixels,
    resize_pixels,
    resize_weights,
)

SIZES = [
    *[(1, 1), (1, 50), (50, 1), (96, 80), (96, 81), (4000, 3), (3, 4000), (97, 81)],
    *[(95, 80), (192, 160), (192, 80), (2048, 1024), (768, 3072), (2, 2), (1, 4000)],
]


def preprocess(mode, channels=3, height=96, width=80, **fields):
    stats = {"mean": (0.45, 0.5, 0.3)[:channels], "std": (0.23, 0.2, 0.11)[:channels]}
    return Preprocess(
        channels=channels, height=height, width=width, resize=mode, **stats, **fields
    )


def model_bytes(p, kind="image"):
    model = OnnxModel()
    write_preprocess(model, p, input_kind=kind, batch="batch")
    model.output("normalized", np.float32, ["batch", *p.spec.shape])
    if kind == "image":
        model.output("resized", np.uint8, ["batch", *p.shape])
    return model.as_bytes({})


def session(p, kind="image"):
    return onnx_session(model_bytes(p, kind), threads=1)


def compare(p, sizes, seed=0):
    """The number of values, after a comparison of every one of them."""
    draw, program, count = np.random.default_rng(seed), session(p), 0
    for height, width in sizes:
        shape = int(draw.choice([1, 3])), height, width, p.channels
        pixels = draw.integers(0, 256, shape, dtype=np.uint8)
        resized = batch_to_input(pixels, p)
        normalized = normalize(resized, p).numpy()
        values = program.run(["resized", "normalized"], {"image": pixels})
        assert np.array_equal(values[0], resized.numpy()), (height, width)
        assert np.array_equal(values[1], normalized), (height, width)
        without_torch = preprocess_pixels(pixels, p)
        assert np.array_equal(without_torch, resized.numpy()), (height, width)
        assert np.array_equal(normalize_pixels(without_torch, p), normalized)
        count += resized.numel()
    return count


def random_sizes(count, largest, seed):
    """Sizes from 1 to `largest`, of all magnitudes."""
    draw = np.random.default_rng(seed)
    sides = np.exp(draw.uniform(0, np.log(largest + 1), (count, 2))).astype(int)
    return [tuple(map(int, pair)) for pair in sides]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_resized_and_normalized_values_are_bit_equal(mode, channels):
    sizes = SIZES + random_sizes(45, 1000, channels)
    assert compare(preprocess(mode, channels), sizes) > 400_000


@pytest.mark.parametrize("target", [(1, 1), (1, 7), (7, 1), (75, 33), (225, 3)])
def test_networks_with_other_inputs(target):
    sizes = [(1, 1), (3072, 64), (64, 1024), target, *random_sizes(8, 500, 3)]
    for mode in ("stretch", "crop", "pad"):
        compare(preprocess(mode, 3, *target), sizes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_a_thousand_sizes(mode):
    p = preprocess(mode, 3, 224, 224)
    sizes = [
        (height, width)
        for height, width in random_sizes(1000, 4000, 7)
        if height * width < 6e6 and np.prod(scaled_sides(p, height, width)) < 2e7
    ]
    assert len(sizes) > 700
    compare(p, sizes, seed=1)


def test_a_crop_of_a_flat_image_needs_little_memory():
    """Resized in full it would be 224×6,720,000."""
    p = preprocess("crop", 3, 224, 224)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 1, 30_000, 3), np.uint8)
    (values,) = session(p).run(["resized"], {"image": pixels})
    assert np.array_equal(values, preprocess_pixels(pixels, p))


def test_openvino_reads_the_graph_in_single_precision():
    """About 0.1 % of the 8-bit values differ by 1; a division becomes a product."""
    pytest.importorskip("openvino")
    openvino = import_openvino()
    p = preprocess("stretch", 3, 224, 224)
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (1, 600, 800, 3), dtype=np.uint8)
    resized = batch_to_input(pixels, p)
    values = openvino_values(openvino, p, "image", pixels)["resized"]
    difference = np.abs(values.astype(int) - resized.numpy())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.003
    values = openvino_values(openvino, p, "resized", resized.numpy())["normalized"]
    assert np.abs(values - normalize(resized, p).numpy()).max() < 1e-6


def openvino_values(openvino, p, kind, pixels):
    model = openvino.Core().read_model(model_bytes(p, kind))
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = compile_for_cpu(model, settings)
    request = compiled.create_infer_request()
    request.infer([pixels])
    names = [output.any_name for output in compiled.outputs]
    return {name: request.get_tensor(name).data.copy() for name in names}


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
