"""Advice on geometry: receptive fields, unused positions, even kernel sizes."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from striate.audit.advice import Advice, DesignContext, join_names
from striate.audit.findings import last_feature_map
from striate.audit.layer import Layer, Operation
from striate.audit.recorder import IMAGE
from striate.audit.used_positions import Mask, count_unused

MIN_COVERAGE = 0.5  # share of the image area: a smaller receptive field is too small
MAX_RATIO = 4.0  # times the image side: a larger receptive field is mostly padding
MAX_SKIPPED = 0.05  # share of a map's positions; odd sides always lose a row or two


def receptive_field_size(context: DesignContext) -> Iterator[Advice]:
    """Compare the receptive field of the last feature map with the image size."""
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
    what = f"The receptive field at {last.name} is {field[0]}×{field[1]}"
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
            finding=f"{what}, {share:.1f} % of the image ({image}).",
            change=f"{more} more 3×3 {word} after {last.name} would enlarge the field "
            f"to {larger[0]}×{larger[1]}. "
            f"Each downsampling (stride 2) before the new {word} halves their number.",
            before=field[0],
            after=larger[0],
            unit="positions",
        )
    elif all(f > MAX_RATIO * n for f, n in zip(field, sides, strict=True)):
        yield from _large_field(context, last, field, f"{what}, the image is {image}")


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
        finding=f"{what}: {padding:.1f} % of the field is padding. "
        f"{enough.name} (layer {depth} of {len(layers)}) already covers the image.",
        change=f"Use fewer layers, or images with a side of {side} pixels, which fill "
        "a quarter of the field. The effective field is smaller: see --effective.",
        before=sides[0],
        after=side,
        unit="positions",
    )


def _covers_image(layer: Layer, sides: tuple[int, ...]) -> bool:
    axes = layer.receptive_field.axes if layer.receptive_field is not None else ()
    return bool(axes) and all(a.size >= n for a, n in zip(axes, sides, strict=True))


def unused_pixels(context: DesignContext) -> Iterator[Advice]:
    """Find pixels of the image that no output depends on."""
    masks = context.usage.needed.get(IMAGE)
    if masks is None or not (count := count_unused(masks)):
        return
    height, width = context.audit.shape[1:]
    rows, columns = (int(mask.sum()) for mask in masks)
    where = " at the bottom or right edge"
    change = f"Images cropped to {rows}×{columns} give the same output."
    if any(_has_gaps(mask) for mask in masks):
        operations = context.usage.users[IMAGE]
        users = join_names([context.layer_of[o.number].name for o in operations])
        rule = "use a kernel at least as large as the stride to use all pixels"
        where, change = "", f"In {users}, {rule}."
    unused = (height - rows, "row"), (width - columns, "column")
    places = " and ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in unused if n)
    yield Advice(
        check="unseen-positions",
        layer="image",
        finding=f"{count:,} of the image's {height * width:,} pixels do not affect the "
        f"output: {places}{where}.",
        change=change,
        before=count,
        after=0,
        unit="positions",
    )


def _has_gaps(mask: Mask) -> bool:
    """Return whether a mask has an unused position before its last used position."""
    used = mask.nonzero()[0]
    return len(used) > 0 and not mask[: used[-1]].all()


def skipped_positions(context: DesignContext) -> Iterator[Advice]:
    """Find feature maps in which strided windows skip some positions."""
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
            f"positions of {context.name_of(number)}; the other positions are unused.",
            change=_fix_for_skipped(context, min(sliding, key=lambda o: o.macs or 0)),
            before=count,
            after=0,
            unit="positions",
        )


def _fix_for_skipped(context: DesignContext, operation: Operation) -> str:
    """Suggest a change by which a layer reads all positions of its input."""
    window, name = operation.window, context.layer_of[operation.number].name
    assert window is not None  # noqa: S101 - checked before
    if window.pooling:
        sides = []
        for i, n in enumerate(operation.inputs[0][2:]):
            f, s, p, _ = window.axis(i)
            sides.append(ceil((n + 2 * p - f) / s) + 1)
        height, width = sides
        return f"ceil_mode=True in {name} uses all positions: output {height}×{width}."
    macs = operation.macs or 0
    times = window.stride[0] * window.stride[1]
    return (
        f"Move the stride from {name} to the next convolution with a larger kernel: "
        f"{name} then reads all positions, with {times * macs:,} multiply-adds instead "
        f"of {macs:,}."
    )


def even_kernels(context: DesignContext) -> Iterator[Advice]:
    """Find `same` convolutions with an even kernel size, which shifts the output."""
    for layer, operation in context.operations:
        if not _is_even_same_convolution(context, operation):
            continue
        weights = operation.inputs[1]
        side = weights[-1]
        fewer = layer.parameters - weights[0] * weights[1] * (2 * side - 1)
        yield Advice(
            check="even-window",
            layer=layer.name,
            finding=f"{layer.name} is a `same` convolution with an even kernel, "
            f"{side}×{side}: the output is shifted by half a position{_jump(layer)}.",
            change=f"A {side - 1}×{side - 1} kernel is centered, with {fewer:,} "
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
    field = layer.receptive_field
    line = None if field is None else field.axes[0].formula
    return "" if line is None else f" ({float(line.jump) / 2:g} pixels of the image)"


CHECKS = (receptive_field_size, unused_pixels, skipped_positions, even_kernels)
