"""ONNX file in the making: nodes, constants, inputs, outputs and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.core.errors import SettingError
from striate.exporters.graph import BATCH

if TYPE_CHECKING:
    import onnx

OPSET = 18
# Format version of the file, as old as opset 18 allows: more programs read it.
IR_VERSION = 8
MAX_BYTES = 2**31 - 1  # of one protobuf message
PRODUCER = "striate"


def import_onnx() -> Any:
    """Import the package `onnx`.

    Raises:
        SettingError: It is not installed; the message names the extra.
    """
    try:
        import onnx
    except ImportError as error:
        what = "the export to ONNX needs the package onnx, which is not installed"
        fix = 'install it with: pip install "striate[export]"'
        raise SettingError(what, where="export", fix=fix) from error
    return onnx


class OnnxModel:
    """Collects the nodes of an ONNX graph; the same calls give the same bytes."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self._by_value: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._ends: dict[str, list[onnx.ValueInfoProto]] = {"in": [], "out": []}

    def add(
        self, operator: str, inputs: Iterable[str], output: str, **attrs: Any
    ) -> str:
        """Append a node; its name is that of its output."""
        make_node = self._onnx.helper.make_node
        node = make_node(operator, list(inputs), [output], name=output, **attrs)
        self.nodes.append(node)
        return output

    def binary(self, operator: str, a: str | float, b: str | float, output: str) -> str:
        """Append a node with two inputs; numbers become float32 constants."""
        names = [
            x if isinstance(x, str) else self.constant(np.array(x, np.float32))
            for x in (a, b)
        ]
        return self.add(operator, names, output)

    def reshape(
        self, x: str, shape: Sequence[int], output: str, first: int | None = None
    ) -> str:
        """Append a reshape; BATCH is inferred, or copied from dimension `first`."""
        sizes = list(shape)
        if first is not None:
            sizes[0] = first
        return self.add(
            "Reshape", [x, self.constant(np.array(sizes, np.int64))], output
        )

    def constant(self, value: np.ndarray, name: str = "") -> str:
        """Store a constant; equal unnamed constants are stored once."""
        value = np.asarray(value)
        if not name:
            key = value.dtype.str, value.shape, value.tobytes()
            name = self._by_value.setdefault(key, f"value:{len(self._by_value)}")
        self._constants[name] = value
        return name

    def input(self, name: str, dtype: type, shape: Sequence[int | str]) -> None:
        """Declare an input; a text in the shape is the name of a free dimension."""
        self._ends["in"].append(self._info(name, dtype, shape))

    def output(self, name: str, dtype: type, shape: Sequence[int | str]) -> None:
        """Declare an output."""
        self._ends["out"].append(self._info(name, dtype, shape))

    def _info(self, name: str, dtype: type, shape: Sequence[int | str]) -> Any:
        helper = self._onnx.helper
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        sizes = ["batch" if size == BATCH else size for size in shape]
        return helper.make_tensor_value_info(name, element, sizes)

    def as_bytes(self, metadata: Mapping[str, str], name: str = "network") -> bytes:
        """Return the file: weights inside, no local paths, the same bytes each time.

        Raises:
            SettingError: The file is larger than ONNX allows for one file.
        """
        size = sum(value.nbytes for value in self._constants.values())
        if size > MAX_BYTES:
            what = f"the weights take {size:,} bytes; one ONNX file holds {MAX_BYTES:,}"
            raise SettingError(what, where="export", fix="use --to openvino or c")
        onnx = self._onnx
        tensors = [
            onnx.numpy_helper.from_array(value, key)
            for key, value in self._constants.items()
        ]
        ends = self._ends
        graph = onnx.helper.make_graph(
            self.nodes, name, ends["in"], ends["out"], initializer=tensors
        )
        opset = [onnx.helper.make_opsetid("", OPSET)]
        model = onnx.helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name=PRODUCER
        )
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))
