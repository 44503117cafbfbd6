"""Advice on what a network costs: needless biases, a heavy head, bottlenecks."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from striate.audit.advice import Advice, Plan, listed
from striate.audit.findings import last_map
from striate.audit.layer import Layer, Operation

HEAVY = 0.5  # of all parameters in dense layers
WORTH = 0.3  # of all multiply-adds saved, or a bottleneck is not worth its words
LEAST = 0.05  # of all multiply-adds: smaller layers are not worth a bottleneck


def redundant_bias(plan: Plan) -> Iterator[Advice]:
    """Find biases that the batch norm after them subtracts again."""
    found = [
        (layer, operation.output[1])
        for layer, operation in plan.operations
        if _has_bias(operation) and _into_batch_norm(plan, operation)
    ]
    if not found:
        return
    names = [layer.name for layer, _ in found]
    total, count = plan.audit.parameters, sum(n for _, n in found)
    verb, its = ("have", "their") if len(found) > 1 else ("has", "its")
    yield Advice(
        about="redundant-bias",
        layer=names[0],
        finding=f"{listed(names)} {verb} a bias that the batch norm behind subtracts "
        f"with the mean: {count:,} numbers that can learn nothing.",
        change=f"With bias=False and {its} norm's own shift, {total - count:,} "
        f"parameters do what {total:,} do.",
        before=total,
        after=total - count,
        unit="parameters",
    )


def _has_bias(operation: Operation) -> bool:
    if operation.name == "addmm":
        return True
    shapes = operation.inputs
    bias = len(shapes) == 3 and shapes[2] == operation.output[1:2]
    return operation.name == "convolution" and bias


def _into_batch_norm(plan: Plan, operation: Operation) -> bool:
    users = plan.reading.users.get(operation.number, [])
    return bool(users) and all("batch_norm" in user.name for user in users)


def heavy_head(plan: Plan) -> Iterator[Advice]:
    """Find dense layers that hold most parameters, behind a map with places."""
    last = last_map(plan.audit)
    if last is None or last.output is None:
        return
    dense = [layer for layer in plan.audit.layers if _is_dense(layer)]
    held, total = sum(layer.parameters for layer in dense), plan.audit.parameters
    if held <= HEAVY * total:
        return
    channels, classes = last.output[0], dense[-1].operations[-1].output[-1]
    after = total - held + (channels + 1) * classes
    if after >= total:
        return
    verb = "hold" if len(dense) > 1 else "holds"
    yield Advice(
        about="heavy-head",
        layer=dense[0].name,
        finding=f"{listed([x.name for x in dense])} {verb} {held:,} of {total:,} "
        f"parameters ({100 * held / total:.1f} %).",
        change=f"Global average pooling and one dense layer {channels:,} → {classes:,} "
        f"would leave {after:,} in all.",
        before=total,
        after=after,
        unit="parameters",
    )


def _is_dense(layer: Layer) -> bool:
    return layer.parameters > 0 and any(
        operation.name in ("addmm", "mm") for operation in layer.operations
    )


def bottlenecks(plan: Plan) -> Iterator[Advice]:
    """Find wide convolutions that a 1×1 convolution in front would make cheap.

    The 1×1 convolution reduces to a quarter of the channels that come in, at most to
    half of those that go out (He et al. 2016, figure 5; Szegedy et al. 2015, figure 2).
    """
    total = plan.audit.macs
    found = []
    for layer, operation in plan.operations:
        if (operation.macs or 0) < LEAST * total or not _is_wide(plan, operation):
            continue
        found.append((layer.name, operation.macs or 0, _narrowed(operation)))
    saved = sum(before - after for _, before, after in found)
    if saved <= WORTH * total:
        return
    found.sort(key=lambda each: each[2] - each[1])
    before, after = total, total - saved
    yield Advice(
        about="bottleneck",
        layer=found[0][0],
        finding=f"{listed([name for name, _, _ in found])}: windows over many channels "
        f"take {sum(b for _, b, _ in found):,} of {total:,} multiply-adds.",
        change="Through a 1×1 convolution to a quarter of the channels the network "
        f"would take {after:,} ({100 * after / before:.1f} %).",
        before=before,
        after=after,
        unit="multiply-adds",
    )


def _is_wide(plan: Plan, operation: Operation) -> bool:
    windows = operation.windows
    if windows is None or windows.pooling or windows.transposed or windows.groups > 1:
        return False
    narrow = _width(operation) < 1 or prod(windows.kernel) == 1
    return not narrow and not _is_narrowed(plan, operation)


def _is_narrowed(plan: Plan, operation: Operation) -> bool:
    """Tell a window that stands behind a 1×1 convolution with fewer outputs."""
    at = plan.made.get(operation.makers[0][1])
    while at is not None and at.local and len(at.makers) == 1:
        at = plan.made.get(at.makers[0][1])
    if at is None or at.windows is None or at.windows.pooling:
        return False
    return prod(at.windows.kernel) == 1 and at.output[1] < at.inputs[0][1]


def _width(operation: Operation) -> int:
    return min(operation.inputs[0][1] // 4, operation.output[1] // 2)


def _narrowed(operation: Operation) -> int:
    """Return the multiply-adds with a 1×1 convolution in front."""
    windows, width = operation.windows, _width(operation)
    assert windows is not None  # noqa: S101 - asked before
    channels, places = operation.inputs[0][1], prod(operation.inputs[0][2:])
    inside = prod(operation.output[2:]) * prod(windows.kernel) * operation.output[1]
    return places * channels * width + inside * width


CHECKS = (heavy_head, redundant_bias, bottlenecks)
