"""An audit as findings: headline figures, the layers, the memory, what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

from striate.audit.layer import Layer, shape_text
from striate.audit.network import Audit
from striate.audit.rf_tracker import Path, Sight
from striate.audit.window_args import brief
from striate.core.findings import Block, Cell, Column, Figure, Figures, Prose, Table
from striate.core.format import format_bytes

Fields = tuple[str, str, str]  # receptive field, jump, center

# Titles are torchinfo's where it has the column; ranks say what a narrow screen drops.
COLUMNS = (
    Column(title="Layer", key="layer", kind="code"),
    Column(title="Type", key="type", rank=2),
    Column(
        title="Kernel Shape",
        key="kernel",
        kind="code",
        rank=3,
        hint="window, /stride, d dilation, g groups",
    ),
    Column(
        title="Output Shape",
        key="output",
        kind="code",
        hint="height×width×channels of one image",
    ),
    Column(title="Param #", key="parameters", kind="integer"),
    Column(
        title="Param %",
        key="parameters_share",
        kind="share",
        rank=7,
        hint="of all parameters",
    ),
    Column(
        title="Mult-Adds",
        key="macs",
        kind="integer",
        hint="multiply-adds of one image; 1 MAC = 2 FLOPs",
    ),
    Column(
        title="Mult-Adds %",
        key="macs_share",
        kind="share",
        rank=5,
        hint="of all multiply-adds",
    ),
    Column(
        title="Memory",
        key="activation_bytes",
        kind="bytes",
        rank=6,
        hint="of one image's output, where it takes memory of its own",
    ),
    Column(
        title="Kept",
        key="saved_bytes",
        kind="bytes",
        rank=8,
        hint="what training keeps of one image for the way back",
    ),
    Column(
        title="Field",
        key="receptive_field",
        kind="code",
        rank=1,
        hint="receptive field: input positions, high×wide, that reach one unit",
    ),
    Column(
        title="Jump",
        key="jump",
        kind="code",
        rank=4,
        hint="input positions between neighboring units",
    ),
    Column(
        title="Center",
        key="center",
        kind="code",
        rank=9,
        hint="where the first unit's field is centerd on the input",
    ),
    Column(title="Trainable", key="trainable", rank=10),
)


def layer_table(audit: Audit, depth: int | None = None, title: str = "") -> Table:
    """Return one row a layer and a row of totals.

    Args:
        audit: The network.
        depth: Show modules down to this many dots of nesting; all where None.
        title: Heads the table.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> found = audit(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8))
        >>> layer_table(found).rows[0][:5]
        ('0', 'Conv2d', '3×3', '6×6×2', 56)
    """
    layers = (*audit.layers, *audit.idle)
    shown = layers if depth is None else collapse(audit, layers, depth)
    known: dict[tuple[Path, bool], Fields] = {}
    rows = tuple(_row(layer, audit, known) for layer in shown)
    totals = _totals(audit, len(audit.layers))
    return Table(columns=COLUMNS, rows=rows, totals=totals, title=title)


def _row(
    layer: Layer, audit: Audit, known: dict[tuple[Path, bool], Fields]
) -> tuple[Cell, ...]:
    field, jump, center = _known_texts(layer.sight, known)
    windows = layer.windows
    return (
        layer.name,
        layer.kind,
        "" if windows is None else str(windows),
        "not run" if layer.output is None else shape_text(layer.output),
        layer.parameters or None,
        _share(layer.parameters, audit.parameters),
        layer.macs or None,
        _share(layer.macs, audit.macs),
        layer.activation or None,
        layer.saved or None,
        field,
        jump,
        center,
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
        "type": f"{count} layers",
        "parameters": audit.parameters,
        "macs": audit.macs,
        "activation_bytes": sum(layer.activation for layer in audit.layers),
        "saved_bytes": sum(layer.saved or 0 for layer in audit.layers) or None,
        "trainable": _trainable(audit.parameters, audit.trainable),
    }
    return tuple(cells.get(column.key) for column in COLUMNS)


def collapse(audit: Audit, layers: Sequence[Layer], depth: int) -> list[Layer]:
    """Unite neighboring layers that stand in the same module at a depth."""
    united = []
    for name, group in groupby(layers, key=lambda x: _prefix(x.name, depth)):
        members = list(group)
        if len(members) == 1 and members[0].name == name:
            united.append(members[0])
            continue
        end = audit.ends.get(name)
        last = members[-1]
        united.append(
            replace(
                last,
                name=name,
                kind=type(end.module).__name__ if end else last.kind,
                output=end.output[1:] if end and end.output else last.output,
                sight=end.sight if end else last.sight,
                parameters=sum(x.parameters for x in members),
                trainable=sum(x.trainable for x in members),
                operations=tuple(o for x in members for o in x.operations),
                activation=sum(x.activation for x in members),
                saved=sum(x.saved or 0 for x in members),
            )
        )
    return united


def _prefix(name: str, depth: int) -> str:
    path = name.partition("(")[0].split(".")
    return ".".join(path[:depth]) if len(path) > depth else name


def _known_texts(sight: Sight | None, known: dict[tuple[Path, bool], Fields]) -> Fields:
    """Write what a layer's units see once for all layers that see by the same axes."""
    if sight is None:
        return field_texts(None)
    key = (sight.axes, sight.loose)
    if key not in known:
        known[key] = field_texts(sight)
    return known[key]


def field_texts(sight: Sight | None) -> Fields:
    """Return receptive field, jump and center as text; `≤` before a bound.

    Example:
        >>> from striate.audit.rf_tracker import of_images
        >>> field_texts(of_images((1, 3, 8, 8)))
        ('1×1', '1', '0')
    """
    if sight is None:
        return "", "", ""
    bound = "≤" if sight.loose else ""
    field = bound + "×".join(_number(axis.size) for axis in sight.axes)
    lines = [axis.line for axis in sight.axes]
    kept = [line for line in lines if line is not None]
    if len(kept) < len(lines):
        return field, "", ""
    jump = brief(tuple(_number(line.jump) for line in kept))
    return field, jump, brief(tuple(_number(line.center) for line in kept))


def _number(value: int | Fraction) -> str:
    if value == int(value):
        return str(int(value)).replace("-", "−")
    return f"{float(value):.4g}".replace("-", "−")


def figures(audit: Audit) -> Figures:
    """Return the headline numbers of a network."""
    found = [
        Figure(
            label="parameters",
            value=f"{audit.parameters:,}",
            detail=f"{audit.trainable:,} trainable, {format_bytes(audit.weights)}",
        ),
        Figure(
            label="multiply-adds",
            value=f"{audit.macs:,}",
            detail=f"an image; {2 * audit.macs:,} FLOPs",
        ),
        Figure(
            label="inference memory",
            value=format_bytes(audit.weights + audit.peak),
            detail="weights and one image's activations at their most",
        ),
    ]
    last = last_map(audit)
    if last is not None:
        found.append(
            Figure(
                label="receptive field",
                value=last_field(audit),
                detail=f"at {last.name}, of an image {_sides(audit)}",
            )
        )
    if audit.memory is not None:
        found.append(
            Figure(
                label="training memory",
                value=format_bytes(audit.memory.peak),
                detail=f"at batch size {audit.memory.batch_size}",
            )
        )
    return Figures(figures=tuple(found))


def _sides(audit: Audit) -> str:
    return f"{audit.shape[1]}×{audit.shape[2]}"


def last_field(audit: Audit) -> str:
    """Return the receptive field of the last map that still has places."""
    last = last_map(audit)
    return field_texts(last.sight)[0] if last else ""


def last_map(audit: Audit) -> Layer | None:
    """Return the last layer whose units still have places on the image."""
    kept = (
        layer
        for layer in reversed(audit.layers)
        if layer.sight is not None
        and layer.output is not None
        and len(layer.output) == 3
        and max(layer.sight.sides) > 1
    )
    return next(kept, None)


def memory_table(audit: Audit) -> Table | None:
    """Return where a training step's memory goes; None where it is not known."""
    memory = audit.memory
    if memory is None:
        return None
    rows: list[tuple[Cell, ...]] = [
        ("weights", memory.weights, "parameters and buffers"),
        ("gradients", memory.gradients, "one for each that learns"),
        (f"state of {memory.optimizer}", memory.state, "from the second step on"),
        ("images", memory.images, f"a batch of {memory.batch_size}"),
        ("kept activations", memory.saved, "for the way back"),
    ]
    columns = (
        Column(title="training", key="what"),
        Column(title="memory", key="bytes", kind="bytes"),
        Column(title="", key="note"),
    )
    totals = ("peak of a step", memory.peak, "the most that lives at once")
    title = f"Memory of a training step, batch size {memory.batch_size}"
    note = "The parts do not live all at once, and others come and go between them."
    return Table(
        columns=columns, rows=tuple(rows), totals=totals, title=title, note=note
    )


def remarks(audit: Audit) -> list[Prose]:
    """Return what was not counted, did not run or is not known, and why."""
    found = []
    for name, times in audit.uncounted.items():
        text = f"Not counted: {name} (ran {times} times) has no rule for multiply-adds."
        found.append(Prose(text=text, tone="warning"))
    if audit.idle:
        names = ", ".join(layer.name for layer in audit.idle[:6])
        numbers = sum(layer.parameters for layer in audit.idle)
        more = " …" if len(audit.idle) > 6 else ""
        text = f"Not run in evaluation: {names}{more}, {numbers:,} parameters."
        found.append(Prose(text=text))
    loose = next((x for x in audit.layers if x.sight and x.sight.loose), None)
    if loose is not None:
        text = f"Receptive fields from {loose.name} on are bounds (≤): "
        found.append(Prose(text=text + f"{loose.kind} is not followed exactly."))
    if audit.untrained:
        text = f"No training memory: {audit.untrained}."
        found.append(Prose(text=text, tone="warning"))
    return found


CONVENTIONS = (
    "Multiply-adds are those of convolutions and matrix products, biases not "
    "counted; 1 MAC = 2 FLOPs. Element-wise arithmetic, pooling and normalization "
    "count as none. "
    "Receptive fields are those of an image without border. 1 MB is 10⁶ bytes."
)


def blocks(audit: Audit, depth: int | None = None) -> list[Block]:
    """Return everything a summary says, in order."""
    memory = memory_table(audit)
    found: list[Block] = [figures(audit), layer_table(audit, depth)]
    if memory is not None:
        found.append(memory)
    return [*found, *remarks(audit), Prose(text=CONVENTIONS)]
