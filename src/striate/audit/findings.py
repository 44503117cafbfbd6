"""Tables of `striate summary`: key figures, layers, training memory, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

from striate.audit.layer import Layer, shape_text
from striate.audit.network import Audit
from striate.audit.receptive_field_tracker import Path, ReceptiveField
from striate.audit.window_args import sides_text
from striate.core.findings import Block, Cell, Column, Figure, Figures, Prose, Table
from striate.core.format import count_text, format_bytes

Fields = tuple[str, str, str]  # receptive field, jump, center

# Titles are those of torchinfo if it has the column. A narrow terminal hides the
# columns of highest rank first.
COLUMNS = (
    Column("Layer", "code", key="layer"),
    Column("Type", key="type", rank=2),
    Column(
        "Kernel Shape",
        "code",
        key="kernel",
        rank=3,
        hint="kernel size, /stride, d dilation, g groups",
    ),
    Column(
        "Output Shape",
        "code",
        key="output",
        hint="height×width×channels, for one image",
    ),
    Column("Param #", "integer", key="parameters"),
    Column(
        "Param %",
        "share",
        key="parameters_share",
        rank=7,
        hint="share of all parameters",
    ),
    Column(
        "Mult-Adds",
        "integer",
        key="macs",
        hint="multiply-adds (MACs) for one image; 1 MAC = 2 FLOPs",
    ),
    Column(
        "Mult-Adds %",
        "share",
        key="macs_share",
        rank=5,
        hint="share of all multiply-adds",
    ),
    Column(
        "Output Mem",
        "bytes",
        key="activation_bytes",
        rank=6,
        hint="output memory per image (none for in-place ops and views)",
    ),
    Column(
        "Saved Mem",
        "bytes",
        key="saved_bytes",
        rank=8,
        hint="activations saved for the backward pass, per image",
    ),
    Column(
        "Rec. Field",
        "code",
        key="receptive_field",
        rank=1,
        hint="receptive field of one unit, height×width in input pixels",
    ),
    Column(
        "Jump",
        "code",
        key="jump",
        rank=4,
        hint="input pixels between neighboring units (product of the strides)",
    ),
    Column(
        "Center",
        "code",
        key="center",
        rank=9,
        hint="center of the first unit's receptive field, in input pixels",
    ),
    Column("Trainable", key="trainable", rank=10),
)


def layer_table(audit: Audit, depth: int | None = None, title: str = "") -> Table:
    """Return the table of a network's layers, with a row of totals.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> blocks = audit(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8))
        >>> layer_table(blocks).rows[0][:5]
        ('0', 'Conv2d', '3×3', '6×6×2', 56)
    """
    layers = (*audit.layers, *audit.unused_layers)
    layers_shown = layers if depth is None else collapse_modules(audit, layers, depth)
    texts: dict[tuple[Path, bool], Fields] = {}  # of equal receptive fields
    rows = []
    for layer in layers_shown:
        field = layer.receptive_field
        key = (field.axes, field.is_bound) if field is not None else ((), False)
        if key not in texts:
            texts[key] = field_texts(field)
        rows.append(_row(layer, audit, texts[key]))
    totals = _totals(audit, len(audit.layers))
    return Table(columns=COLUMNS, rows=tuple(rows), totals=totals, title=title)


def _row(layer: Layer, audit: Audit, field: Fields) -> tuple[Cell, ...]:
    return (
        layer.name,
        layer.kind,
        "" if layer.window is None else str(layer.window),
        "not run" if layer.output is None else shape_text(layer.output),
        layer.parameters or None,
        _share(layer.parameters, audit.parameters),
        layer.macs or None,
        _share(layer.macs, audit.macs),
        layer.activation or None,
        layer.saved or None,
        *field,
        _trainable(layer.parameters, layer.trainable),
    )


def _share(part: int, total: int) -> float | None:
    return part / total if part else None


def _trainable(parameters: int, trainable: int) -> str:
    if not parameters:
        return ""
    if trainable == parameters:
        return "yes"
    return "partly" if trainable else "no"


def _totals(audit: Audit, count: int) -> tuple[Cell, ...]:
    cells: dict[str, Cell] = {
        "layer": "total",
        "type": count_text(count, "layer"),
        "parameters": audit.parameters,
        "macs": audit.macs,
        "activation_bytes": sum(layer.activation for layer in audit.layers),
        "saved_bytes": sum(layer.saved or 0 for layer in audit.layers) or None,
        "trainable": _trainable(audit.parameters, audit.trainable),
    }
    return tuple(cells.get(column.key) for column in COLUMNS)


def collapse_modules(audit: Audit, layers: Sequence[Layer], depth: int) -> list[Layer]:
    """Merge consecutive layers that belong to the same module at a given depth."""

    def prefix(layer: Layer) -> str:
        path = layer.name.partition("(")[0].split(".")
        return ".".join(path[:depth]) if len(path) > depth else layer.name

    collapsed = []
    for name, group in groupby(layers, key=prefix):
        members = list(group)
        if len(members) == 1 and members[0].name == name:
            collapsed.append(members[0])
            continue
        end = audit.container_outputs.get(name)
        last = members[-1]
        module = replace(
            last,
            name=name,
            kind=type(end.module).__name__ if end else last.kind,
            output=end.output[1:] if end and end.output else last.output,
            receptive_field=end.receptive_field if end else last.receptive_field,
            parameters=sum(x.parameters for x in members),
            trainable=sum(x.trainable for x in members),
            operations=tuple(o for x in members for o in x.operations),
            activation=sum(x.activation for x in members),
            saved=sum(x.saved or 0 for x in members),
        )
        collapsed.append(module)
    return collapsed


def field_texts(field: ReceptiveField | None) -> Fields:
    """Return a receptive field's size, jump and center as text; `≤` is an upper bound.

    Example:
        >>> from striate.audit.receptive_field_tracker import input_field
        >>> field_texts(input_field((1, 3, 8, 8)))
        ('1×1', '1', '0')
    """
    if field is None:
        return "", "", ""
    bound = "≤" if field.is_bound else ""
    size = bound + "×".join(_number(axis.size) for axis in field.axes)
    formulas = [axis.formula for axis in field.axes if axis.formula is not None]
    if len(formulas) < len(field.axes):
        return size, "", ""
    jump = sides_text(tuple(_number(line.jump) for line in formulas))
    return size, jump, sides_text(tuple(_number(line.center) for line in formulas))


def _number(value: int | Fraction) -> str:
    if value == int(value):
        return str(int(value)).replace("-", "−")
    return f"{float(value):.4g}".replace("-", "−")


def headline_figures(audit: Audit) -> Figures:
    """Return a network's key figures: parameters, MACs, memory, receptive field."""
    texts = [
        (
            "parameters",
            f"{audit.parameters:,}",
            f"{audit.trainable:,} trainable, {format_bytes(audit.weights)}",
        ),
        ("multiply-adds", f"{audit.macs:,}", f"per image; {2 * audit.macs:,} FLOPs"),
        (
            "inference memory",
            format_bytes(audit.weights + audit.peak),
            "weights and peak activations, one image",
        ),
    ]
    last, memory = last_feature_map(audit), audit.memory
    if last is not None:
        where = f"at {last.name}; image {audit.shape[1]}×{audit.shape[2]}"
        texts.append(("receptive field", last_field_text(audit), where))
    if memory is not None:
        size = f"at batch size {memory.batch_size}"
        texts.append(("training memory", format_bytes(memory.peak), size))
    figures = [Figure(name, value, detail=d) for name, value, d in texts]
    return Figures(tuple(figures))


def last_field_text(audit: Audit) -> str:
    """Return the receptive field of the last feature map as text."""
    last = last_feature_map(audit)
    return field_texts(last.receptive_field)[0] if last else ""


def last_feature_map(audit: Audit) -> Layer | None:
    """Return the last layer whose output has height and width."""
    for layer in reversed(audit.layers):
        field, output = layer.receptive_field, layer.output
        is_map = output is not None and len(output) == 3
        if is_map and field is not None and max(field.sides) > 1:
            return layer
    return None


def memory_table(audit: Audit) -> Table | None:
    """Return the memory table of a training step; None if it was not measured."""
    memory = audit.memory
    if memory is None:
        return None
    state = f"optimizer state ({memory.optimizer})"
    rows: list[tuple[Cell, ...]] = [
        ("weights", memory.weights, "parameters and buffers"),
        ("gradients", memory.gradients, "one per trainable parameter"),
        (state, memory.state, "allocated in the first step"),
        ("images", memory.images, f"batch of {memory.batch_size}"),
        ("saved activations", memory.saved, "for the backward pass"),
    ]
    columns = (
        Column("Kind", key="what"),
        Column("Memory", "bytes", key="bytes"),
        Column("Note", key="note"),
    )
    totals = ("peak memory", memory.peak, "largest total at one time")
    title = f"Memory of one training step, batch size {memory.batch_size}"
    note = (
        "The peak is not the sum: some tensors are temporary, others exist one by one."
    )
    return Table(
        columns=columns, rows=tuple(rows), totals=totals, title=title, note=note
    )


def caveats(audit: Audit) -> list[Prose]:
    """Return notes on uncounted operations, unused layers and approximate values."""
    blocks = []
    for name, times in audit.uncounted_ops.items():
        count = f"{name} (ran {count_text(times, 'time')})"
        text = f"Not counted: {count}; no MAC rule for this operation."
        blocks.append(Prose(text, "warning"))
    if audit.unused_layers:
        names = ", ".join(layer.name for layer in audit.unused_layers[:6])
        numbers = sum(layer.parameters for layer in audit.unused_layers)
        more = " …" if len(audit.unused_layers) > 6 else ""
        text = (
            f"Not run in evaluation mode: {names}{more} "
            f"({count_text(numbers, 'parameter')})."
        )
        blocks.append(Prose(text))
    fields = [(layer, layer.receptive_field) for layer in audit.layers]
    bounds = [layer for layer, field in fields if field and field.is_bound]
    if bounds:
        text = f"Receptive fields from {bounds[0].name} on are upper bounds (≤): "
        blocks.append(Prose(text + f"{bounds[0].kind} has no exact rule."))
    if audit.memory_error:
        text = f"Training memory is unknown: {audit.memory_error}."
        blocks.append(Prose(text, "warning"))
    return blocks


CONVENTIONS = (
    "Multiply-adds count convolutions and matrix products, without biases; "
    "element-wise operations, pooling and normalization count as zero. 1 MAC = "
    "2 FLOPs. Receptive fields ignore the image border. 1 MB = 10⁶ bytes."
)


def summary_blocks(audit: Audit, depth: int | None = None) -> list[Block]:
    """Return all tables and notes of `striate summary`, in display order."""
    memory = memory_table(audit)
    blocks: list[Block] = [headline_figures(audit), layer_table(audit, depth)]
    if memory is not None:
        blocks.append(memory)
    return [*blocks, *caveats(audit), Prose(CONVENTIONS)]
