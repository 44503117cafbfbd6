"""`summary`: everything a network is, without running it."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from striate.audit.advice import Advice
from striate.audit.all_advice import advise
from striate.audit.comparison import comparison_table
from striate.audit.findings import (
    field_texts,
    layer_table,
    memory_table,
    summary_blocks,
)
from striate.audit.layer import Layer, shape_text
from striate.audit.layer_arithmetic import explain_layer
from striate.audit.network import Audit, ForwardError, audit
from striate.audit.valid_sizes import suggest_size
from striate.core.device import paused_collection
from striate.core.errors import SettingError
from striate.core.files import write_csv, write_text
from striate.core.findings import Block, Cell, Column, Page, Section, Table
from striate.core.spec import Preprocess
from striate.data.decode.preprocess import normalize
from striate.data.load import load_data
from striate.interpret.effective_receptive_field import (
    EffectiveField,
    effective_receptive_fields,
)
from striate.report.records import as_data, keys, record, records
from striate.run.target import SummaryRequest, Target, first_channels, resolve

WIDTH = 100  # of `print(st.summary(...))`


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a network is; print it, or ask it.

    Args:
        name: What the network is called.
        audit: The numbers themselves: `.audit.layers`, `.audit.macs`, …
        depth: How deep the table shows modules; all where None.
        effective: Effective receptive fields, where they were asked for.
    """

    name: str
    audit: Audit
    depth: int | None = None
    effective: Table | None = None

    @property
    def table(self) -> Table:
        """The layers, as a finding."""
        return layer_table(self.audit, self.depth)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What the numbers say against the design, and what a change would give."""
        return advise(self.audit)

    @property
    def blocks(self) -> list[Block]:
        """Everything, as findings."""
        result = summary_blocks(self.audit, self.depth)
        # Before the last one, which says how to read the numbers.
        measured = [self.effective] if self.effective is not None else []
        return [
            *result[:-1],
            *measured,
            *(each.prose for each in self.advice),
            result[-1],
        ]

    @property
    def image(self) -> str:
        """The image's size, in words."""
        return shape_text(self.audit.shape)

    def explain(self, layer: str) -> Table:
        """Return how a layer's numbers come about, as on paper.

        Raises:
            UnknownNameError: No layer has this name; lists the nearest.
        """
        return explain_layer(self.audit, layer)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        table = self.table
        memory = memory_table(self.audit)
        totals = {k: v for k, v in record(table, table.totals or ()).items() if v}
        effective = self.effective
        measured = {"effective": as_data(effective)} if effective else {}
        return {
            "network": self.name,
            "image": self.image,
            "layers": records(table),
            "totals": {
                **totals,
                "trainable_parameters": self.audit.trainable,
                "weight_bytes": self.audit.weights,
                "inference_peak_bytes": self.audit.weights + self.audit.peak,
            },
            "training": as_data(memory) if memory else self.audit.memory_error,
            "advice": [asdict(each) for each in self.advice],
            "not_counted": self.audit.uncounted_ops,
            "not_run": [layer.name for layer in self.audit.unused_layers],
            **measured,
        }

    @paused_collection()
    def __str__(self) -> str:
        from rich.console import Console

        from striate.report.terminal import show

        paper = io.StringIO()
        console = Console(file=paper, width=WIDTH, highlight=False, color_system=None)
        console.print(f"{self.name}  {self.image}\n", markup=False)
        show(self.blocks, console)
        return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())


@paused_collection()
def summary(
    network: nn.Module | str,
    shape: tuple[int, int, int] | None = None,
    *,
    batch_size: int = 32,
    depth: int | None = None,
    real: bool = False,
    image_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    num_classes: int | None = None,
    effective: str | Tensor | None = None,
) -> Summary:
    """Return what a network is: shapes, parameters, multiply-adds, memory, fields.

    Nothing is computed and no weights are made; a module that is handed in stays as it
    is to the bit, its mode, buffers and random state included.

    Args:
        network: Any `nn.Module`, or a name, `file.py:Class`, run folder or sketch.
        shape: (channels, height, width) of one image; for a module.
        batch_size: Images in the training step whose memory is predicted.
        depth: Unite modules below this many dots of nesting.
        real: Compute one image of zeros, where the way depends on values.
        image_size: Image side, or (height, width), where `network` is text.
        in_chans: Likewise channels.
        num_classes: Likewise outputs.
        effective: Measure effective receptive fields on these images: anything
            `load_data` takes, or a batch (N, C, H, W) as the network takes it. This
            needs weights and computes.

    Raises:
        ForwardError: The network refuses the image; `.audit` holds the layers
            that ran.

    Example:
        >>> result = summary("28x28x192 > conv 1x1 16 > conv 5x5 32 same")
        >>> result.audit.macs
        12443648
        >>> summary(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8)).audit.parameters
        56
    """
    for name, number in (("batch_size", batch_size), ("depth", depth)):
        if number is not None and number < 1:
            raise SettingError(f"{name} must be at least 1, got {number}", where=name)
    options = SummaryRequest(
        image_size=image_size, in_chans=in_chans, num_classes=num_classes
    )
    real_weights = real or effective is not None
    target = _target(network, shape, options, real=real_weights)
    try:
        result = audit(target.model, target.shape, batch_size=batch_size, real=real)
    except ForwardError as error:
        if error.data_dependent:
            raise
        raise ForwardError(
            error.what,
            where=error.where or "",
            fix=suggest_size(target.model, target.shape),
            audit=error.audit,
        ) from error
    measured = None if effective is None else _measured(target, result, effective)
    return Summary(name=target.name, audit=result, depth=depth, effective=measured)


def _target(
    network: nn.Module | str,
    shape: tuple[int, int, int] | None,
    options: SummaryRequest,
    *,
    real: bool,
) -> Target:
    if isinstance(network, str):
        return resolve(network, options, real=real)
    shape = shape or (first_channels(network), 224, 224)
    # What a user hands in is what they want to know about, trained or not.
    return Target(name=type(network).__name__, model=network, shape=shape, trained=True)


def _measured(target: Target, result: Audit, effective: str | Tensor) -> Table:
    x = (
        effective_field_images(effective, target.shape, target.preprocess)
        if isinstance(effective, str)
        else effective
    )
    return effective_field_table(target.model, result, x, target.trained)


def summary_page(
    first: Summary, second: Summary | None = None, layer: str | None = None
) -> Page:
    """Return a summary, or two side by side, as a report."""
    sections = []
    if second is not None:
        sections.append(
            Section(title="Side by side", blocks=(compare_summaries(first, second),))
        )
    if layer is not None:
        sections.append(Section(title=layer, blocks=(first.explain(layer),)))
    for each in (first, second):
        if each is not None:
            lead = f"For an image of {each.image}."
            title = "Layers" if second is None else each.name
            section = Section(title=title, lead=lead, blocks=tuple(each.blocks))
            sections.append(section)
    return Page(
        title=first.name if second is None else f"{first.name} against {second.name}",
        subtitle="What the network is, without running it.",
        sections=tuple(sections),
    )


def compare_summaries(first: Summary, second: Summary) -> Table:
    """Return the totals of two networks and their ratio."""
    return comparison_table(first.audit, second.audit, (first.name, second.name))


def save_html(page: Page, path: Path) -> None:
    """Write a report as one offline file."""
    from striate.report.html import render

    write_text(path, render(page))


def save_csv(table: Table, path: Path) -> None:
    """Write a table's rows under its keys."""
    write_csv(path, keys(table), table.rows)


EFFECTIVE_IMAGES = 16  # the fields of more differ by a position at most


EFFECTIVE_COLUMNS = (
    Column(title="Layer", key="layer", kind="code"),
    Column(title="Field", key="receptive_field", kind="code"),
    Column(
        title="Effective",
        key="effective_field",
        kind="code",
        hint="rows × columns that hold 95.45 % of the squared derivative",
    ),
    Column(
        title="Used",
        key="used",
        kind="share",
        hint="effective area over the field's area on the image",
    ),
)


def effective_field_images(
    data: str, shape: tuple[int, int, int], preprocess: Preprocess | None
) -> Tensor:
    """Return some validation images as a network takes them.

    Args:
        data: As for `load_data`.
        shape: (channels, height, width) where the network has no preprocessing.
        preprocess: The network's own, where it has been trained.
    """
    channels, *sides = shape
    loaded = load_data(
        data,
        image_size=(sides[0], sides[1]),
        in_chans=channels,
        preprocess=preprocess,
    )
    return normalize(loaded.subset("val").pixels[:EFFECTIVE_IMAGES], loaded.preprocess)


def effective_field_table(
    model: nn.Module, audit: Audit, x: Tensor, trained: bool
) -> Table:
    """Return field and effective field of every layer whose window looks around.

    Args:
        model: The network, with weights.
        audit: The same network's.
        x: Images, (N, C, H, W).
        trained: Its weights come from training; else the table says so.
    """
    layers = {x.name: x for x in audit.layers if _looks_around(x)}
    result = effective_receptive_fields(model, x, list(layers))
    rows = tuple(_row(layers[name], field, audit) for name, field in result.items())
    note = (
        "The middle unit's squared derivative by each pixel, mean over "
        f"{len(x)} images and their channels (Luo et al. 2016)."
    )
    if not trained:
        note += " The weights are initial ones, not trained."
    return Table(
        columns=EFFECTIVE_COLUMNS,
        rows=rows,
        title="Effective receptive fields, measured",
        note=note,
    )


def _looks_around(layer: Layer) -> bool:
    windows = layer.window
    is_map = layer.output is not None and len(layer.output) == 3
    return is_map and windows is not None and prod(windows.kernel) > 1


def _row(layer: Layer, field: EffectiveField, audit: Audit) -> tuple[Cell, ...]:
    text, _, _ = field_texts(layer.receptive_field)
    axes = layer.receptive_field.axes if layer.receptive_field is not None else ()
    sides = audit.shape[1:]
    area = prod(min(a.size, n) for a, n in zip(axes, sides, strict=True))
    used = field.height * field.width / float(area) if area else None
    return layer.name, text, f"{field.height}×{field.width}", used
