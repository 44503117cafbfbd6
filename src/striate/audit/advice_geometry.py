"""Advice on what units see: fields, dropped positions, windows without a middle."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from striate.audit.advice import Advice, Plan, listed
from striate.audit.findings import last_map
from striate.audit.layer import Layer, Operation
from striate.audit.recorder import IMAGE
from striate.audit.used_positions import Mask, unread

SMALL = 0.5  # of the image's area: less, and a unit of the last map sees too little
LARGE = 4.0  # times the image's side: more, and most of what a unit sees is padding
DROPPED = 0.05  # of a map's positions; odd sides lose a row here and there


def field_and_image(plan: Plan) -> Iterator[Advice]:
    """Compare what a unit of the last map sees with the image."""
    last = last_map(plan.audit)
    if last is None or last.sight is None or last.sight.loose:
        return
    lines = [axis.line for axis in last.sight.axes]
    sides = plan.audit.shape[1:]
    if any(line is None or not line.even for line in lines):
        return
    field = [int(axis.size) for axis in last.sight.axes]
    jump = [int(line.jump) for line in lines if line is not None]
    seen = min(field[0], sides[0]) * min(field[1], sides[1])
    what = f"A unit of the last map ({last.name}) sees {field[0]}×{field[1]}"
    image = f"{sides[0]}×{sides[1]}"
    if seen < SMALL * sides[0] * sides[1]:
        missing = zip(sides, field, jump, strict=True)
        more = max(ceil((n - f) / (2 * j)) for n, f, j in missing)
        grown = [f + 2 * j * more for f, j in zip(field, jump, strict=True)]
        share = 100 * seen / (sides[0] * sides[1])
        word = "convolution" if more == 1 else "convolutions"
        yield Advice(
            about="small-field",
            layer=last.name,
            finding=f"{what} of {image}, {share:.1f} % of the image.",
            change=f"{more} more 3×3 {word} there would see {grown[0]}×{grown[1]}; "
            "each halving before it needs half as many.",
            before=field[0],
            after=grown[0],
            unit="positions",
        )
    elif all(f > LARGE * n for f, n in zip(field, sides, strict=True)):
        yield from _large(plan, last, field, f"{what}, the image has {image}")


def _large(plan: Plan, last: Layer, field: list[int], what: str) -> Iterator[Advice]:
    sides = plan.audit.shape[1:]
    padding = 100 * (1 - sides[0] * sides[1] / (field[0] * field[1]))
    layers = plan.audit.layers
    enough = next(layer for layer in layers if _sees_all(layer, sides))
    depth = layers.index(enough) + 1
    side = ceil(field[0] / LARGE)
    yield Advice(
        about="large-field",
        layer=last.name,
        finding=f"{what}: {padding:.1f} % of what it sees is padding, and "
        f"{enough.name} (layer {depth} of {len(layers)}) sees the image whole.",
        change=f"Images of {side} a side would fill a quarter of it; else fewer "
        "layers may do. What units really use is smaller: --effective measures it.",
        before=sides[0],
        after=side,
        unit="positions",
    )


def _sees_all(layer: Layer, sides: tuple[int, ...]) -> bool:
    axes = layer.sight.axes if layer.sight is not None else ()
    return bool(axes) and all(a.size >= n for a, n in zip(axes, sides, strict=True))


def unseen(plan: Plan) -> Iterator[Advice]:
    """Find positions of the image that no output depends on."""
    masks = plan.reading.needed.get(IMAGE)
    if masks is None or not (count := unread(masks)):
        return
    height, width = plan.audit.shape[1:]
    rows, columns = (int(mask.sum()) for mask in masks)
    inner = any(_has_gaps(mask) for mask in masks)
    users = listed([plan.owner[o.number].name for o in plan.reading.users[IMAGE]])
    change = (
        f"A window no smaller than its stride in {users} would read them all."
        if inner
        else f"Images of {rows}×{columns} give the same output."
    )
    places = " and ".join(
        f"{len(mask) - kept} {word}{'s' if len(mask) - kept > 1 else ''}"
        for mask, kept, word in zip(
            masks, (rows, columns), ("row", "column"), strict=True
        )
        if kept < len(mask)
    )
    where = "" if inner else " at the end"
    yield Advice(
        about="unseen-positions",
        layer="image",
        finding=f"{count:,} of the image's {height * width:,} positions never reach "
        f"the output: {places}{where}.",
        change=change,
        before=count,
        after=0,
        unit="positions",
    )


def _has_gaps(mask: Mask) -> bool:
    """Tell unread positions between read ones."""
    kept = mask.nonzero()[0]
    return len(kept) > 0 and not mask[: kept[-1]].all()


def dropped(plan: Plan) -> Iterator[Advice]:
    """Find maps of which strides leave positions that nothing reads."""
    for number, masks in plan.reading.taken.items():
        count, size = unread(masks), len(masks[0]) * len(masks[1])
        if number == IMAGE or count <= DROPPED * size:
            continue
        users = plan.reading.users[number]
        sliding = [o for o in users if o.windows is not None]
        names = listed([plan.owner[o.number].name for o in users])
        yield Advice(
            about="dropped-positions",
            layer=plan.owner[users[0].number].name,
            finding=f"{names} ({sliding[0].windows}) read {size - count:,} of {size:,} "
            f"positions of {plan.named(number)}; nothing reads the rest.",
            change=_reading_all(plan, min(sliding, key=lambda o: o.macs or 0)),
            before=count,
            after=0,
            unit="positions",
        )


def _reading_all(plan: Plan, operation: Operation) -> str:
    """Say what it takes to read every position, and what that costs."""
    windows, name = operation.windows, plan.owner[operation.number].name
    assert windows is not None  # noqa: S101 - asked before
    if windows.pooling:
        sides = zip(
            operation.inputs[0][2:],
            windows.kernel,
            windows.stride,
            windows.padding,
            strict=True,
        )
        height, width = (ceil((n + 2 * p - f) / s) + 1 for n, f, s, p in sides)
        return f"Rounded up (ceil), it would give {height}×{width} and read them all."
    macs = operation.macs or 0
    times = windows.stride[0] * windows.stride[1]
    return (
        f"With the stride in the next wider window, {name} would read them all, for "
        f"{times * macs:,} multiply-adds instead of {macs:,}."
    )


def even_windows(plan: Plan) -> Iterator[Advice]:
    """Find convolutions that keep their sides with a window that has no middle."""
    for layer, operation in plan.operations:
        if not _is_even_same(plan, operation):
            continue
        weights = operation.inputs[1]
        side = weights[-1]
        fewer = layer.parameters - weights[0] * weights[1] * (2 * side - 1)
        yield Advice(
            about="even-window",
            layer=layer.name,
            finding=f"{layer.name} keeps its sides with a window of {side}×{side}, "
            f"which has no middle: its map is half a position off{_jump(layer)}.",
            change=f"{side - 1}×{side - 1} stands on its position, with {fewer:,} "
            f"parameters instead of {layer.parameters:,}.",
            before=layer.parameters,
            after=fewer,
            unit="parameters",
        )


def _is_even_same(plan: Plan, operation: Operation) -> bool:
    windows = operation.windows
    if windows is None or windows.pooling or windows.transposed:
        return False
    plain = {*windows.stride, *windows.dilation} == {1}
    kernel = set(windows.kernel)
    if not plain or len(kernel) > 1 or windows.kernel[0] % 2:
        return False
    before = plan.made.get(operation.makers[0][1])
    padded = before is not None and before.name == "constant_pad_nd"
    given = before if before is not None and padded else operation
    return given.inputs[0][2:] == operation.output[2:]


def _jump(layer: Layer) -> str:
    line = layer.sight.axes[0].line if layer.sight is not None else None
    return "" if line is None else f", {float(line.jump) / 2:g} of the image's"


CHECKS = (field_and_image, unseen, dropped, even_windows)
