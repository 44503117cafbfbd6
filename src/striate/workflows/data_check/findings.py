"""Report of `data check`: the findings for the terminal and for the HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from striate.core import findings as f
from striate.core.files import write_text
from striate.core.format import count_text
from striate.core.notebook import notebook_html
from striate.data.check.check import DataCheckResult
from striate.data.check.finding import Finding, ImageGroup
from striate.data.check.label_errors import LABEL_ERROR
from striate.data.sources.source import SPLITS, Skipped
from striate.report.html import render_page
from striate.report.html_card import render_card
from striate.workflows.data_check.label_error_tables import (
    confusion_table,
    method_note,
    suspect_table,
)
from striate.workflows.data_check.thumbnails import (
    DISPLAY_SIDE,
    SIDE_BY_SIDE,
    WIDE_DISPLAY_SIDE,
    Thumbnails,
    class_gallery,
    common_folder,
    group_gallery,
    load_previews,
)

GROUPS_SHOWN = 36  # groups of a finding on the page; --json has all
LABEL_ERRORS_SHOWN = 120
FILES_SHOWN = 100
ROWS_SHOWN = 200  # rows of the class table
CLASSES_SHOWN = 40  # classes with example images
EXAMPLES = 6
NAMES_IN_TERMINAL = 3  # files or groups of a finding in the terminal
ROWS_IN_TERMINAL = 10  # label errors in the terminal

TITLES = {
    "quarantined": "Unusable files",
    "one-class": "Only one class",
    "empty-class": "Classes without images",
    "tiny-class": "Classes with few images",
    "imbalance": "Imbalanced classes",
    "unseen-class": "Classes without training images",
    "leak": "Leaks between splits",
    "two-labels": "Same image, different labels",
    "near-two-labels": "Near-duplicates with different labels",
    "exact-duplicates": "Exact duplicates",
    "near-duplicates": "Near-duplicates",
    "similar-classes": "Similar classes",
    "blank": "Blank images",
    "dark": "Dark images",
    "bright": "Bright images",
    "blurred": "Blurred images",
    "size": "Unusual sizes",
    "color": "Unusual color mode",
    "exif": "Unreadable EXIF data",
    "rule": "Converted images",
    LABEL_ERROR: "Suspected label errors",
    "unchecked-labels": "Labels not checked",
    "unsearched": "Not searched for near-duplicates",
    "layout": "Layout of the data set",
    "changed": "Changed files",
    "removed": "Removed files",
    "new": "New files",
}


def data_check_page(result: DataCheckResult) -> f.Page:
    """Return the HTML report: summary, findings with images, and classes."""
    examples = _examples_by_class(result)
    positions = {i for members in examples.values() for i in members}
    for finding in result.findings:
        for group in _shown_groups(finding):
            positions |= set(group.members[:SIDE_BY_SIDE])
    thumbnails = load_previews(result, sorted(positions))
    galleries = [class_gallery(thumbnails, i, name) for name, i in examples.items()]
    class_blocks: list[f.Block] = [class_count_table(result), *filter(None, galleries)]
    sections = [
        _summary(result),
        *(_section(result, finding, thumbnails) for finding in result.findings),
        f.Section("Classes", tuple(class_blocks)),
        *_ignored_section(result),
    ]
    folder = common_folder(result)
    return f.Page(
        f"{result.source.name} · data check",
        subtitle=f"{result.counts_text}."
        + (f"\n\nPaths are relative to {folder}" if folder else ""),
        sections=tuple(sections),
        footer="No image and no label was changed.",
    )


@notebook_html.register
def data_check_card(result: DataCheckResult) -> str:
    """Return the result as HTML for a notebook: the summary of the report."""
    return render_card(f"{result.source.name}: data check", [_summary(result)])


def save_data_check_page(result: DataCheckResult, path: Path) -> None:
    """Write the report as a single HTML file."""
    write_text(path, render_page(data_check_page(result)))


def _summary(result: DataCheckResult) -> f.Section:
    sizes: Counter[str] = Counter()
    for _, by_split in result.classes:
        sizes.update(by_split)
    by_split_text = " · ".join(f"{s} {sizes[s]:,}" for s in SPLITS if sizes[s])
    counts = {
        "used": result.used,
        "quarantined": len(result.quarantined),
        "ignored": len(result.ignored),
        "classes": len(result.classes),
        "findings": sum(finding.tone != "note" for finding in result.findings),
    }
    details = {"used": by_split_text}
    figures = tuple(
        f.Figure(name, f"{n:,}", detail=details.get(name, ""))
        for name, n in counts.items()
    )
    blocks: list[f.Block] = [f.Figures(figures), *findings_table(result)]
    return f.Section("Summary", tuple(blocks), lead=_image_kinds(result))


def _image_kinds(result: DataCheckResult) -> str:
    """Return one line of text on the sizes, color modes and formats of the images."""
    items = result.items
    sizes = Counter(f"{i.stats.height}×{i.stats.width}" for i in items)
    formats = Counter(i.nature.format for i in items if i.nature)
    colored = sum(item.stats.colored for item in items)
    texts = [_most_common(sizes, "sizes")]
    if items:
        texts.append("all gray" if not colored else f"{colored:,} in color")
    texts += [_most_common(formats, "formats")] if formats else []
    return "; ".join(text for text in texts if text) + "."


def _most_common(counts: Counter[str], several: str) -> str:
    """Return the most common values with their counts as text.

    Example:
        >>> _most_common(Counter({"PNG": 9, "JPEG": 1}), "formats")
        '2 formats, PNG (9), JPEG (1)'
    """
    first = counts.most_common(3)
    if len(counts) < 2:
        return first[0][0] if first else ""
    named = ", ".join(f"{name} ({n:,})" for name, n in first)
    return f"{len(counts):,} {several}, {named}"


def findings_table(result: DataCheckResult) -> list[f.Block]:
    """Return a table of all findings, with one sentence per finding."""
    ok = [f.Prose("No problems found.", "good")] if result.ok else []
    if not result.findings:
        return [*ok]
    words = {"bad": "problem", "warning": "warning", "note": "note"}
    rows = tuple((words[finding.tone], finding.what) for finding in result.findings)
    columns = (f.Column("severity"), f.Column("finding"))
    return [*ok, f.Table(columns=columns, rows=rows)]


def _tone(finding: Finding) -> str:
    return "plain" if finding.tone == "note" else finding.tone


def data_check_blocks(result: DataCheckResult) -> list[f.Block]:
    """Return the blocks of the terminal report: findings, fixes and example files."""
    if not result.findings:
        return findings_table(result)
    folder = common_folder(result)
    blocks: list[f.Block] = []
    if folder:
        blocks.append(f.Prose(f"Paths are relative to {folder}"))
    for finding in result.findings:
        label_errors = result.label_errors if finding.kind == LABEL_ERROR else None
        names = [] if label_errors else _names(result, finding, folder)
        lines = [finding.what, *names]
        if finding.why:
            lines.append(f"  why: {finding.why}")
        if finding.fix:
            lines.append(f"  fix: {finding.fix}")
        blocks.append(f.Prose("\n".join(lines), _tone(finding)))
        if label_errors:
            blocks += suspect_table(result, ROWS_IN_TERMINAL, folder)
            blocks += confusion_table(label_errors, NAMES_IN_TERMINAL)
    return blocks


def _names(result: DataCheckResult, finding: Finding, folder: str) -> list[str]:
    """Return the first image groups or files of a finding, one per line of text."""
    groups = finding.groups[:NAMES_IN_TERMINAL]
    lines = [_group_line(result, group, folder) for group in groups]
    for skip in finding.files[:NAMES_IN_TERMINAL] if not groups else ():
        detail = f" ({skip.detail})" if skip.detail else ""
        lines.append(f"  {skip.path.removeprefix(folder)}: {skip.reason}{detail}")
    rest = max(len(finding.groups), len(finding.files)) - len(lines)
    if rest > 0:
        lines.append(f"  … and {rest:,} more")
    return lines


def _group_line(result: DataCheckResult, group: ImageGroup, folder: str) -> str:
    records = [result.items[i].record for i in group.members[:NAMES_IN_TERMINAL]]
    paths = [record.path.removeprefix(folder) for record in records]
    more = len(group.members) - len(paths)
    names = ", ".join(paths) + (f", {more:,} more" if more else "")
    labels = list(dict.fromkeys(result.items[i].record.label for i in group.members))
    note = group.note
    if not note and len(labels) > 1:
        note = " | ".join(labels[:NAMES_IN_TERMINAL])
    return f"  {names}" + (f"  ({note})" if note else "")


def _section(
    result: DataCheckResult, finding: Finding, thumbnails: Thumbnails
) -> f.Section:
    fix = f"Fix: {finding.fix}." if finding.fix else ""
    text = "\n\n".join(filter(None, (finding.why, fix)))
    blocks: list[f.Block] = [f.Prose(text, _tone(finding))] if text else []
    if finding.kind == LABEL_ERROR and result.label_errors:
        blocks += confusion_table(result.label_errors)
        blocks.append(method_note(result.label_errors))
    if gallery := _gallery(result, finding, thumbnails):
        blocks.append(gallery)
    if finding.files:
        blocks.append(skipped_table(finding.files))
    title = TITLES[finding.kind]
    return f.Section(title, tuple(blocks), lead=f"{finding.what}.")


def _gallery(
    result: DataCheckResult, finding: Finding, thumbnails: Thumbnails
) -> f.Images | None:
    groups = _shown_groups(finding)
    rest = len(finding.groups) - len(groups)
    note = f"{rest:,} more in the output of --json." if rest else ""
    side = WIDE_DISPLAY_SIDE if finding.kind == LABEL_ERROR else DISPLAY_SIDE
    return group_gallery(result, groups, thumbnails, note, common_folder(result), side)


def _shown_groups(finding: Finding) -> Sequence[ImageGroup]:
    most = LABEL_ERRORS_SHOWN if finding.kind == LABEL_ERROR else GROUPS_SHOWN
    return finding.groups[:most]


def _examples_by_class(result: DataCheckResult) -> dict[str, list[int]]:
    """Return the indices of a few example images of every class."""
    positions: dict[str, list[int]] = {}
    for position, item in enumerate(result.items):
        for name in result.source.labels.classes_of(item.record.label):
            positions.setdefault(name, []).append(position)
    spread = {}
    for name, _ in result.classes[:CLASSES_SHOWN]:
        members = positions.get(name, [])
        step = max(1, len(members) // EXAMPLES)
        spread[name] = members[::step][:EXAMPLES]
    return spread


def class_count_table(result: DataCheckResult) -> f.Table:
    """Return a table of the number of images per class (and per split, if given)."""
    splits = [p for p in SPLITS if any(p in by_split for _, by_split in result.classes)]
    total = result.used or 1
    columns = (
        f.Column("class"),
        *(f.Column(split, "integer") for split in splits),
        f.Column("images", "integer"),
        f.Column("share", "share"),
    )
    rows: list[tuple[f.Cell, ...]] = []
    classes = result.classes[:ROWS_SHOWN]
    rest = len(result.classes) - len(classes)
    for name, by_split in classes:
        count = sum(by_split.values())
        sizes = [by_split.get(split, 0) for split in splits]
        rows.append((name, *sizes, count, count / total))
    note = f"{rest:,} more in the output of --json." if rest else ""
    return f.Table(columns=columns, rows=tuple(rows), note=note)


def _ignored_section(result: DataCheckResult) -> list[f.Section]:
    if not result.ignored:
        return []
    count = count_text(len(result.ignored), "file")
    lead = f"{count} that do not belong to the data set."
    table = skipped_table(result.ignored)
    return [f.Section("Ignored files", (table,), lead=lead)]


def skipped_table(skips: Sequence[Skipped]) -> f.Table:
    """Return a table of the files that are not used, with the reason for each."""
    rows = skips[:FILES_SHOWN]
    rest = len(skips) - len(rows)
    return f.Table(
        columns=(f.Column("path"), f.Column("reason"), f.Column("detail")),
        rows=tuple((skip.path, skip.reason, skip.detail) for skip in rows),
        note=f"{rest:,} more in the output of --json." if rest else "",
    )
