"""The layers of an explanation: filters, maps, channels, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from striate.audit.layer import shape_text
from striate.core.findings import Cell, Column, Section, Table
from striate.interpret.layer_choice import calls_of
from striate.interpret.layer_statistics import activation_statistics
from striate.report.records import records
from striate.workflows.explain.channels import LookedFor, channels_section
from striate.workflows.explain.filters_and_maps import flow_section
from striate.workflows.explain.images import Shown
from striate.workflows.explain.subject import Subject


def inner_maps(subject: Subject, one: Shown) -> list[str]:
    """Return the calls that make maps, as they run, without containers of others."""
    shapes = calls_of(subject.model, one.x)
    maps = [c for c, s in shapes.items() if len(s) == 3 and s[1] * s[2] > 1]
    return [c for c in maps if not any(o.startswith(f"{c}.") for o in maps)]


def layer_sections(
    subject: Subject, one: Shown, calls: Sequence[str], looked: LookedFor | None
) -> tuple[list[Section], dict[str, Any]]:
    """Return filters and maps from low to high, patches, and the table of layers."""
    flow = flow_section(subject.model, one.x, calls)
    sections = [flow]
    data: dict[str, Any] = {
        "filters": [
            row for b in flow.blocks if isinstance(b, Table) for row in records(b)
        ]
    }
    if looked is not None:
        section, data["selectivity"] = channels_section(looked)
        sections.append(section)
    section, data["layers"] = _table(subject, one)
    sections.append(section)
    return sections, data


def _table(subject: Subject, one: Shown) -> tuple[Section, list[dict[str, Cell]]]:
    found = activation_statistics(subject.model, one.x)
    columns = (
        Column(title="Layer", kind="code", key="layer"),
        Column(title="Kind", key="kind", rank=2),
        Column(title="Output", kind="code", key="output", rank=1),
        Column(title="Mean", kind="number", key="mean"),
        Column(title="Deviation", kind="number", key="deviation"),
        Column(title="Most", kind="number", key="most", rank=2),
        Column(title="Zero", kind="share", key="zero", hint="share of exact zeros"),
        Column(
            title="Silent",
            kind="integer",
            key="silent",
            hint="channels that are zero everywhere in this image",
        ),
    )
    rows = tuple(
        (
            each.name,
            each.kind,
            shape_text(each.shape),
            each.mean,
            each.deviation,
            each.high,
            each.zero,
            each.silent,
        )
        for each in found
    )
    lead = "What every layer gave out for the first image."
    table = Table(columns=columns, rows=rows)
    return Section(title="Layers", lead=lead, blocks=(table,)), records(table)
