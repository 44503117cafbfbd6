"""Model repository of Triton: dimensions, types and labels of the configuration."""

import json
import re

import numpy as np
import onnx
import pytest

from striate.exporters.onnx_model import OnnxModel
from striate.exporters.triton import MAX_BATCH_SIZE, triton_files


def onnx_file(batch):
    model = OnnxModel()
    model.input("image", np.uint8, [batch, "height", "width", 3])
    model.add("Cast", ["image"], "float", to=1)
    axes = model.constant(np.array([1, 2], np.int64))
    model.add("ReduceMean", ["float", axes], "probabilities", keepdims=0)
    model.add("ArgMax", ["probabilities"], "label_index", axis=1, keepdims=0)
    zero = model.constant(np.array(1, np.int64))
    model.binary("Less", "label_index", zero, "unknown")
    model.output("probabilities", np.float32, [batch, 3])
    model.output("label_index", np.int64, [batch])
    model.output("unknown", np.bool_, [batch])
    classes = ["a cat", "two\nlines", "ü"]
    return model.as_bytes({"striate.classes": json.dumps(classes)})


def blocks(config):
    """Input and output blocks of a configuration: name, type, dimensions."""
    return re.findall(
        r"(input|output) \[\n  \{\n    name: \"(\w+)\"\n    data_type: (\w+)\n"
        r"    dims: (\[.*\])",
        config,
    )


def test_the_files_of_a_repository():
    payload = onnx_file("batch")
    files = triton_files(payload, "cats")
    assert sorted(files) == [
        "cats/1/model.onnx",
        "cats/config.pbtxt",
        "cats/labels.txt",
    ]
    assert files["cats/1/model.onnx"] == payload
    assert files["cats/labels.txt"].decode() == "a cat\ntwo lines\nü\n"
    assert files == triton_files(payload, "cats")
    onnx.checker.check_model(onnx.load_model_from_string(payload), full_check=True)


def test_a_free_batch_size_is_left_out():
    config = triton_files(onnx_file("batch"), "cats")["cats/config.pbtxt"].decode()
    assert f"max_batch_size: {MAX_BATCH_SIZE}\n" in config
    assert "dynamic_batching { }" in config
    assert blocks(config) == [
        ("input", "image", "TYPE_UINT8", "[-1, -1, 3]"),
        ("output", "probabilities", "TYPE_FP32", "[3]"),
        ("output", "label_index", "TYPE_INT64", "[1]"),
        ("output", "unknown", "TYPE_BOOL", "[1]"),
    ]
    assert config.count("reshape: { shape: [ ] }") == 2
    assert config.count("label_filename") == 1


@pytest.mark.parametrize("size", [1, 8])
def test_a_fixed_batch_size_is_a_dimension(size):
    config = triton_files(onnx_file(size), "cats")["cats/config.pbtxt"].decode()
    assert "max_batch_size: 0\n" in config
    assert "dynamic_batching" not in config
    assert "reshape" not in config
    assert [dims for *_, dims in blocks(config)] == [
        f"[{size}, -1, -1, 3]",
        f"[{size}, 3]",
        f"[{size}]",
        f"[{size}]",
    ]
