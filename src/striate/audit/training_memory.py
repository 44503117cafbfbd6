"""What a training step holds in memory, from a step that runs on shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate.audit.meta_mode import MetaMode, tensors_in
from striate.audit.recorder import Recorder
from striate.core.hooks import followed

# Numbers an optimizer keeps for each that learns (SGD with momentum). Fused, as in
# our engine, its update needs nothing more.
OPTIMIZERS = {"sgd": 1, "adam": 2, "adamw": 2, "muon": 2}  # muon: at most


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes of one training step from its second on, when optimizer state exists.

    Args:
        batch_size: Images a step.
        optimizer: Whose state is counted.
        weights: Parameters and buffers.
        gradients: One number for each that learns.
        state: What the optimizer keeps.
        images: The batch itself.
        saved: What autograd keeps of the forward pass for the way back.
        peak: The most that lives at once, of all these and what comes and goes.
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
    """Return a tensor's bytes."""
    return tensor.numel() * tensor.element_size()


def measure_training_step(
    model: nn.Module,
    weights: Sequence[Tensor],
    buffers: Sequence[Tensor],
    batch: Tensor,
    optimizer: str = "adamw",
) -> tuple[TrainingMemory, dict[Any, int]]:
    """Run a step on shapes; return its memory, and bytes saved by row.

    The loss is the sum of the outputs: a real one adds a few numbers a class.

    Args:
        model: The network, with ghosts for weights, in training mode.
        weights: Its parameters.
        buffers: Its buffers.
        batch: Ghost of a batch of images.
        optimizer: `sgd`, `adam` or `adamw`.
    """
    recorder = Recorder(model, weights, buffers, memory_only=True)
    recorder.live_memory.enter(batch)
    saved: dict[Any, int] = {}
    counted = {t.untyped_storage()._cdata for t in (*weights, *buffers)}
    out = _forward(model, batch, recorder, saved, counted)
    if out is not None:
        with MetaMode(lambda func, args, out: _enter(recorder, out)):
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


def _enter(recorder: Recorder, out: Any) -> None:
    for tensor in tensors_in(out):
        recorder.live_memory.enter(tensor)


def _forward(
    model: nn.Module,
    batch: Tensor,
    recorder: Recorder,
    saved: dict[Any, int],
    counted: set[int],
) -> Tensor | None:
    """Return the sum of all outputs that gradients reach, having seen what is saved."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            key = recorder.current().key
            saved[key] = saved.get(key, 0) + storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    hooked = followed(model, enter=recorder.enter, leave=recorder.leave)
    with torch.enable_grad(), hooks, hooked, MetaMode(recorder.record_operation):
        outputs = [t for t in tensors_in(model(batch)) if t.requires_grad]
        sums = [t.sum() for t in outputs]
        return sum(sums[1:], sums[0]) if sums else None
