"""Sessions of ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from striate.core.errors import SettingError
from striate.exporters.runtime_ports import (
    TensorPort,
    check_batch,
    named_outputs,
    runtime_errors,
)

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def import_onnxruntime() -> Any:
    """Import the package `onnxruntime`.

    Raises:
        SettingError: It is not installed; the message names the extra.
    """
    try:
        import onnxruntime
    except ImportError as error:
        what = "running an ONNX file needs the package onnxruntime, which is missing"
        fix = 'install it with: pip install "striate[export]"'
        raise SettingError(what, where="export", fix=fix) from error
    return onnxruntime


def onnx_session(payload: bytes, threads: int = 0) -> Any:
    """Return a session of ONNX Runtime on the CPU.

    Args:
        payload: Content of the ONNX file.
        threads: Number of threads; 0 for one per core.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    # Spinning threads slow down everything else on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return runtime.InferenceSession(
        payload, options, providers=["CPUExecutionProvider"]
    )


class OrtSession:
    """An ONNX file under ONNX Runtime; several threads may call `run` at once.

    Args:
        payload: Content of a checked ONNX file.
        threads: Number of threads of one call.
        where: Name of the file in error messages.
    """

    engine = "onnxruntime"

    def __init__(self, payload: bytes, threads: int, where: str) -> None:
        import_onnxruntime()
        self._where = where
        with runtime_errors("ONNX Runtime", "load", where):
            self._session = onnx_session(payload, threads)
        self.inputs = tuple(map(_port, self._session.get_inputs()))
        self.outputs = tuple(map(_port, self._session.get_outputs()))

    def run(
        self, array: np.ndarray, outputs: tuple[str, ...] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the outputs for a batch by name; all of them by default."""
        names = named_outputs(self.outputs, outputs, self._where)
        check_batch(array, self.inputs, self._where)
        with runtime_errors("ONNX Runtime", "run", self._where):
            values = self._session.run(list(names), {self.inputs[0].name: array})
        return dict(zip(names, values, strict=True))


def _port(info: Any) -> TensorPort:
    shape = tuple(size if isinstance(size, int) else None for size in info.shape)
    return TensorPort(name=info.name, dtype=_TYPES.get(info.type), shape=shape)
