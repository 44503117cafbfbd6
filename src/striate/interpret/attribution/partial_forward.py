"""Partial forward passes: recompute only the changed region of each feature map.

An occluded window changes a box of every feature map; outside of the box, the map is
that of the original image. Boxes of many windows pass through a layer as one batch of
patches: each patch is cut from the original map, the changed box is pasted into the
patch, and the layer runs without padding. If the boxes cover most of a map, or if an
operation mixes positions, the full maps are built and run as a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from striate.interpret.attribution.batched_steps import run_batched
from striate.interpret.attribution.changed_regions import (
    ChangedBoxes,
    Ints,
    extract_patches,
    full_maps,
    paste_boxes,
)
from striate.interpret.trace import (
    TensorRef,
    Trace,
    TraceStep,
    is_in_place,
    nested_tensors,
)

_MAX_SHARE = 0.6  # share of a map; larger boxes are slower than the full map
# Boxes, or all changed tensors stacked along a new first axis: (changes, 1, C, H, W).
Change = ChangedBoxes | Tensor


class PartialForward:
    """Partial forward passes for many changes of one traced image.

    Each change is computed separately, even if the network mixes the images of a batch.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def run(self, changed: ChangedBoxes) -> Tensor:
        """Return the network's output for every changed image, shape (changes, …).

        Raises:
            NotBatchableError: A step cannot be run for many changes at once.
        """
        count = len(changed.values)
        state: dict[TensorRef, Change] = {TensorRef(0): changed}
        steps = enumerate(self._trace.steps)
        last = {ref: number for number, step in steps for ref in step.refs}
        for number, step in enumerate(self._trace.steps[1:], start=1):
            # One tensor may be an input twice: h * h, cat([h, h]).
            changed_inputs = [ref for ref in dict.fromkeys(step.refs) if ref in state]
            if changed_inputs:
                self._step(number, step, state)
            for ref in changed_inputs:
                if last[ref] == number and ref != self._trace.output:
                    del state[ref]
        if self._trace.output not in state:  # no change reaches the output
            value = self._trace.value(self._trace.output)
            return value.expand(count, *value.shape[1:])
        return self._stacked(self._trace.output, state).flatten(0, 1)

    def _step(
        self, number: int, step: TraceStep, state: dict[TensorRef, Change]
    ) -> None:
        rule = _rule(step)
        boxed = not any(isinstance(state.get(ref), Tensor) for ref in step.refs)
        out = rule(self._trace, step, state) if rule is not None and boxed else None
        if out is not None:
            state[TensorRef(number)] = out
            return
        stacked = {ref: self._stacked(ref, state) for ref in step.refs if ref in state}
        for part, result in enumerate(run_batched(self._trace, step, stacked)):
            state[TensorRef(number, part)] = result

    def _stacked(self, ref: TensorRef, state: dict[TensorRef, Change]) -> Tensor:
        """Return the full feature maps of all changed images, along a new axis."""
        change = state[ref]
        if isinstance(change, ChangedBoxes):
            change = full_maps(self._trace.value(ref), change).unsqueeze(1)
            state[ref] = change
        return change


# --- rules: which box of a layer's output changes, and how to compute it ---

Rule = Callable[[Trace, TraceStep, dict[TensorRef, Change]], ChangedBoxes | None]


def _rule(step: TraceStep) -> Rule | None:
    """Return the partial-forward rule of a step; None if the step needs a full pass."""
    if step.func is None or len(step.results[0].shape) != 4:
        return None
    name = step.name.rstrip("_") if is_in_place(step.func) else step.name
    if name == "native_batch_norm":
        return None if step.args[5] else _pointwise
    if name == "cat":
        all_changed = len(step.refs) == len(step.args[0])  # none is a constant
        on_channels = step.args[1:] in ((1,), (-3,))
        return _pointwise if all_changed and on_channels else None
    if name in _SLIDING:
        return _sliding_window
    if torch.Tag.pointwise in step.func.tags or name in ("clone", "detach"):
        arguments = (*step.args, *step.kwargs.values())
        constants = [a for a in arguments if isinstance(a, Tensor)]
        # Constants that are the same at every position.
        uniform = all(set(c.shape[-2:]) <= {1} for c in constants)
        return _pointwise if uniform else None
    return None


def _pointwise(
    trace: Trace, step: TraceStep, state: dict[TensorRef, Change]
) -> ChangedBoxes | None:
    """Run an element-wise step on the smallest box that contains all changed boxes."""
    height, width = step.results[0].shape[2:]
    changed_inputs = [state[ref] for ref in step.refs if ref in state]
    boxes = [change for change in changed_inputs if isinstance(change, ChangedBoxes)]
    if any(tuple(trace.value(ref).shape[2:]) != (height, width) for ref in step.refs):
        return None
    tops, down = _union([(box.tops, box.sides[0]) for box in boxes], height)
    lefts, across = _union([(box.lefts, box.sides[1]) for box in boxes], width)
    if down * across > _MAX_SHARE * height * width:
        return None

    def patch(ref: TensorRef) -> Tensor:
        change = state.get(ref)
        spans = tops, lefts, (down, across)
        if isinstance(change, ChangedBoxes) and change.spans == spans:
            return change.values
        patches = extract_patches(trace.value(ref), tops, lefts, (down, across))
        if isinstance(change, ChangedBoxes):
            paste_boxes(patches, change, tops, lefts)
        return patches

    return ChangedBoxes(step.recompute(patch)[0], tops, lefts)


def _union(spans: Sequence[tuple[Ints, int]], side: int) -> tuple[Ints, int]:
    """Merge lists of ranges index by index; return the starts and the common length."""
    firsts = [min(at) for at in zip(*(starts for starts, _ in spans), strict=True)]
    ends = zip(*([s + n for s in starts] for starts, n in spans), strict=True)
    length = max(max(e) - f for f, e in zip(firsts, ends, strict=True))
    return [min(first, side - length) for first in firsts], length


_SLIDING = ("convolution", "max_pool2d_with_indices", "avg_pool2d")


def _sliding_window(
    trace: Trace, step: TraceStep, state: dict[TensorRef, Change]
) -> ChangedBoxes | None:
    """Run a convolution or pooling on patches around the changed boxes."""
    windows, change = _windows(step), state.get(step.args[0])
    if windows is None or not isinstance(change, ChangedBoxes):
        return None
    height, width = step.results[0].shape[2:]
    tops, down = windows[0].outputs_of(change.tops, change.sides[0], height)
    lefts, across = windows[1].outputs_of(change.lefts, change.sides[1], width)
    if down * across > _MAX_SHARE * height * width:
        return None
    above, rows = windows[0].inputs_of(tops, down)
    before, columns = windows[1].inputs_of(lefts, across)
    empty = -float("inf") if step.name.startswith("max") else 0.0
    base = trace.value(step.args[0])
    patches = extract_patches(base, above, before, (rows, columns), empty)
    paste_boxes(patches, change, above, before)
    padding_at = 4 if step.name == "convolution" else 3
    args = [patches, *step.args[1:]]
    if len(args) > padding_at:
        args[padding_at] = [0, 0]  # the patches include the padding
    return ChangedBoxes(nested_tensors(step.call(*args))[0], tops, lefts)


@dataclass(frozen=True, kw_only=True)
class _AxisWindow:
    """Window of a convolution or pooling along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    def outputs_of(self, starts: Ints, length: int, outputs: int) -> tuple[Ints, int]:
        """Return starts and common length of the output ranges affected by changes.

        Example:
            >>> window = _AxisWindow(kernel=3, stride=1, padding=1, dilation=1)
            >>> window.outputs_of([4, 5], 2, outputs=10)
            ([3, 4], 4)
        """
        reach = self.dilation * (self.kernel - 1)
        ends = [start + length - 1 + self.padding for start in starts]
        firsts = [max(0, -((reach - s - self.padding) // self.stride)) for s in starts]
        lasts = [min(outputs - 1, end // self.stride) for end in ends]
        sizes = [last - first + 1 for first, last in zip(firsts, lasts, strict=True)]
        most = max(1, *sizes)
        return [max(0, min(first, outputs - most)) for first in firsts], most

    def inputs_of(self, starts: Ints, length: int) -> tuple[Ints, int]:
        """Return starts and common length of the input ranges read by output ranges."""
        inputs = [start * self.stride - self.padding for start in starts]
        reach = self.dilation * (self.kernel - 1) + 1
        return inputs, (length - 1) * self.stride + reach


def _windows(step: TraceStep) -> list[_AxisWindow] | None:
    """Return the windows along rows and columns; None if a full pass is needed."""
    args = dict(enumerate(step.args))
    if step.name == "convolution":
        if args[6] or any(isinstance(args[i], TensorRef) for i in (1, 2)):
            return None
        settings = [list(args[1].shape[2:]), args[3], args[4], args[5]]
    else:
        dilation = args.get(4, [1]) if step.name.startswith("max") else [1]
        settings = [args[1], args.get(2) or args[1], args.get(3, [0]), dilation]
        # At a padded or partial border the divisor of a mean is not the kernel size.
        if step.name == "avg_pool2d" and (any(settings[2]) or args.get(4)):
            return None
    return [
        _AxisWindow(kernel=kernel[i], stride=stride[i], padding=pad[i], dilation=d[i])
        for kernel, stride, pad, d in [settings]
        for i in (0, -1)
    ]
