"""What a training step holds in memory, from a step that runs on shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate.audit.meta_mode import Ghost, tensors_in
from striate.audit.recorder import Recorder
from striate.core.hooks import trace_modules

# Numbers an optimizer keeps for each that learns (SGD with momentum). Fused, as in
# our engine, its update needs nothing more.
OPTIMIZERS = {"sgd": 1, "adam": 2, "adamw": 2, "muon": 2}  # muon: at most


@dataclass(frozen=True, kw_only=True)
class Memory:
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


def size_of(tensor: Tensor) -> int:
    """Return a tensor's bytes."""
    return tensor.numel() * tensor.element_size()


def training_step(
    model: nn.Module,
    weights: Sequence[Tensor],
    buffers: Sequence[Tensor],
    batch: Tensor,
    optimizer: str = "adamw",
) -> tuple[Memory, dict[Any, int]]:
    """Run a step on shapes; return its memory, and bytes saved by row.

    The loss is the sum of the outputs: a real one adds a few numbers a class.

    Args:
        model: The network, with ghosts for weights, in training mode.
        weights: Its parameters.
        buffers: Its buffers.
        batch: Ghost of a batch of images.
        optimizer: `sgd`, `adam` or `adamw`.
    """
    recorder = Recorder(model, weights, buffers, places_only=True)
    recorder.ledger.enter(batch)
    saved: dict[Any, int] = {}
    known = {t.untyped_storage()._cdata for t in (*weights, *buffers)}
    out = _forward(model, batch, recorder, saved, known)
    if out is not None:
        with Ghost(lambda func, args, out: _enter(recorder, out)):
            out.backward()  # type: ignore[no-untyped-call]
    learning = [size_of(w) for w in weights if w.requires_grad]
    held = sum(size_of(t) for t in (*weights, *buffers))
    gradients, state = sum(learning), OPTIMIZERS[optimizer] * sum(learning)
    memory = Memory(
        batch_size=batch.shape[0],
        optimizer=optimizer,
        weights=held,
        gradients=gradients,
        state=state,
        images=size_of(batch),
        saved=sum(saved.values()),
        peak=held + state + recorder.ledger.peak,
    )
    for weight in weights:
        weight.grad = None
    return memory, saved


def _enter(recorder: Recorder, out: Any) -> None:
    for tensor in tensors_in(out):
        recorder.ledger.enter(tensor)


def _forward(
    model: nn.Module,
    batch: Tensor,
    recorder: Recorder,
    saved: dict[Any, int],
    known: set[int],
) -> Tensor | None:
    """Return the sum of all outputs that gradients reach, having seen what is saved."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            known.add(storage._cdata)
            key = recorder.current().key
            saved[key] = saved.get(key, 0) + storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    watched = trace_modules(model, enter=recorder.enter, leave=recorder.leave)
    with torch.enable_grad(), hooks, watched, Ghost(recorder.see):
        outputs = [t for t in tensors_in(model(batch)) if t.requires_grad]
        sums = [t.sum() for t in outputs]
        return sum(sums[1:], sums[0]) if sums else None
