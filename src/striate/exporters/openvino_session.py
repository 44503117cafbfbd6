"""Sessions of OpenVINO on the CPU."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from striate.core.errors import SettingError
from striate.exporters.runtime_ports import (
    TensorPort,
    check_batch,
    named_outputs,
    runtime_errors,
)


def import_openvino() -> Any:
    """Import the package `openvino`.

    Raises:
        SettingError: It is not installed; the message names the extra.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import openvino
    except ImportError as error:
        what = "this needs the package openvino, which is not installed"
        fix = 'install it with: pip install "striate[openvino]"'
        raise SettingError(what, where="export", fix=fix) from error
    return openvino


def compile_for_cpu(model: Any, settings: Mapping[str, Any]) -> Any:
    """Return a compiled model, with the signal stack of this thread as it was.

    OpenVINO gives the thread a stack for signal handlers, and frees it with the model.
    With two models the thread may be left with a freed stack: Ctrl-C would then crash
    the process.
    """
    with _own_signal_stack():
        return import_openvino().compile_model(model, "CPU", dict(settings))


class _SignalStack(ctypes.Structure):
    """The C structure `stack_t` of Linux."""

    _fields_: ClassVar = [
        ("pointer", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    ]


@contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Context manager: restore the stack for signal handlers (Linux)."""
    if not sys.platform.startswith("linux"):
        yield
        return
    library, stack = ctypes.CDLL(None), _SignalStack()
    library.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(stack), None)


class OpenvinoSession:
    """An ONNX file or IR under OpenVINO, in single precision.

    Args:
        payload: Content of a checked .onnx or .xml file.
        weights: Content of the .bin file; empty for ONNX.
        threads: Number of threads.
        where: Name of the file in error messages.
    """

    engine = "openvino"

    def __init__(
        self, payload: bytes, weights: bytes, threads: int, where: str
    ) -> None:
        openvino = import_openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._where = where
        with runtime_errors("OpenVINO", "load", where):
            core = openvino.Core()
            files = (payload, weights) if weights else (payload,)
            compiled = compile_for_cpu(core.read_model(*files), settings)
        self._request = compiled.create_infer_request()
        self._lock = Lock()  # a request computes one batch at a time
        self.inputs = tuple(map(_port, compiled.inputs))
        self.outputs = tuple(map(_port, compiled.outputs))

    def run(
        self, array: np.ndarray, outputs: tuple[str, ...] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the outputs for a batch by name; all of them by default."""
        names = named_outputs(self.outputs, outputs, self._where)
        check_batch(array, self.inputs, self._where)
        with self._lock, runtime_errors("OpenVINO", "run", self._where):
            self._request.infer([array])
            return {n: self._request.get_tensor(n).data.copy() for n in names}


def _port(info: Any) -> TensorPort:
    sizes = (d.get_length() if d.is_static else None for d in info.partial_shape)
    dtype = info.element_type.to_dtype().type
    return TensorPort(name=info.any_name, dtype=dtype, shape=tuple(sizes))
