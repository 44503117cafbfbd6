"""One step of a network for many changed inputs at a time, each as if it came alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from striate.interpret.trace import TensorRef, Trace, TraceStep, nested_tensors

# What these make of an image is the same whatever comes with it, and none of their
# arguments is the size of a batch.
_BLIND = frozenset(
    (
        "convolution",
        "max_pool2d_with_indices",
        "avg_pool2d",
        "_adaptive_avg_pool2d",
        "clone",
        "detach",
    )
)
_SHAPING = frozenset(("view", "_unsafe_view", "reshape"))
StackedChanges = Mapping[TensorRef, Tensor]


class NotBatchableError(Exception):
    """An operation that cannot be run for many changes at a time."""


def run_batched(tape: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Compute a step for every change.

    Args:
        tape: Of one image; what did not change is read from it.
        step: Of the tape.
        changed: Changed tensors, each stacked along a new first axis.

    Shapes:
        (changes, 1, …) → (changes, 1, …)

    Raises:
        NotBatchableError: torch has no way to do so.

    Example:
        >>> from striate.interpret.trace import record_trace
        >>> tape = record_trace(torch.nn.Flatten(), torch.zeros(1, 1, 2, 2))
        >>> changed = {TensorRef(0): torch.rand(5, 1, 1, 2, 2)}
        >>> run_batched(tape, tape.steps[1], changed)[0].shape
        torch.Size([5, 1, 4])
    """
    read = [tape.value(ref) for ref in step.refs]
    # A batch norm in evaluation gives empty tensors, too.
    full = [t for t in (*read, *step.results) if t.numel()]
    images = all(t.shape[:1] == (1,) for t in full)
    way = _batched if images and _as_a_batch(step, read) else _mapped
    return way(tape, step, changed)


def _as_a_batch(step: TraceStep, read: list[Tensor]) -> bool:
    """Tell a step that would treat a batch as images side by side."""
    if step.func is None or step.name in _SHAPING:
        return True
    name, axes = step.name.rstrip("_"), step.results[0].ndim
    if torch.Tag.pointwise in step.func.tags:
        constants = nested_tensors((step.args, dict(step.kwargs)))
        return all(t.ndim == axes for t in read) and all(
            c.ndim < axes or c.shape[0] == 1 for c in constants
        )
    if name == "cat":
        whole = len(read) == len(step.args[0])
        return whole and len(step.args) > 1 and step.args[1] % axes != 0
    if len(read) > 1:  # a weight that depends on the image, say
        return False
    if name == "mean":  # over no axes in particular is over all
        over = (step.args[1] if len(step.args) > 1 else None) or [0]
        return all(axis % axes for axis in over)
    if name == "native_batch_norm":
        return not step.args[5]
    if name == "addmm":
        return isinstance(step.args[1], TensorRef)
    return name in _BLIND


def _batched(tape: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Let the changes be a batch."""
    count = len(next(iter(changed.values())))

    def value(ref: TensorRef) -> Tensor:
        if ref in changed:
            return changed[ref].flatten(0, 1)
        known = tape.value(ref)
        return known.expand(count, *known.shape[1:])

    if step.name in _SHAPING:
        shape = step.results[0].shape[1:]
        results = [value(step.refs[0]).reshape(count, *shape)]
    else:
        results = step.again(value)
    return [result.unsqueeze(1) for result in results]


def _mapped(tape: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Leave it to torch, which knows for most operations how."""

    def one(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(changed, values, strict=True))
        return tuple(step.again(lambda ref: given.get(ref, tape.value(ref))))

    try:
        return list(torch.vmap(one)(*changed.values()))
    except (RuntimeError, ValueError) as error:
        raise NotBatchableError(f"{step.name}: {error}") from error
