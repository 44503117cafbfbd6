"""Exported files under ONNX Runtime and OpenVINO; hostile files are refused."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from striate.core.errors import (
    DataError,
    GeometryError,
    SettingError,
    StriateError,
    UnknownNameError,
)
from striate.exporters import openvino_session, ort_session, runtimes
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.openvino_ir import write_openvino
from striate.exporters.runtimes import ENGINES, open_session

pytest.importorskip("openvino")


@pytest.fixture
def payload():
    """The sum and the double of a batch."""
    model = OnnxModel()
    model.input("x", np.float32, ["batch", 3])
    model.binary("Mul", "x", 2.0, "double")
    axes = model.constant(np.array([1], np.int64))
    model.add("ReduceSum", ["x", axes], "sum", keepdims=0)
    model.output("double", np.float32, ["batch", 3])
    model.output("sum", np.float32, ["batch"])
    return model.as_bytes({"striate.classes": '["a"]'})


def changed(payload, change):
    model = onnx.load_model_from_string(payload)
    change(model)
    return model.SerializeToString()


@pytest.mark.parametrize("engine", ENGINES)
def test_runs_any_batch_size(payload, engine):
    session = open_session(payload, engine)
    assert session.engine == engine
    (port,) = session.inputs
    assert (port.name, port.dtype, port.shape) == ("x", np.float32, (None, 3))
    assert [port.name for port in session.outputs] == ["double", "sum"]
    for count in (1, 4, 2):
        x = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
        values = session.run(x)
        assert np.array_equal(values["double"], 2 * x)
        assert np.array_equal(values["sum"], x.sum(axis=1))
    assert list(session.run(x, outputs=("sum",))) == ["sum"]


@pytest.mark.parametrize("engine", ENGINES)
def test_results_of_one_call_survive_the_next(payload, engine):
    session = open_session(payload, engine)
    first = session.run(np.ones((1, 3), np.float32))["double"]
    session.run(np.zeros((1, 3), np.float32))
    assert first.tolist() == [[2, 2, 2]]


def test_reads_ir_files(payload, tmp_path):
    xml, weights = write_openvino(payload)
    (tmp_path / "net.xml").write_bytes(xml)
    with pytest.raises(DataError, match="cannot be read"):
        open_session(tmp_path / "net.xml", "openvino")
    (tmp_path / "net.bin").write_bytes(weights)
    session = open_session(tmp_path / "net.xml", "openvino")
    assert session.run(np.ones((2, 3), np.float32))["sum"].tolist() == [3, 3]
    with pytest.raises(SettingError, match=r"does not read \.xml"):
        open_session(tmp_path / "net.xml")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "array",
    [
        np.ones((1, 3)),
        np.ones((1, 4), np.float32),
        np.ones(3, np.float32),
        np.ones((0, 3), np.float32),
    ],
)
def test_a_batch_that_does_not_fit(payload, engine, array):
    with pytest.raises(GeometryError, match="input x takes any×3 float32"):
        open_session(payload, engine).run(array)


def test_unknown_names(payload):
    with pytest.raises(UnknownNameError, match="engine"):
        open_session(payload, "tensorrt")
    with pytest.raises(UnknownNameError, match="output"):
        open_session(payload).run(np.ones((1, 3), np.float32), ("summ",))
    with pytest.raises(SettingError, match="at least 1"):
        open_session(payload, threads=0)


def custom_domain(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def custom_operator(model):
    model.graph.node[0].domain = "evil"


def own_function(model):
    node = helper.make_node("Neg", ["a"], ["b"])
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("f", "F", ["a"], ["b"], [node], opset))


def external(tensor):
    tensor.Clear()
    tensor.name, tensor.data_type = "outside", TensorProto.FLOAT
    tensor.dims.append(1)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_initializer(model):
    external(model.graph.initializer.add())


def external_attribute(model):
    node = helper.make_node("Constant", [], ["outside"])
    attribute = node.attribute.add()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    external(attribute.t)
    model.graph.node.append(node)


def external_inside_branch(model):
    branch = helper.make_graph([], "branch", [], [])
    external(branch.initializer.add())
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def loop(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["y"], body=body))


def deep(model):
    graph = helper.make_graph([], "g", [], [])
    for _ in range(12):
        node = helper.make_node("If", ["x"], ["y"], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (custom_domain, "com.microsoft"),
        (custom_operator, "evil"),
        (own_function, "its own operator F"),
        (external_initializer, "in another file"),
        (external_attribute, "in another file"),
        (external_inside_branch, "in another file"),
        (loop, "run forever"),
        (deep, "nested"),
    ],
)
def test_hostile_onnx_files(payload, change, text, engine):
    with pytest.raises(DataError, match=text):
        open_session(changed(payload, change), engine)


@pytest.mark.parametrize("junk", [b"", b"\0" * 40, b"PK\3\4 a zip", b"\x08\x08"])
def test_files_of_another_kind(junk):
    with pytest.raises(DataError, match="not an ONNX file"):
        open_session(junk)


@pytest.mark.parametrize("engine", ENGINES)
def test_damaged_graphs_are_errors_of_striate(payload, engine):
    def cut(model):
        model.graph.node[0].input[0] = "nowhere"

    with pytest.raises(StriateError, match="cannot load") as caught:
        open_session(changed(payload, cut), engine)
    assert "\n" not in caught.value.what


def test_hostile_ir_files(payload, tmp_path):
    xml, weights = write_openvino(payload)
    path = tmp_path / "net.xml"
    path.with_suffix(".bin").write_bytes(weights)
    for old, new, text in (
        (b'version="opset1"', b'version="extension"', "extension"),
        (b'<?xml version="1.0"?>', b"<!DOCTYPE x [<!ENTITY a 'b'>]>", "entities"),
        (b'type="Multiply"', b'type="Loop"', "forever"),
        (b"<net", b"<html", "not an OpenVINO file"),
    ):
        assert old in xml
        path.write_bytes(xml.replace(old, new))
        with pytest.raises(DataError, match=text):
            open_session(path, "openvino")


def test_files_above_the_limit_are_not_read(payload, tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(payload)
    monkeypatch.setattr(runtimes, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="the limit is 10"):
        open_session(path)
    with pytest.raises(DataError, match="cannot be read"):
        open_session(tmp_path / "missing.onnx")


def test_a_missing_package_is_named(payload, monkeypatch):
    for engine, extra in (("onnxruntime", "export"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, engine, None)
        with pytest.raises(SettingError) as caught:
            open_session(payload, engine)
        assert f"striate[{extra}]" in (caught.value.fix or "")
    assert ort_session.import_onnxruntime is runtimes.import_onnxruntime
    assert openvino_session.import_openvino is runtimes.import_openvino


def test_no_torch_is_imported():
    code = (
        "import sys, striate.exporters.runtimes, striate.exporters.resize_reference;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_interrupts_work_after_openvino(tmp_path):
    """OpenVINO leaves the thread with a freed signal stack: Ctrl-C would crash it."""
    pytest.importorskip("openvino")
    code = """
import gc, signal
import numpy as np, openvino as ov
from openvino import opset13 as op
from striate.exporters.openvino_session import compile_for_cpu
def compiled():
    x = op.parameter([1, 8], np.float32)
    return compile_for_cpu(ov.Model([op.relu(x)], [x]), {})
first, second = compiled(), compiled()
first(np.zeros((1, 8), np.float32))
del first
gc.collect()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "interrupted\n", done.stderr
