"""Memory of a training step: weights, gradients, optimizer state, saved activations.

The step runs on the meta device, so no memory is allocated to measure it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate.audit.fused_calls import scratch_bytes
from striate.audit.meta_device import MetaMode, tensors_in
from striate.audit.recorder import Recorder
from striate.core.hooks import trace_modules

# State values per trainable parameter (SGD with momentum). A fused update, as in
# our engine, needs nothing more.
OPTIMIZERS = {"sgd": 1, "adam": 2, "adamw": 2, "muon": 2}  # muon: at most


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Memory of one training step in bytes, including the optimizer state.

    `saved` are the activations that autograd saves for the backward pass; `peak`
    includes temporary tensors.
    """

    batch_size: int
    optimizer: str
    weights: int
    gradients: int
    state: int
    images: int
    saved: int
    peak: int


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()


def measure_training_step(
    model: nn.Module,
    weights: Sequence[Tensor],
    buffers: Sequence[Tensor],
    batch: Tensor,
    optimizer: str = "adamw",
) -> tuple[TrainingMemory, dict[Any, int]]:
    """Return the memory of a training step, and the saved activation bytes by layer.

    The loss is the sum of the outputs; a real loss would add a few values per class.
    """
    recorder = Recorder(model, weights, buffers, memory_only=True)
    recorder.live_memory.enter(batch)
    saved: dict[Any, int] = {}
    counted = {t.untyped_storage()._cdata for t in (*weights, *buffers)}
    out = _forward(model, batch, recorder, saved, counted)
    if out is not None:

        def enter(func: Any, args: Any, out: Any) -> None:
            for tensor in tensors_in(out):
                recorder.live_memory.enter(tensor)
            recorder.live_memory.add_temporary(scratch_bytes(func, args))

        with MetaMode(enter):
            out.backward()  # type: ignore[no-untyped-call]
    trainable = [tensor_bytes(w) for w in weights if w.requires_grad]
    weight_bytes = sum(tensor_bytes(t) for t in (*weights, *buffers))
    gradients, state = sum(trainable), OPTIMIZERS[optimizer] * sum(trainable)
    memory = TrainingMemory(
        batch_size=batch.shape[0],
        optimizer=optimizer,
        weights=weight_bytes,
        gradients=gradients,
        state=state,
        images=tensor_bytes(batch),
        saved=sum(saved.values()),
        peak=weight_bytes + state + recorder.live_memory.peak,
    )
    for weight in weights:
        weight.grad = None
    return memory, saved


def _forward(
    model: nn.Module,
    batch: Tensor,
    recorder: Recorder,
    saved: dict[Any, int],
    counted: set[int],
) -> Tensor | None:
    """Return the sum of the outputs; add the saved bytes of each layer to `saved`."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            key = recorder.current().key
            saved[key] = saved.get(key, 0) + storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    hooked = trace_modules(model, enter=recorder.enter, leave=recorder.leave)
    with torch.enable_grad(), hooks, hooked, MetaMode(recorder.record_operation):
        outputs = [t for t in tensors_in(model(batch)) if t.requires_grad]
        sums = [t.sum() for t in outputs]
        return sum(sums[1:], sums[0]) if sums else None
