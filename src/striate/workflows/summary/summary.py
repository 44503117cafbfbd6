"""`summary`: everything a network is, without running it."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from striate.audit.advice import Advice
from striate.audit.advise import advise
from striate.audit.comparison import comparison
from striate.audit.layer import shape_text
from striate.audit.layer_arithmetic import explain
from striate.audit.network import Audit, UnfinishedError, audit
from striate.audit.table import blocks, layer_table, memory_table
from striate.audit.valid_sizes import way_out
from striate.core.device import paused_gc
from striate.core.errors import SettingError
from striate.core.files import write_csv, write_text
from striate.core.findings import Block, Page, Section, Table
from striate.report.records import as_data, keys, record, records
from striate.run.target import SummaryRequest, Target, first_channels, resolve
from striate.workflows.summary.effective_fields import effective_table, images

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
        found = blocks(self.audit, self.depth)
        # Before the last one, which says how to read the numbers.
        measured = [self.effective] if self.effective is not None else []
        return [
            *found[:-1],
            *measured,
            *(each.prose for each in self.advice),
            found[-1],
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
        return explain(self.audit, layer)

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
            "training": as_data(memory) if memory else self.audit.untrained,
            "advice": [asdict(each) for each in self.advice],
            "not_counted": self.audit.uncounted,
            "not_run": [layer.name for layer in self.audit.idle],
            **measured,
        }

    @paused_gc()
    def __str__(self) -> str:
        from rich.console import Console

        from striate.report.terminal import show

        paper = io.StringIO()
        console = Console(file=paper, width=WIDTH, highlight=False, color_system=None)
        console.print(f"{self.name}  {self.image}\n", markup=False)
        show(self.blocks, console)
        return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())


@paused_gc()
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
        UnfinishedError: The network refuses the image; `.audit` holds the layers
            that ran.

    Example:
        >>> found = summary("28x28x192 > conv 1x1 16 > conv 5x5 32 same")
        >>> found.audit.macs
        12443648
        >>> summary(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8)).audit.parameters
        56
    """
    for name, number in (("batch_size", batch_size), ("depth", depth)):
        if number is not None and number < 1:
            raise SettingError(f"{name} must be at least 1, got {number}", where=name)
    wanted = SummaryRequest(
        image_size=image_size, in_chans=in_chans, num_classes=num_classes
    )
    real_weights = real or effective is not None
    target = _target(network, shape, wanted, real=real_weights)
    try:
        found = audit(target.model, target.shape, batch_size=batch_size, real=real)
    except UnfinishedError as error:
        if error.looks:
            raise
        raise UnfinishedError(
            error.what,
            where=error.where or "",
            fix=way_out(target.model, target.shape),
            audit=error.audit,
        ) from error
    measured = None if effective is None else _measured(target, found, effective)
    return Summary(name=target.name, audit=found, depth=depth, effective=measured)


def _target(
    network: nn.Module | str,
    shape: tuple[int, int, int] | None,
    wanted: SummaryRequest,
    *,
    real: bool,
) -> Target:
    if isinstance(network, str):
        return resolve(network, wanted, real=real)
    shape = shape or (first_channels(network), 224, 224)
    # What a user hands in is what they want to know about, trained or not.
    return Target(name=type(network).__name__, model=network, shape=shape, trained=True)


def _measured(target: Target, found: Audit, effective: str | Tensor) -> Table:
    x = (
        images(effective, target.shape, target.preprocess)
        if isinstance(effective, str)
        else effective
    )
    return effective_table(target.model, found, x, target.trained)


def page_of(
    first: Summary, second: Summary | None = None, layer: str | None = None
) -> Page:
    """Return a summary, or two side by side, as a report."""
    sections = []
    if second is not None:
        sections.append(
            Section(title="Side by side", blocks=(compared(first, second),))
        )
    if layer is not None:
        sections.append(Section(title=layer, blocks=(first.explain(layer),)))
    for one in (first, second):
        if one is not None:
            lead = f"For an image of {one.image}."
            title = "Layers" if second is None else one.name
            section = Section(title=title, lead=lead, blocks=tuple(one.blocks))
            sections.append(section)
    return Page(
        title=first.name if second is None else f"{first.name} against {second.name}",
        subtitle="What the network is, without running it.",
        sections=tuple(sections),
    )


def compared(first: Summary, second: Summary) -> Table:
    """Return the totals of two networks and their ratio."""
    return comparison(first.audit, second.audit, (first.name, second.name))


def save_html(page: Page, path: Path) -> None:
    """Write a report as one offline file."""
    from striate.report.html import render

    write_text(path, render(page))


def save_csv(table: Table, path: Path) -> None:
    """Write a table's rows under its keys."""
    write_csv(path, keys(table), table.rows)
