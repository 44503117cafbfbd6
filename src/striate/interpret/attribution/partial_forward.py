"""Partial forward passes: recompute only the changed region of each feature map.

An occluded window changes a box of every feature map; outside of the box, the map is
that of the original image. Boxes of many windows pass through a layer as one batch of
patches: each patch is cut from the original map, the changed box is pasted into the
patch, and the layer runs without padding. If the boxes cover most of a map, or if an
operation mixes positions, the full maps are built and run as a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.interpret.attribution.batched_steps import run_batched
from striate.interpret.attribution.changed_regions import (
    ChangedBoxes,
    Ints,
    Sides,
    extract_patches,
    full_maps,
    paste_boxes,
)
from striate.interpret.trace import TensorRef, Trace, TraceStep, is_in_place

_MAX_SHARE = 0.6  # share of a map; larger boxes are slower than the full map
# Boxes, or all changed tensors stacked along a new first axis: (changes, 1, C, H, W).
Change = ChangedBoxes | Tensor


class PartialForward:
    """Partial forward passes for many changes of one traced image.

    Each change is computed separately, even if the network mixes the images of a batch.

    Args:
        trace: Trace of the image.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def run(self, changed: ChangedBoxes) -> Tensor:
        """Return the network's output for every change, shape (changes, …).

        Raises:
            NotBatchableError: A step cannot be run for many changes at once.
        """
        count = len(changed.values)
        state: dict[TensorRef, Change] = {TensorRef(0): changed}
        last = self._last_uses()
        for number, step in enumerate(self._trace.steps[1:], start=1):
            changed_inputs = [ref for ref in step.refs if ref in state]
            if changed_inputs:
                self._step(number, step, state)
            for ref in changed_inputs:
                if last[ref] == number and ref != self._trace.output:
                    del state[ref]
        if self._trace.output not in state:  # no change reaches the output
            value = self._trace.value(self._trace.output)
            return value.expand(count, *value.shape[1:])
        return self._stacked(self._trace.output, state).flatten(0, 1)

    def _last_uses(self) -> dict[TensorRef, int]:
        steps = enumerate(self._trace.steps)
        return {ref: number for number, step in steps for ref in step.refs}

    def _step(
        self, number: int, step: TraceStep, state: dict[TensorRef, Change]
    ) -> None:
        rule = _rule(step)
        boxed = all(
            isinstance(state.get(ref), ChangedBoxes | None) for ref in step.refs
        )
        if rule is not None and boxed:
            out = rule(self._trace, step, state)
            if out is not None:
                state[TensorRef(number)] = out
                return
        stacked = {ref: self._stacked(ref, state) for ref in step.refs if ref in state}
        for part, result in enumerate(run_batched(self._trace, step, stacked)):
            state[TensorRef(number, part)] = result

    def _stacked(self, ref: TensorRef, state: dict[TensorRef, Change]) -> Tensor:
        """Return the full feature maps of all changes, stacked along a new axis."""
        change = state[ref]
        if isinstance(change, ChangedBoxes):
            change = full_maps(self._trace.value(ref), change).unsqueeze(1)
            state[ref] = change
        return change


# --- rules: which box of a layer's output changes, and how to compute it ---

Rule = Callable[[Trace, TraceStep, dict[TensorRef, Change]], ChangedBoxes | None]


def _rule(step: TraceStep) -> Rule | None:
    """Return the partial-forward rule of a step; None if the step mixes positions."""
    if step.func is None or len(step.results[0].shape) != 4:
        return None
    name = step.name.rstrip("_") if is_in_place(step.func) else step.name
    if name == "native_batch_norm":
        return None if step.args[5] else _pointwise
    if name == "cat":
        return _pointwise if step.args[1:] in ((1,), (-3,)) else None
    if name in _SLIDING:
        return _sliding_window
    if torch.Tag.pointwise in step.func.tags or name in ("clone", "detach"):
        return _pointwise if _is_uniform(step) else None
    return None


def _is_uniform(step: TraceStep) -> bool:
    """Return whether an operation's constants are the same at every position."""
    constants = [
        a for a in (*step.args, *step.kwargs.values()) if isinstance(a, Tensor)
    ]
    return all(c.ndim < 2 or set(c.shape[-2:]) == {1} for c in constants)


def _pointwise(
    trace: Trace, step: TraceStep, state: dict[TensorRef, Change]
) -> ChangedBoxes | None:
    """Run an element-wise step on the smallest box that contains all changed boxes."""
    height, width = step.results[0].shape[2:]
    changed_inputs = [state[ref] for ref in step.refs if ref in state]
    boxes = [change for change in changed_inputs if isinstance(change, ChangedBoxes)]
    if any(tuple(trace.value(ref).shape[2:]) != (height, width) for ref in step.refs):
        return None
    rows = _union([(box.tops, box.sides[0]) for box in boxes], height)
    columns = _union([(box.lefts, box.sides[1]) for box in boxes], width)
    (tops, down), (lefts, across) = rows, columns
    if down * across > _MAX_SHARE * height * width:
        return None

    def patch(ref: TensorRef) -> Tensor:
        change = state.get(ref)
        if isinstance(change, ChangedBoxes):
            spans = change.tops, change.lefts, change.sides
            if spans == (tops, lefts, (down, across)):
                return change.values
        patches = extract_patches(trace.value(ref), tops, lefts, (down, across))
        if isinstance(change, ChangedBoxes):
            paste_boxes(patches, change, tops, lefts)
        return patches

    return ChangedBoxes(step.recompute(patch)[0], tops, lefts)


def _union(spans: Sequence[tuple[Ints, int]], side: int) -> tuple[Ints, int]:
    """Return starts and one length of ranges that contain all given ranges."""
    firsts = [min(at) for at in zip(*(starts for starts, _ in spans), strict=True)]
    ends = zip(*([s + n for s in starts] for starts, n in spans), strict=True)
    length = max(max(e) - f for f, e in zip(firsts, ends, strict=True))
    return [min(first, side - length) for first in firsts], length


_SLIDING = ("convolution", "max_pool2d_with_indices", "avg_pool2d")


def _sliding_window(
    trace: Trace, step: TraceStep, state: dict[TensorRef, Change]
) -> ChangedBoxes | None:
    """Run a convolution or pooling on patches around the changed boxes."""
    geometry = _geometry(step)
    change = state.get(step.args[0])
    if geometry is None or not isinstance(change, ChangedBoxes):
        return None
    outputs = tuple(step.results[0].shape[2:])
    sides = [(change.tops, change.sides[0]), (change.lefts, change.sides[1])]
    tops, down = _affected_outputs(*sides[0], outputs[0], *(g[0] for g in geometry))
    lefts, across = _affected_outputs(*sides[1], outputs[1], *(g[1] for g in geometry))
    if down * across > _MAX_SHARE * outputs[0] * outputs[1]:
        return None
    kernel, stride, padding, dilation = geometry
    above = [at * stride[0] - padding[0] for at in tops]
    before = [at * stride[1] - padding[1] for at in lefts]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = (down - 1) * stride[0] + reach[0], (across - 1) * stride[1] + reach[1]
    empty = -float("inf") if step.name.startswith("max") else 0.0
    patches = extract_patches(trace.value(step.args[0]), above, before, size, empty)
    paste_boxes(patches, change, above, before)
    return ChangedBoxes(_unpadded(step, patches), tops, lefts)


def _geometry(step: TraceStep) -> tuple[Sides, Sides, Sides, Sides] | None:
    """Return kernel, stride, padding, dilation; None if the step needs a full pass."""
    args = step.args
    if step.name == "convolution":
        if args[6] or any(isinstance(a, TensorRef) for a in args[1:3]):
            return None
        kernel = (args[1].shape[2], args[1].shape[3])
        return kernel, _pair(args[3]), _pair(args[4]), _pair(args[5])
    kernel = _pair(args[1])
    stride = _pair(args[2]) if len(args) > 2 and args[2] else kernel
    padding = _pair(args[3]) if len(args) > 3 else (0, 0)
    if step.name == "avg_pool2d":
        # At a padded or partial border the divisor is not the kernel size.
        ragged = len(args) > 4 and args[4]
        return None if any(padding) or ragged else (kernel, stride, padding, (1, 1))
    return kernel, stride, padding, _pair(args[4]) if len(args) > 4 else (1, 1)


def _pair(value: Any) -> Sides:
    both = [value] if isinstance(value, int) else list(value)
    return (int(both[0]), int(both[-1]))


def _affected_outputs(
    starts: Ints,
    length: int,
    outputs: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
) -> tuple[Ints, int]:
    """Return starts and one length of the output ranges that a change affects.

    Example:
        >>> _affected_outputs([4, 5], 2, 10, kernel=3, stride=1, padding=1, dilation=1)
        ([3, 4], 4)
    """
    reach = dilation * (kernel - 1)
    firsts = [max(0, -((reach - s - padding) // stride)) for s in starts]
    lasts = [min(outputs - 1, (s + length - 1 + padding) // stride) for s in starts]
    most = max(last - first + 1 for first, last in zip(firsts, lasts, strict=True))
    most = max(1, most)
    return [max(0, min(first, outputs - most)) for first in firsts], most


def _unpadded(step: TraceStep, patches: Tensor) -> Tensor:
    if step.name == "convolution":
        weight, bias, stride, _, dilation, _, _, groups = step.args[1:]
        out: Tensor = F.conv2d(patches, weight, bias, stride, 0, dilation, groups)
        return out
    stride = step.args[2] if len(step.args) > 2 and step.args[2] else step.args[1]
    if step.name == "avg_pool2d":
        rest = step.args[5:]  # whether padding counts, and another divisor
        pooled: Tensor = step.call(patches, step.args[1], stride, [0, 0], False, *rest)
        return pooled
    dilation = step.args[4] if len(step.args) > 4 else 1
    return F.max_pool2d(patches, step.args[1], stride, 0, dilation)
