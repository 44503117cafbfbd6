"""`st.summary` and `striate summary`: layers, parameters, MACs, memory, advice."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypedDict, Unpack

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
from striate.audit.sketch_parser import is_sketch
from striate.audit.valid_sizes import suggest_size
from striate.core.device import paused_gc
from striate.core.errors import SettingError
from striate.core.files import write_csv, write_text
from striate.core.findings import Block, Cell, Column, Page, Section, Table
from striate.core.format import count_text
from striate.core.hooks import unwrap_compiled
from striate.core.preprocess_config import Preprocess
from striate.data.decode.preprocess import normalize
from striate.data.load import load_data
from striate.data.load_options import LoadOptions
from striate.interpret.effective_receptive_field import (
    EffectiveField,
    effective_receptive_fields,
)
from striate.report.table_records import column_keys, records, row_dict, table_dict
from striate.run.build_network import short_name
from striate.run.layout import existing_run
from striate.run.python_network import is_python_network
from striate.run.resolve_model import (
    SummaryRequest,
    Target,
    first_channels,
    resolve_target,
)
from striate.run.run import Run
from striate.workflows.summary.diagram import inner_diagrams, network_diagram
from striate.workflows.summary.write_code import network_code

WIDTH = 100  # columns of `print(st.summary(...))`


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of a network, as attributes and as a printable report.

    Args:
        name: Name of the network.
        audit: All results, such as `.audit.layers` and `.audit.macs`.
        depth: Maximum module depth in the table; None for all levels.
        effective: Table of effective receptive fields, if measured.
    """

    name: str
    audit: Audit
    depth: int | None = None
    effective: Table | None = None

    @property
    def table(self) -> Table:
        """Return the table of layers."""
        return layer_table(self.audit, self.depth)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """Return advice on the architecture, with the effects of proposed changes."""
        return advise(self.audit)

    @property
    def blocks(self) -> list[Block]:
        """Return all blocks of the report."""
        result = summary_blocks(self.audit, self.depth)
        # Before the last block, which explains the conventions.
        measured = [self.effective] if self.effective is not None else []
        advice = [each.prose for each in self.advice]
        return [*result[:-1], *measured, *advice, result[-1]]

    @property
    def image(self) -> str:
        """Return the image size as text."""
        return shape_text(self.audit.shape)

    def explain(self, layer: str) -> Table:
        """Explain how output size, parameters and MACs of a layer are computed.

        Raises:
            UnknownNameError: No layer has this name; the message lists similar names.
        """
        return explain_layer(self.audit, layer)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON-serializable dict."""
        table = self.table
        memory = memory_table(self.audit)
        totals = {k: v for k, v in row_dict(table, table.totals or ()).items() if v}
        effective = self.effective
        measured = {"effective": table_dict(effective)} if effective else {}
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
            "training": table_dict(memory) if memory else self.audit.memory_error,
            "advice": [asdict(each) for each in self.advice],
            "not_counted": self.audit.uncounted_ops,
            "not_run": [layer.name for layer in self.audit.unused_layers],
            **measured,
        }

    @paused_gc()
    def __str__(self) -> str:
        from striate.report.terminal import blocks_text

        text = blocks_text(self.blocks, WIDTH)
        return f"{self.name}  {self.image}\n\n{text}"

    def _repr_html_(self) -> str:
        from striate.report.html_card import render_card

        lead = f"Image size {self.image}."
        return render_card(self.name, [Section("", tuple(self.blocks), lead=lead)])


class NetworkRequest(TypedDict, total=False):
    """Image size, channels and classes of a network that is given by name."""

    image_size: int | tuple[int, int] | None
    in_chans: int | None
    num_classes: int | None


@paused_gc()
def summary(
    network: nn.Module | str,
    shape: Sequence[int] | None = None,
    *,
    batch_size: int = 32,
    depth: int | None = None,
    real: bool = False,
    effective: str | Tensor | None = None,
    trust: bool = False,
    **request: Unpack[NetworkRequest],
) -> Summary:
    """Return shapes, parameters, MACs, memory and receptive fields of a network.

    No image is computed and no weights are allocated. A module is not modified: its
    mode, buffers and the random state stay the same.

    Args:
        network: Any `nn.Module`, or a name, `file.py:Class`, run folder or sketch.
        shape: (channels, height, width) of one image, for a module; a batch size
            before the channels, as torchinfo has it, is left out.
        batch_size: Images per training step, for the memory estimate.
        depth: Show modules only down to this depth.
        real: Run a forward pass with an image of zeros, for data-dependent models.
        effective: Images on which to measure effective receptive fields: anything
            `load_data` accepts, or a preprocessed batch (N, C, H, W). This runs the
            network with its weights.
        trust: Execute the network code of a run folder from another machine.
        request: `image_size` (a side, or height and width), `in_chans` and
            `num_classes`, if `network` is a string.

    Raises:
        ForwardError: The network rejects the image; `.audit` has the layers that
            ran.

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
    if isinstance(network, str):
        real_weights = real or effective is not None
        sizes = SummaryRequest(**request)
        target = resolve_target(network, sizes, real=real_weights, trust=trust)
    else:  # a module given by the user is taken as trained
        network = unwrap_compiled(network)
        shape = image_shape(shape) if shape else (first_channels(network), 224, 224)
        name = type(network).__name__
        target = Target(name=name, model=network, shape=shape, trained=True)
    try:
        result = audit(target.model, target.shape, batch_size=batch_size, real=real)
    except ForwardError as error:
        if error.data_dependent:
            raise
        fix, where = suggest_size(target.model, target.shape), error.where or ""
        raise ForwardError(
            error.what, where=where, fix=fix, audit=error.audit
        ) from error
    measured = None
    if effective is not None:
        if isinstance(effective, str):
            effective = validation_images(effective, target.shape, target.preprocess)
        measured = effective_field_table(
            target.model, result, effective, target.trained
        )
    return Summary(name=target.name, audit=result, depth=depth, effective=measured)


def standalone_code(network: str, request: SummaryRequest) -> str:
    """Return a network of `striate models`, a sketch or a run as code for torch alone.

    The weights of the network load in the written class, and give the same output.

    Raises:
        SettingError: The network is a Python file, or has layers of another library.
    """
    name = network
    if run := existing_run(network):
        name = Run(run).recipe.model
    if is_python_network(name):
        what = "the network is a Python file, which is standalone code already"
        raise SettingError(what, where=name, fix="use this file without --code")
    target = resolve_target(network, request, real=True)
    text = name if is_sketch(name) else ""
    return network_code(target.model, short_name(name), target.shape, text)


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width) of the shape of an image or of a batch.

    Raises:
        SettingError: The shape does not have 3 or 4 positive integers.

    Example:
        >>> image_shape((1, 3, 224, 224))
        (3, 224, 224)
    """
    try:
        sides = [operator.index(side) for side in shape]
    except TypeError:
        sides = []
    if len(sides) not in (3, 4) or min(sides) < 1:
        what = f"shape must be (channels, height, width), got {shape!r}"
        raise SettingError(what, where="shape", fix="for example shape=(3, 224, 224)")
    channels, height, width = sides[-3:]
    return channels, height, width


def summary_page(
    first: Summary, second: Summary | None = None, layer: str | None = None
) -> Page:
    """Return the report page of one network summary, or of two side by side."""
    sections = []
    if second is not None:
        blocks = (compare_summaries(first, second),)
        sections.append(Section("Side by side", blocks))
    if layer is not None:
        sections.append(Section(layer, (first.explain(layer),)))
    for number, each in enumerate((first, second), 1):
        if each is not None:
            sections += _network_sections(each, number, alone=second is None)
    return Page(
        first.name if second is None else f"{first.name} against {second.name}",
        subtitle="Layers, parameters, MACs, memory and receptive fields.",
        sections=tuple(sections),
    )


def _network_sections(summary: Summary, number: int, *, alone: bool) -> list[Section]:
    """Return the sections of one network: tables, and a diagram with links to them."""
    table = summary.table
    ids = tuple(f"row-{number}-{i}" for i in range(1, len(table.rows) + 1))
    blocks = [
        replace(block, row_ids=ids) if block == table else block
        for block in summary.blocks
    ]
    rows = dict(zip((str(row[0]) for row in table.rows), ids, strict=True))
    diagrams = (
        network_diagram(summary.audit, rows),
        *inner_diagrams(summary.audit, rows),
    )
    titles = ("Layers", "Diagram")
    if not alone:
        titles = (summary.name, f"Diagram of {summary.name}")
    return [
        Section(titles[0], tuple(blocks), lead=f"Image size {summary.image}."),
        Section(titles[1], diagrams),
    ]


def compare_summaries(first: Summary, second: Summary) -> Table:
    """Return a table of the totals of two networks, with their ratios."""
    return comparison_table(first.audit, second.audit, (first.name, second.name))


def save_html(page: Page, path: Path) -> None:
    """Write a report page as a single HTML file that works offline."""
    from striate.report.html import render_page

    write_text(path, render_page(page))


def save_csv(table: Table, path: Path) -> None:
    """Write a table as CSV; the column keys are the header."""
    write_csv(path, column_keys(table), table.rows)


EFFECTIVE_IMAGES = 16  # more images change the fields by one pixel at most


EFFECTIVE_COLUMNS = (
    Column("Layer", "code"),
    Column("Rec. Field", "code", key="receptive_field"),
    Column(
        "Effective Field",
        "code",
        hint="rows × columns with 95.45 % of the squared gradient",
    ),
    Column(
        "Share",
        "share",
        key="used",
        hint="area of the effective field / area of the receptive field on the image",
    ),
)


def validation_images(
    data: str, shape: tuple[int, int, int], preprocess: Preprocess | None
) -> Tensor:
    """Return preprocessed validation images, to measure effective receptive fields."""
    channels, height, width = shape
    loaded = load_data(
        data,
        image_size=(height, width),
        in_chans=channels,
        options=LoadOptions(preprocess=preprocess),
    )
    return normalize(loaded.subset("val").pixels[:EFFECTIVE_IMAGES], loaded.preprocess)


def effective_field_table(
    model: nn.Module, audit: Audit, x: Tensor, trained: bool | None
) -> Table:
    """Return receptive and effective fields of layers with a kernel larger than 1×1."""
    maps = [x for x in audit.layers if x.output is not None and len(x.output) == 3]
    layers = {x.name: x for x in maps if x.window and prod(x.window.kernel) > 1}
    result = effective_receptive_fields(model, x, list(layers))
    rows = tuple(_row(layers[name], field, audit) for name, field in result.items())
    note = (
        "Squared gradient of the center unit by each pixel, mean over "
        f"{count_text(len(x), 'image')} and their channels (Luo et al. 2016)."
    )
    if trained is None:
        note += " The weights are random, unless the code of the file loads others."
    elif not trained:
        note += " The weights are random, not trained."
    title = "Effective receptive fields"
    return Table(columns=EFFECTIVE_COLUMNS, rows=rows, title=title, note=note)


def _row(layer: Layer, field: EffectiveField, audit: Audit) -> tuple[Cell, ...]:
    text, _, _ = field_texts(layer.receptive_field)
    axes = layer.receptive_field.axes if layer.receptive_field is not None else ()
    sides = audit.shape[1:]
    area = prod(min(a.size, n) for a, n in zip(axes, sides, strict=True))
    used = field.height * field.width / float(area) if area else None
    return layer.name, text, f"{field.height}×{field.width}", used
