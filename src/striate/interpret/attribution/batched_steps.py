"""Run one traced step for many changed inputs at once, with a result for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from striate.interpret.trace import TensorRef, Trace, TraceStep


class NotBatchableError(Exception):
    """Error of an operation that cannot be run for many changed inputs at once."""


def run_batched(
    trace: Trace,  # trace of one image; unchanged tensors are read from it
    step: TraceStep,  # a step of the trace
    # Changed tensors, each stacked along a new first axis.
    changed: Mapping[TensorRef, Tensor],
) -> list[Tensor]:
    """Run a traced step for many changed inputs at once, with `torch.vmap`.

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
    tensors = [*(trace.value(ref) for ref in step.refs), *step.results]
    # A module need not support vmap; in addmm, vmap would round the bias differently.
    in_a_batch = (
        step.func is None
        or step.name.startswith("_scaled_dot_product")
        or (step.name == "addmm" and step.refs == [step.args[1]])
    )
    if in_a_batch and all(tensor.shape[:1] == (1,) for tensor in tensors):
        return _as_batch(trace, step, changed)

    def recompute(*values: Tensor) -> tuple[Tensor, ...]:
        changes = dict(zip(changed, values, strict=True))
        return tuple(step.recompute(lambda ref: changes.get(ref, trace.value(ref))))

    # Without a rule, vmap would loop too, and print a warning.
    if step.name.startswith("as_strided") or not _has_batching_rule(step.func):
        results = [recompute(*values) for values in zip(*changed.values(), strict=True)]
        return [torch.stack(tensors) for tensors in zip(*results, strict=True)]
    try:
        return list(torch.vmap(recompute)(*changed.values()))
    except (RuntimeError, ValueError) as error:
        raise NotBatchableError(f"{step.name}: {error}") from error


def _has_batching_rule(func: Any) -> bool:
    """Return whether `torch.vmap` can run an operation without a loop."""
    keys = torch._C.DispatchKey
    rules = keys.FuncTorchBatched, keys.FuncTorchBatchedDecomposition
    composite = keys.CompositeImplicitAutograd
    return func is None or any(
        func.has_kernel_for_dispatch_key(key) for key in (*rules, composite)
    )


def _as_batch(
    trace: Trace, step: TraceStep, changed: Mapping[TensorRef, Tensor]
) -> list[Tensor]:
    """Run a traced step once, with all changed inputs as one batch."""
    count = len(next(iter(changed.values())))

    def batch(ref: TensorRef) -> Tensor:
        if ref in changed:
            return changed[ref].flatten(0, 1)
        value = trace.value(ref)
        return value.expand(count, *value.shape[1:])

    return [result.unsqueeze(1) for result in step.recompute(batch)]
