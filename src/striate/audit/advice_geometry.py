"""Advice on what units see: fields, dropped positions, windows without a middle."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from striate.audit.advice import Advice, DesignContext, join_names
from striate.audit.findings import last_feature_map
from striate.audit.layer import Layer, Operation
from striate.audit.recorder import IMAGE
from striate.audit.used_positions import Mask, count_unused

MIN_COVERAGE = (
    0.5  # of the image's area: less, and a unit of the last map sees too little
)
MAX_RATIO = 4.0  # times the image's side: more, and most of what a unit sees is padding
MAX_SKIPPED = 0.05  # of a map's positions; odd sides lose a row here and there


def receptive_field_size(context: DesignContext) -> Iterator[Advice]:
    """Compare what a unit of the last map sees with the image."""
    last = last_feature_map(context.audit)
    if last is None or last.receptive_field is None or last.receptive_field.is_bound:
        return
    lines = [axis.formula for axis in last.receptive_field.axes]
    sides = context.audit.shape[1:]
    if any(line is None or not line.uniform for line in lines):
        return
    field = [int(axis.size) for axis in last.receptive_field.axes]
    jump = [int(line.jump) for line in lines if line is not None]
    covered = min(field[0], sides[0]) * min(field[1], sides[1])
    what = f"A unit of the last map ({last.name}) sees {field[0]}×{field[1]}"
    image = f"{sides[0]}×{sides[1]}"
    if covered < MIN_COVERAGE * sides[0] * sides[1]:
        missing = zip(sides, field, jump, strict=True)
        more = max(ceil((n - f) / (2 * j)) for n, f, j in missing)
        larger = [f + 2 * j * more for f, j in zip(field, jump, strict=True)]
        share = 100 * covered / (sides[0] * sides[1])
        word = "convolution" if more == 1 else "convolutions"
        yield Advice(
            check="small-field",
            layer=last.name,
            finding=f"{what} of {image}, {share:.1f} % of the image.",
            change=f"{more} more 3×3 {word} there would see {larger[0]}×{larger[1]}; "
            "each halving before it needs half as many.",
            before=field[0],
            after=larger[0],
            unit="positions",
        )
    elif all(f > MAX_RATIO * n for f, n in zip(field, sides, strict=True)):
        yield from _large_field(context, last, field, f"{what}, the image has {image}")


def _large_field(
    context: DesignContext, last: Layer, field: list[int], what: str
) -> Iterator[Advice]:
    sides = context.audit.shape[1:]
    padding = 100 * (1 - sides[0] * sides[1] / (field[0] * field[1]))
    layers = context.audit.layers
    enough = next(layer for layer in layers if _covers_image(layer, sides))
    depth = layers.index(enough) + 1
    side = ceil(field[0] / MAX_RATIO)
    yield Advice(
        check="large-field",
        layer=last.name,
        finding=f"{what}: {padding:.1f} % of what it sees is padding, and "
        f"{enough.name} (layer {depth} of {len(layers)}) sees the image whole.",
        change=f"Images of {side} a side would fill a quarter of it; else fewer "
        "layers may do. What units really use is smaller: --effective measures it.",
        before=sides[0],
        after=side,
        unit="positions",
    )


def _covers_image(layer: Layer, sides: tuple[int, ...]) -> bool:
    axes = layer.receptive_field.axes if layer.receptive_field is not None else ()
    return bool(axes) and all(a.size >= n for a, n in zip(axes, sides, strict=True))


def unused_pixels(context: DesignContext) -> Iterator[Advice]:
    """Find positions of the image that no output depends on."""
    masks = context.usage.needed.get(IMAGE)
    if masks is None or not (count := count_unused(masks)):
        return
    height, width = context.audit.shape[1:]
    rows, columns = (int(mask.sum()) for mask in masks)
    inner = any(_has_gaps(mask) for mask in masks)
    users = join_names(
        [context.layer_of[o.number].name for o in context.usage.users[IMAGE]]
    )
    change = (
        f"A window no smaller than its stride in {users} would read them all."
        if inner
        else f"Images of {rows}×{columns} give the same output."
    )
    places = " and ".join(
        f"{len(mask) - used} {word}{'s' if len(mask) - used > 1 else ''}"
        for mask, used, word in zip(
            masks, (rows, columns), ("row", "column"), strict=True
        )
        if used < len(mask)
    )
    where = "" if inner else " at the end"
    yield Advice(
        check="unseen-positions",
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
    used = mask.nonzero()[0]
    return len(used) > 0 and not mask[: used[-1]].all()


def skipped_positions(context: DesignContext) -> Iterator[Advice]:
    """Find maps of which strides leave positions that nothing reads."""
    for number, masks in context.usage.read.items():
        count, size = count_unused(masks), len(masks[0]) * len(masks[1])
        if number == IMAGE or count <= MAX_SKIPPED * size:
            continue
        users = context.usage.users[number]
        sliding = [o for o in users if o.window is not None]
        names = join_names([context.layer_of[o.number].name for o in users])
        yield Advice(
            check="dropped-positions",
            layer=context.layer_of[users[0].number].name,
            finding=f"{names} ({sliding[0].window}) read {size - count:,} of {size:,} "
            f"positions of {context.name_of(number)}; nothing reads the rest.",
            change=_fix_for_skipped(context, min(sliding, key=lambda o: o.macs or 0)),
            before=count,
            after=0,
            unit="positions",
        )


def _fix_for_skipped(context: DesignContext, operation: Operation) -> str:
    """Say what it takes to read every position, and what that costs."""
    window, name = operation.window, context.layer_of[operation.number].name
    assert window is not None  # noqa: S101 - asked before
    if window.pooling:
        sides = zip(
            operation.inputs[0][2:],
            window.kernel,
            window.stride,
            window.padding,
            strict=True,
        )
        height, width = (ceil((n + 2 * p - f) / s) + 1 for n, f, s, p in sides)
        return f"Rounded up (ceil), it would give {height}×{width} and read them all."
    macs = operation.macs or 0
    times = window.stride[0] * window.stride[1]
    return (
        f"With the stride in the next wider window, {name} would read them all, for "
        f"{times * macs:,} multiply-adds instead of {macs:,}."
    )


def even_kernels(context: DesignContext) -> Iterator[Advice]:
    """Find convolutions that keep their sides with a window that has no middle."""
    for layer, operation in context.operations:
        if not _is_even_same_convolution(context, operation):
            continue
        weights = operation.inputs[1]
        side = weights[-1]
        fewer = layer.parameters - weights[0] * weights[1] * (2 * side - 1)
        yield Advice(
            check="even-window",
            layer=layer.name,
            finding=f"{layer.name} keeps its sides with a window of {side}×{side}, "
            f"which has no middle: its map is half a position off{_jump(layer)}.",
            change=f"{side - 1}×{side - 1} stands on its position, with {fewer:,} "
            f"parameters instead of {layer.parameters:,}.",
            before=layer.parameters,
            after=fewer,
            unit="parameters",
        )


def _is_even_same_convolution(context: DesignContext, operation: Operation) -> bool:
    window = operation.window
    if window is None or window.pooling or window.transposed:
        return False
    plain = {*window.stride, *window.dilation} == {1}
    kernel = set(window.kernel)
    if not plain or len(kernel) > 1 or window.kernel[0] % 2:
        return False
    before = context.operations_by_number.get(operation.producers[0][1])
    padded = before is not None and before.name == "constant_pad_nd"
    source = before if before is not None and padded else operation
    return source.inputs[0][2:] == operation.output[2:]


def _jump(layer: Layer) -> str:
    line = (
        layer.receptive_field.axes[0].formula
        if layer.receptive_field is not None
        else None
    )
    return "" if line is None else f", {float(line.jump) / 2:g} of the image's"


CHECKS = (receptive_field_size, unused_pixels, skipped_positions, even_kernels)
