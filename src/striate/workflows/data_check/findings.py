"""What `data check` shows: its findings in words, with their images on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from striate.core.files import write_text
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Images,
    Page,
    Prose,
    Section,
    Table,
)
from striate.data.check.check import Checked
from striate.data.check.finding import Finding, Group
from striate.data.check.label_error_findings import DOUBT
from striate.data.sources.source import SPLITS, Skipped
from striate.report.format import counted
from striate.report.html import render
from striate.workflows.data_check.label_error_tables import confusions, how, suspects
from striate.workflows.data_check.thumbnails import (
    SHOWN_SIDE,
    SIDE_BY_SIDE,
    WIDE_SIDE,
    Previews,
    base_of,
    class_images,
    group_images,
    previews,
)

GROUPS_SHOWN = 36  # of a finding on the page; JSON has all
DOUBTED_SHOWN = 120
FILES_SHOWN = 100
ROWS_SHOWN = 200  # of the classes
CLASSES_SHOWN = 40  # with images
EXAMPLES = 6
NAMED = 3  # files or groups of a finding in a terminal
LISTED = 10  # doubtful labels in a terminal

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
    "color": "Unusual color",
    "exif": "EXIF",
    "rule": "By rule",
    DOUBT: "Doubtful labels",
    "unjudged": "Labels not judged",
    "unsearched": "Not searched",
    "layout": "Layout",
    "changed": "Changed",
    "gone": "Gone",
    "new": "New",
}


def page_of(found: Checked) -> Page:
    """Return the page: a summary, each finding with its images, the classes."""
    shown = _examples(found)
    for finding in found.findings:
        for group in _shown(finding):
            shown |= set(group.members[:SIDE_BY_SIDE])
    held = previews(found, sorted(shown))
    findings = [_section(found, finding, held) for finding in found.findings]
    sections = [_summary(found), *findings, _classes(found, held), *_files(found)]
    return Page(
        title=f"{found.source.name} · data check",
        subtitle=_account(found) + _base(found),
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


def _base(found: Checked) -> str:
    base = base_of(found)
    return f"\n\nNames start at {base}" if base else ""


def _summary(found: Checked) -> Section:
    open_ = [finding for finding in found.findings if finding.tone != "note"]
    figures = Figures(
        figures=(
            Figure(label="used", value=f"{len(found.items):,}", detail=_splits(found)),
            Figure(label="quarantined", value=f"{len(found.quarantined):,}"),
            Figure(label="ignored", value=f"{len(found.ignored):,}"),
            Figure(label="classes", value=f"{len(found.classes):,}"),
            Figure(label="findings", value=f"{len(open_):,}"),
        )
    )
    blocks: list[Block] = [figures, *brief(found)]
    return Section(title="Result", lead=_kinds(found), blocks=tuple(blocks))


def _kinds(found: Checked) -> str:
    """Say of what sizes, colors and formats the images are."""
    items = found.items
    sizes = Counter(f"{i.facts.height}×{i.facts.width}" for i in items)
    formats = Counter(i.nature.format for i in items if i.nature)
    colored = sum(item.facts.colored for item in items)
    told = [_most(sizes, "sizes")]
    if items:
        told.append("all gray" if not colored else f"{colored:,} in color")
    told += [_most(formats, "formats")] if formats else []
    return "; ".join(text for text in told if text) + "."


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


def _splits(found: Checked) -> str:
    totals = dict.fromkeys(SPLITS, 0)
    for _, by_split in found.classes:
        for split in by_split.keys() & totals.keys():
            totals[split] += by_split[split]
    return " · ".join(f"{split} {n:,}" for split, n in totals.items() if n)


def brief(found: Checked) -> list[Block]:
    """Return the findings in one sentence each."""
    good = [Prose(text="Nothing to mend.", tone="good")] if found.good else []
    if not found.findings:
        return [*good]
    words = {"bad": "problem", "warning": "warning", "note": "to know"}
    rows = tuple((words[finding.tone], finding.what) for finding in found.findings)
    columns = (Column(title=""), Column(title="finding"))
    return [*good, Table(columns=columns, rows=rows)]


def _tone(finding: Finding) -> str:
    return "plain" if finding.tone == "note" else finding.tone


def told(found: Checked) -> list[Block]:
    """Return the findings for a terminal: what, why, what to do, the first files."""
    if not found.findings:
        return brief(found)
    base = base_of(found)
    blocks: list[Block] = [Prose(text=f"Names start at {base}")] if base else []
    for finding in found.findings:
        doubted = found.doubts if finding.kind == DOUBT else None
        names = [] if doubted else _names(found, finding, base)
        lines = [finding.what, *names]
        if finding.why:
            lines.append(f"  why: {finding.why}")
        if finding.fix:
            lines.append(f"  do:  {finding.fix}")
        blocks.append(Prose(text="\n".join(lines), tone=_tone(finding)))
        if doubted:
            blocks += [*suspects(found, LISTED, base), *confusions(doubted, NAMED)]
    return blocks


def _names(found: Checked, finding: Finding, base: str) -> list[str]:
    """Return the first groups' or files' names, a line each."""
    groups = [_line(found, group, base) for group in finding.groups[:NAMED]]
    lines = groups or [_skip_line(skip, base) for skip in finding.files[:NAMED]]
    rest = max(len(finding.groups), len(finding.files)) - len(lines)
    if rest > 0:
        lines.append(f"  … and {rest:,} more")
    return lines


def _line(found: Checked, group: Group, base: str) -> str:
    records = [found.items[i].record for i in group.members[:NAMED]]
    paths = [record.path.removeprefix(base) for record in records]
    more = len(group.members) - len(paths)
    names = " = ".join(paths) + (f" = {more:,} more" if more else "")
    labels = list(dict.fromkeys(found.items[i].record.label for i in group.members))
    note = group.note or (" | ".join(labels[:NAMED]) if len(labels) > 1 else "")
    return f"  {names}" + (f"  ({note})" if note else "")


def _skip_line(skip: Skipped, base: str) -> str:
    detail = f" ({skip.detail})" if skip.detail else ""
    return f"  {skip.path.removeprefix(base)}: {skip.reason}{detail}"


def _section(found: Checked, finding: Finding, held: Previews) -> Section:
    said = "\n\n".join(text for text in (finding.why, _advice(finding)) if text)
    blocks: list[Block] = [Prose(text=said, tone=_tone(finding))] if said else []
    if finding.kind == DOUBT and found.doubts:
        blocks += [*confusions(found.doubts), how(found.doubts)]
    gallery = _gallery(found, finding, held)
    blocks += [gallery] if gallery else []
    if finding.files:
        blocks.append(skipped_table(finding.files))
    return Section(
        title=TITLES[finding.kind], lead=f"{finding.what}.", blocks=tuple(blocks)
    )


def _advice(finding: Finding) -> str:
    return f"What to do: {finding.fix}." if finding.fix else ""


def _gallery(found: Checked, finding: Finding, held: Previews) -> Images | None:
    groups = _shown(finding)
    rest = len(finding.groups) - len(groups)
    note = f"{rest:,} more stand in --json." if rest else ""
    side = WIDE_SIDE if finding.kind == DOUBT else SHOWN_SIDE
    return group_images(found, groups, held, note, base_of(found), side)


def _shown(finding: Finding) -> Sequence[Group]:
    most = DOUBTED_SHOWN if finding.kind == DOUBT else GROUPS_SHOWN
    return finding.groups[:most]


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


def _classes(found: Checked, held: Previews) -> Section:
    spread = _spread(found).items()
    galleries = [class_images(held, places, name) for name, places in spread]
    blocks: list[Block] = [class_table(found), *(g for g in galleries if g)]
    return Section(title="Classes", blocks=tuple(blocks))


def class_table(found: Checked) -> Table:
    """Return each class with its images, by part where parts are given."""
    splits = [p for p in SPLITS if any(p in by_split for _, by_split in found.classes)]
    total = len(found.items) or 1
    columns = (
        Column(title="class"),
        *(Column(title=split, kind="integer") for split in splits),
        Column(title="images", kind="integer"),
        Column(title="share", kind="share"),
    )
    rows: list[tuple[Cell, ...]] = []
    shown = found.classes[:ROWS_SHOWN]
    rest = len(found.classes) - len(shown)
    for name, by_split in shown:
        count = sum(by_split.values())
        sizes = [by_split.get(split, 0) for split in splits]
        rows.append((name, *sizes, count, count / total))
    note = f"{rest:,} more stand in --json." if rest else ""
    return Table(columns=columns, rows=tuple(rows), note=note)


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
