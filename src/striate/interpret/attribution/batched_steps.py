"""One step of a network for many changed inputs at a time, each as if it came alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from striate.interpret.trace import TensorRef, Trace, TraceStep, nested_tensors

# What these make of an image is the same whatever comes with it, and none of their
# arguments is the size of a batch.
_BATCH_SAFE = frozenset(
    (
        "convolution",
        "max_pool2d_with_indices",
        "avg_pool2d",
        "_adaptive_avg_pool2d",
        "clone",
        "detach",
    )
)
_RESHAPES = frozenset(("view", "_unsafe_view", "reshape"))
StackedChanges = Mapping[TensorRef, Tensor]


class NotBatchableError(Exception):
    """An operation that cannot be run for many changes at a time."""


def run_batched(tape: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Compute a step for every change.

    Args:
        trace: Of one image; what did not change is read from it.
        step: Of the trace.
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
    inputs = [tape.value(ref) for ref in step.refs]
    # A batch norm in evaluation gives empty tensors, too.
    nonempty = [t for t in (*inputs, *step.results) if t.numel()]
    one_image_each = all(t.shape[:1] == (1,) for t in nonempty)
    run = _batched if one_image_each and _works_on_batches(step, inputs) else _by_vmap
    return run(tape, step, changed)


def _works_on_batches(step: TraceStep, inputs: list[Tensor]) -> bool:
    """Tell a step that would treat a batch as images side by side."""
    if step.func is None or step.name in _RESHAPES:
        return True
    name, axes = step.name.rstrip("_"), step.results[0].ndim
    if torch.Tag.pointwise in step.func.tags:
        constants = nested_tensors((step.args, dict(step.kwargs)))
        return all(t.ndim == axes for t in inputs) and all(
            c.ndim < axes or c.shape[0] == 1 for c in constants
        )
    if name == "cat":
        all_from_image = len(inputs) == len(step.args[0])
        return all_from_image and len(step.args) > 1 and step.args[1] % axes != 0
    if len(inputs) > 1:  # a weight that depends on the image, say
        return False
    if name == "mean":  # over no axes in particular is over all
        axes_used = (step.args[1] if len(step.args) > 1 else None) or [0]
        return all(axis % axes for axis in axes_used)
    if name == "native_batch_norm":
        return not step.args[5]
    if name == "addmm":
        return isinstance(step.args[1], TensorRef)
    return name in _BATCH_SAFE


def _batched(tape: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Let the changes be a batch."""
    count = len(next(iter(changed.values())))

    def value(ref: TensorRef) -> Tensor:
        if ref in changed:
            return changed[ref].flatten(0, 1)
        value_of = tape.value(ref)
        return value_of.expand(count, *value_of.shape[1:])

    if step.name in _RESHAPES:
        shape = step.results[0].shape[1:]
        results = [value(step.refs[0]).reshape(count, *shape)]
    else:
        results = step.recompute(value)
    return [result.unsqueeze(1) for result in results]


def _by_vmap(tape: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Leave it to torch, which knows for most operations how."""

    def recompute(*values: Tensor) -> tuple[Tensor, ...]:
        values_by_ref = dict(zip(changed, values, strict=True))
        return tuple(
            step.recompute(lambda ref: values_by_ref.get(ref, tape.value(ref)))
        )

    try:
        return list(torch.vmap(recompute)(*changed.values()))
    except (RuntimeError, ValueError) as error:
        raise NotBatchableError(f"{step.name}: {error}") from error
