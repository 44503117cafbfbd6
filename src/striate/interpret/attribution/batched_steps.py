"""Run one traced step for many changed inputs at once, each change separately."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from striate.interpret.trace import TensorRef, Trace, TraceStep, nested_tensors

# These process each image of a batch separately, and no argument is the batch size.
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
    """Error of an operation that cannot be run for many changes at once."""


def run_batched(trace: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Run a traced step for many changed inputs at once.

    Args:
        trace: Trace of one image; unchanged tensors are read from it.
        step: A step of the trace.
        changed: Changed tensors, each stacked along a new first axis.

    Shapes:
        (changes, 1, …) → (changes, 1, …)

    Raises:
        NotBatchableError: torch cannot run this step for several changes at once.

    Example:
        >>> from striate.interpret.trace import record_trace
        >>> trace = record_trace(torch.nn.Flatten(), torch.zeros(1, 1, 2, 2))
        >>> changed = {TensorRef(0): torch.rand(5, 1, 1, 2, 2)}
        >>> run_batched(trace, trace.steps[1], changed)[0].shape
        torch.Size([5, 1, 4])
    """
    inputs = [trace.value(ref) for ref in step.refs]
    # A batch norm in evaluation mode also returns empty tensors.
    nonempty = [t for t in (*inputs, *step.results) if t.numel()]
    one_image_each = all(t.shape[:1] == (1,) for t in nonempty)
    run = _batched if one_image_each and _works_on_batches(step, inputs) else _by_vmap
    return run(trace, step, changed)


def _works_on_batches(step: TraceStep, inputs: list[Tensor]) -> bool:
    """Return whether a step processes each image of a batch separately."""
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
    if len(inputs) > 1:  # such as a weight that depends on the image
        return False
    if name == "mean":  # no axes means all axes
        axes_used = (step.args[1] if len(step.args) > 1 else None) or [0]
        return all(axis % axes for axis in axes_used)
    if name == "native_batch_norm":
        return not step.args[5]
    if name == "addmm":
        return isinstance(step.args[1], TensorRef)
    return name in _BATCH_SAFE


def _batched(trace: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Run a step with the changes stacked along the batch dimension."""
    count = len(next(iter(changed.values())))

    def value(ref: TensorRef) -> Tensor:
        if ref in changed:
            return changed[ref].flatten(0, 1)
        value_of = trace.value(ref)
        return value_of.expand(count, *value_of.shape[1:])

    if step.name in _RESHAPES:
        shape = step.results[0].shape[1:]
        results = [value(step.refs[0]).reshape(count, *shape)]
    else:
        results = step.recompute(value)
    return [result.unsqueeze(1) for result in results]


def _by_vmap(trace: Trace, step: TraceStep, changed: StackedChanges) -> list[Tensor]:
    """Run a step for all changes with torch.vmap, which supports most operations."""

    def recompute(*values: Tensor) -> tuple[Tensor, ...]:
        values_by_ref = dict(zip(changed, values, strict=True))
        return tuple(
            step.recompute(lambda ref: values_by_ref.get(ref, trace.value(ref)))
        )

    try:
        return list(torch.vmap(recompute)(*changed.values()))
    except (RuntimeError, ValueError) as error:
        raise NotBatchableError(f"{step.name}: {error}") from error
