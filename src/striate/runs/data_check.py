"""What `data check` shows: its findings in words, with their pictures on a page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import write_csv, write_text
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Images,
    Page,
    Picture,
    Prose,
    Section,
    Table,
)
from striate.data.check import Checked
from striate.data.duplicates import linked_groups
from striate.data.finding import Finding, Group
from striate.data.sources.source import PARTS, Skipped
from striate.data.survey import file_of
from striate.report.html import render
from striate.report.words import counted
from striate.runs.data_pictures import previews

GROUPS_SHOWN = 36  # of a finding on the page; JSON has all
MEMBERS_SHOWN = 8
FILES_SHOWN = 100
CLASSES_SHOWN = 40
EXAMPLES = 6
NAMED = 3  # files or groups of a finding in a terminal

TITLES = {
    "quarantined": "Unusable files",
    "one-class": "One class",
    "empty-class": "Empty classes",
    "tiny-class": "Tiny classes",
    "imbalance": "Imbalance",
    "unseen-class": "Classes unseen in training",
    "leak": "Leaks",
    "two-labels": "Two labels",
    "near-two-labels": "Two labels, nearly",
    "equal": "Exact copies",
    "near": "Near-duplicates",
    "blank": "Blank",
    "dark": "Dark",
    "pale": "Pale",
    "blurred": "Blurred",
    "size": "Unusual size",
    "colour": "Unusual colour",
    "exif": "EXIF",
    "rule": "By rule",
    "unsearched": "Not searched",
    "layout": "Layout",
    "changed": "Changed",
    "gone": "Gone",
    "new": "New",
}


def page_of(found: Checked) -> Page:
    """Return the page: a summary, each finding with its pictures, the classes."""
    shown = _examples(found)
    for finding in found.findings:
        for group in finding.groups[:GROUPS_SHOWN]:
            shown |= set(group.members[:MEMBERS_SHOWN])
    pictures = previews(found, sorted(shown))
    findings = [_section(found, finding, pictures) for finding in found.findings]
    sections = [_summary(found), *findings, _classes(found, pictures), *_files(found)]
    return Page(
        title=f"{found.source.name} · data check",
        subtitle=_account(found),
        sections=tuple(sections),
        footer="Nothing was written but this page.",
    )


def save_page(found: Checked, path: Path) -> None:
    """Write the page as one offline file."""
    write_text(path, render(page_of(found)))


def _account(found: Checked) -> str:
    return (
        f"{counted(found.seen, 'file')} seen = {len(found.items):,} used + "
        f"{len(found.quarantined):,} quarantined + {len(found.ignored):,} ignored."
    )


def _summary(found: Checked) -> Section:
    open_ = [finding for finding in found.findings if finding.tone != "note"]
    figures = Figures(
        figures=(
            Figure(label="used", value=f"{len(found.items):,}", detail=_parts(found)),
            Figure(label="quarantined", value=f"{len(found.quarantined):,}"),
            Figure(label="ignored", value=f"{len(found.ignored):,}"),
            Figure(label="classes", value=f"{len(found.classes):,}"),
            Figure(label="findings", value=f"{len(open_):,}"),
        )
    )
    blocks: list[Block] = [figures, *brief(found)]
    return Section(title="Result", lead=_kinds(found), blocks=tuple(blocks))


def _kinds(found: Checked) -> str:
    """Say of what sizes, colours and formats the pictures are."""
    items = found.items
    sizes = Counter(f"{i.facts.height}×{i.facts.width}" for i in items)
    formats = Counter(i.nature.format for i in items if i.nature)
    coloured = sum(item.facts.coloured for item in items)
    told = [_most(sizes, "sizes")]
    if items:
        told.append("all grey" if not coloured else f"{coloured:,} in colour")
    told += [_most(formats, "formats")] if formats else []
    return "; ".join(part for part in told if part) + "."


def _most(counts: Counter[str], several: str) -> str:
    """Name the only value, or the commonest of several.

    Example:
        >>> _most(Counter({"PNG": 9, "JPEG": 1}), "formats")
        '2 formats, PNG (9), JPEG (1)'
    """
    first = counts.most_common(3)
    if len(counts) < 2:
        return first[0][0] if first else ""
    named = ", ".join(f"{name} ({n:,})" for name, n in first)
    return f"{len(counts):,} {several}, {named}"


def _parts(found: Checked) -> str:
    totals = dict.fromkeys(PARTS, 0)
    for _, by_part in found.classes:
        for part in by_part.keys() & totals.keys():
            totals[part] += by_part[part]
    return " · ".join(f"{part} {n:,}" for part, n in totals.items() if n)


def brief(found: Checked) -> list[Block]:
    """Return the findings in one sentence each."""
    good = [Prose(text="Nothing to mend.", tone="good")] if found.good else []
    if not found.findings:
        return [*good]
    words = {"bad": "problem", "warning": "warning", "note": "to know"}
    rows = tuple((words[f.tone], TITLES[f.kind], f.what) for f in found.findings)
    columns = tuple(Column(title=title) for title in ("", "finding", "what"))
    return [*good, Table(columns=columns, rows=rows)]


def _tone(finding: Finding) -> str:
    return "plain" if finding.tone == "note" else finding.tone


def told(found: Checked) -> list[Block]:
    """Return the findings for a terminal: what, why, what to do, the first files."""
    if not found.findings:
        return brief(found)
    blocks: list[Block] = []
    for finding in found.findings:
        lines = [finding.what, *_names(found, finding)]
        if finding.why:
            lines.append(f"  why: {finding.why}")
        if finding.fix:
            lines.append(f"  do:  {finding.fix}")
        blocks.append(Prose(text="\n".join(lines), tone=_tone(finding)))
    return blocks


def _names(found: Checked, finding: Finding) -> list[str]:
    """Return the first groups' or files' names, a line each."""
    groups = [_line(found, group) for group in finding.groups[:NAMED]]
    lines = groups or [_skip_line(skip) for skip in finding.files[:NAMED]]
    rest = max(len(finding.groups), len(finding.files)) - len(lines)
    if rest > 0:
        lines.append(f"  … and {rest:,} more")
    return lines


def _line(found: Checked, group: Group) -> str:
    paths = [found.items[i].record.path for i in group.members[:NAMED]]
    more = len(group.members) - len(paths)
    names = " = ".join(paths) + (f" = {more:,} more" if more else "")
    return f"  {names}" + (f"  ({group.note})" if group.note else "")


def _skip_line(skip: Skipped) -> str:
    detail = f" ({skip.detail})" if skip.detail else ""
    return f"  {skip.path}: {skip.reason}{detail}"


def _section(
    found: Checked, finding: Finding, pictures: Mapping[int, Picture]
) -> Section:
    said = "\n\n".join(part for part in (finding.why, _advice(finding)) if part)
    blocks: list[Block] = [Prose(text=said, tone=_tone(finding))] if said else []
    blocks += _galleries(found, finding, pictures)
    if finding.files:
        blocks.append(skipped_table(finding.files))
    return Section(
        title=TITLES[finding.kind], lead=f"{finding.what}.", blocks=tuple(blocks)
    )


def _advice(finding: Finding) -> str:
    return f"What to do: {finding.fix}." if finding.fix else ""


def _galleries(
    found: Checked, finding: Finding, pictures: Mapping[int, Picture]
) -> list[Block]:
    """Return single pictures side by side, and each group of several by itself."""
    groups = finding.groups[:GROUPS_SHOWN]
    rest = len(finding.groups) - len(groups)
    note = f"{rest:,} more stand in --json." if rest else ""
    if all(len(group.members) == 1 for group in groups):
        tiles = [_tile(found, g.members[0], pictures, g.note) for g in groups]
        held = tuple(tile for tile in tiles if tile)
        return [Images(pictures=held, scale=_scale(held), note=note)] if held else []
    blocks: list[Block] = []
    for group in groups:
        members = group.members[:MEMBERS_SHOWN]
        held = tuple(t for i in members if (t := _tile(found, i, pictures, "")))
        more = len(group.members) - len(members)
        words = f"{more:,} more" if more else ""
        blocks.append(
            Images(pictures=held, title=group.note, scale=_scale(held), note=words)
        )
    if note:
        blocks.append(Prose(text=note))
    return blocks


def _tile(
    found: Checked, position: int, pictures: Mapping[int, Picture], note: str
) -> Picture | None:
    held = pictures.get(position)
    if held is None:
        return None
    record = found.items[position].record
    words = [record.label, *([record.part] if record.part else [])]
    detail = " · ".join([*words, *([note] if note else [])])
    return Picture(
        png=held.png,
        width=held.width,
        height=held.height,
        caption=record.path,
        detail=detail,
    )


def _scale(pictures: Sequence[Picture]) -> int:
    side = max((max(p.width, p.height) for p in pictures), default=96)
    return max(1, 96 // side)


def _examples(found: Checked) -> set[int]:
    """Return a few positions of every class, spread over it."""
    return {i for places in _spread(found).values() for i in places}


def _spread(found: Checked) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for position, item in enumerate(found.items):
        places.setdefault(item.record.label, []).append(position)
    spread = {}
    for name, _ in found.classes[:CLASSES_SHOWN]:
        mine = places.get(name, [])
        step = max(1, len(mine) // EXAMPLES)
        spread[name] = mine[::step][:EXAMPLES]
    return spread


def _classes(found: Checked, pictures: Mapping[int, Picture]) -> Section:
    blocks: list[Block] = [class_table(found)]
    for name, places in _spread(found).items():
        held = tuple(pictures[i] for i in places if i in pictures)
        if held:
            blocks.append(Images(pictures=held, title=name, scale=_scale(held)))
    return Section(title="Classes", blocks=tuple(blocks))


def class_table(found: Checked) -> Table:
    """Return each class with its pictures, by part where parts are given."""
    parts = [p for p in PARTS if any(p in by_part for _, by_part in found.classes)]
    total = len(found.items) or 1
    columns = (
        Column(title="class"),
        *(Column(title=part, kind="integer") for part in parts),
        Column(title="pictures", kind="integer"),
        Column(title="share", kind="share"),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, by_part in found.classes:
        count = sum(by_part.values())
        split = [by_part.get(part, 0) for part in parts]
        rows.append((name, *split, count, count / total))
    return Table(columns=columns, rows=tuple(rows))


def _files(found: Checked) -> list[Section]:
    if not found.ignored:
        return []
    lead = f"{counted(len(found.ignored), 'file')} passed over by rule."
    table = skipped_table(found.ignored)
    return [Section(title="Ignored", lead=lead, blocks=(table,))]


def skipped_table(skips: Sequence[Skipped]) -> Table:
    """Return files that are not used, with the reason."""
    shown = skips[:FILES_SHOWN]
    rest = len(skips) - len(shown)
    return Table(
        columns=(Column(title="path"), Column(title="reason"), Column(title="detail")),
        rows=tuple((skip.path, skip.reason, skip.detail) for skip in shown),
        note=f"{rest:,} more stand in --json." if rest else "",
    )


def as_dict(found: Checked) -> dict[str, Any]:
    """Return everything as JSON values, every file included."""
    return {
        "data": found.source.name,
        "seen": found.seen,
        "used": len(found.items),
        "quarantined": len(found.quarantined),
        "ignored": len(found.ignored),
        "classes": dict(found.classes),
        "unsearched_for_near_duplicates": found.unsearched,
        "findings": [_finding_dict(found, finding) for finding in found.findings],
        "files": list(found.files()),
    }


def _finding_dict(found: Checked, finding: Finding) -> dict[str, Any]:
    def paths(group: Group) -> list[str]:
        return [found.items[i].record.path for i in group.members]

    return {
        "kind": finding.kind,
        "tone": finding.tone,
        "what": finding.what,
        "why": finding.why,
        "do": finding.fix,
        "groups": [{"paths": paths(g), "note": g.note} for g in finding.groups],
        "files": [
            {"path": s.path, "reason": s.reason, "detail": s.detail}
            for s in finding.files
        ],
    }


def save_table(found: Checked, path: Path) -> None:
    """Write a CSV to train on, in which copies share a group.

    Raises:
        SettingError: The pictures have no files of their own.
    """
    if found.source.root is None:
        what = f"'{found.source.name}' holds its pictures in arrays, not files"
        raise SettingError(what, where="--csv", fix="leave --csv out")
    family = {i: f"copies-{k}" for k, g in enumerate(_joined(found)) for i in g}
    columns = ("image_path", "label", "split", "group")
    rows = []
    for position, item in enumerate(found.items):
        record = item.record
        place = os.path.relpath(file_of(found.source, record), path.parent)
        group = family.get(position, record.group or "")
        rows.append((place, record.label, record.part or "", group))
    write_csv(path, columns, rows)


def _joined(found: Checked) -> list[list[int]]:
    """Return what must stay together: copies, and the groups that were given."""
    links = [(f[0], other) for f in found.copies.families for other in f[1:]]
    first: dict[str, int] = {}
    for position, item in enumerate(found.items):
        if item.record.group:
            links.append((first.setdefault(item.record.group, position), position))
    return linked_groups(len(found.items), links)
