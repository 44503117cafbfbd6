"""Engines that run a network on the processor: 8-bit images in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from striate.core.hooks import evaluation_mode
from striate.core.logits import logits_of
from striate.data.decode.preprocess import normalize
from striate.exporters.network_pipeline import NetworkPipeline
from striate.exporters.openvino_ir import compile_openvino
from striate.exporters.ort_session import onnx_session
from striate.exporters.probabilities import ProbabilityMap

# (N, h, w, C) uint8 → (N, classes) probabilities
Engine = Callable[[np.ndarray], np.ndarray]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Context manager: PyTorch computes with this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_engine(pipeline: NetworkPipeline, *, channels_last: bool = False) -> Engine:
    """Return a network in PyTorch without compilation, for resized 8-bit images."""
    model = deepcopy(pipeline.model)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    to_probs = _torch_probabilities(pipeline.probabilities)

    def run(images: np.ndarray) -> np.ndarray:
        with evaluation_mode(model), torch.inference_mode():
            x = normalize(torch.from_numpy(images), pipeline.preprocess)
            x = x.contiguous(memory_format=layout)
            return to_probs(logits_of(model(x))).numpy()

    return run


def _torch_probabilities(probabilities: ProbabilityMap) -> Callable[[Tensor], Tensor]:
    """Return the same as a `ProbabilityMap`, in single precision."""
    p = probabilities
    if not p.multi_label:
        return lambda logits: torch.softmax(logits / p.temperature, dim=1)
    slopes = torch.tensor(p.slopes or [1.0] * len(p.classes))
    intercepts = torch.tensor(p.intercepts or [0.0] * len(p.classes))
    return lambda logits: torch.sigmoid(slopes * logits + intercepts)


def onnx_engine(payload: bytes, threads: int) -> Engine:
    """Return an ONNX file with the output `probabilities` under ONNX Runtime."""
    session = onnx_session(payload, threads)
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(["probabilities"], {name: images})[0])


def openvino_engine(payload: bytes, threads: int) -> Engine:
    """Return an ONNX file with the output `probabilities` under OpenVINO."""
    compiled = compile_openvino(payload, threads)
    return lambda images: np.asarray(compiled([images])["probabilities"])
