"""Data check: scan all files of a data set once, and report findings.

Every file is either used, quarantined or ignored, with the same numbers as in training.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from striate.core.format import count_text, file_counts_text
from striate.core.notebook import NotebookResult
from striate.data.check.changed_files import change_findings
from striate.data.check.classes import class_counts, class_findings
from striate.data.check.descriptor import descriptor_points
from striate.data.check.duplicate_findings import duplicate_findings
from striate.data.check.duplicates import Duplicates, exact_duplicates
from striate.data.check.finding import TONES, Finding, ImageGroup
from striate.data.check.label_errors import LabelErrors, label_error_findings
from striate.data.check.leaks import assigned_splits, leak_findings
from striate.data.check.near_duplicates import (
    MIN_IMAGE_SIDE,
    find_near_duplicates,
    searchable_positions,
)
from striate.data.check.outliers import outlier_findings
from striate.data.check.scan import (
    CloseupStore,
    ImageItem,
    ScanResult,
    Tick,
    scan_source,
)
from striate.data.check.similar_classes import (
    separate_similar_classes,
    similar_class_findings,
)
from striate.data.check.tint import same_tint
from striate.data.find_source import find_source
from striate.data.scan import label_conflicts
from striate.data.shards.tars import is_shards
from striate.data.sources.named import NAMED
from striate.data.sources.source import Skipped, Source

EXIF_WARNING = "the EXIF data is unreadable"


@dataclass(frozen=True, kw_only=True)
class DataCheckResult(NotebookResult):
    """Result of a data check."""

    source: Source = field(repr=False)  # the checked source
    # the readable images, in the source's order; findings refer to images by index
    items: tuple[ImageItem, ...] = field(repr=False)
    # items that training leaves out because equal images have other labels, by index
    conflicts: Mapping[int, Skipped] = field(repr=False)
    # files that should be images but cannot be used, the conflicts included
    quarantined: tuple[Skipped, ...] = field(repr=False)
    # files that do not belong to the data set
    ignored: tuple[Skipped, ...] = field(repr=False)
    hashes: Mapping[str, str] = field(repr=False)  # hash of each file by path
    # number of images by split, for each class
    classes: tuple[tuple[str, dict[str, int]], ...] = field(repr=False)
    duplicates: Duplicates = field(repr=False)  # exact and near-duplicates
    findings: tuple[Finding, ...]  # all findings, the worst first
    unsearched: int = 0  # number of images not searched for near-duplicates
    # result of the label check, or None
    label_errors: LabelErrors | None = field(default=None, repr=False)

    @property
    def file_count(self) -> int:
        """Return the number of files."""
        return self.used + len(self.quarantined) + len(self.ignored)

    @property
    def used(self) -> int:
        """Return the number of images that training can use."""
        return len(self.items) - len(self.conflicts)

    @property
    def counts_text(self) -> str:
        """Return the number of used, quarantined and ignored files as one sum."""
        quarantined, ignored = len(self.quarantined), len(self.ignored)
        return file_counts_text(
            used=self.used, quarantined=quarantined, ignored=ignored
        )

    @property
    def ok(self) -> bool:
        """Return True if the check found no problems and no warnings."""
        return all(finding.tone == "note" for finding in self.findings)

    def with_label_errors(self, label_errors: LabelErrors) -> DataCheckResult:
        """Return a copy of the result with findings on label errors added."""
        findings = worst_first([*label_error_findings(label_errors), *self.findings])
        return replace(self, findings=findings, label_errors=label_errors)

    def files(self) -> Iterator[dict[str, Any]]:
        """Yield path, status and details of every file, as JSON-compatible values.

        The items come first, in order.
        """
        for position, item in enumerate(self.items):
            yield _file(item, self.conflicts.get(position))
        conflicts = {id(skip) for skip in self.conflicts.values()}
        unused = {"quarantined": self.quarantined, "ignored": self.ignored}
        for status, skips in unused.items():
            for skip in skips:
                if id(skip) not in conflicts:
                    yield {
                        "image_path": skip.path,
                        "status": status,
                        "reason": skip.reason,
                        "detail": skip.detail,
                        "hash": self.hashes.get(skip.path, ""),
                    }


def check_dataset(
    data: str | Path | Source,
    *,
    near: bool = True,
    since: Mapping[str, str] | None = None,
    workers: int | None = None,
    tick: Tick | None = None,
) -> DataCheckResult:
    """Check the images and labels of a data set, without training a network.

    Raises:
        DataError: There is no such data set, or its layout is not supported.

    Example:
        >>> result = check_dataset("digits", near=False)
        >>> result.file_count, result.ok
        (1797, True)
    """
    source = data if isinstance(data, Source) else _open_source(data)
    with CloseupStore() as closeups:
        scan = scan_source(source, closeups, tick=tick, workers=workers)
        duplicates, unsearched = _duplicates(scan, closeups, near)
    records = [item.record for item in scan.items]
    splits = assigned_splits(records)
    labels = [record.label for record in records]
    duplicates, similar = separate_similar_classes(duplicates, labels)
    conflicts = label_conflicts(records, [item.stats.content for item in scan.items])
    counts = class_counts(
        [label for i, label in enumerate(labels) if i not in conflicts],
        [split for i, split in enumerate(splits) if i not in conflicts],
        source.labels,
    )
    positions_by_label: dict[str, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        for name in source.labels.classes_of(label):
            positions_by_label[name].append(position)
    classes = class_findings(counts, positions_by_label, source.ignored)
    if source.labels.multi_label and any(by_split for _, by_split in counts):
        # Of several labels per image, one class can be learned: present or absent.
        classes = [f for f in classes if f.kind != "one-class"]
    unusable = (*source.quarantined, *scan.unusable)
    layout = [Finding(kind="layout", tone="warning", what=t) for t in source.warnings]
    findings = [
        *_unusable_files(unusable),
        *classes,
        *leak_findings(duplicates, records, splits, descriptor_points(scan.thumbs)),
        *duplicate_findings(duplicates, records, splits),
        *similar_class_findings(similar),
        *outlier_findings([item.stats for item in scan.items]),
        *_file_notes(scan.items),
        *layout,
        *_not_searched(unsearched),
    ]
    hashes = {item.record.path: _hash(item) for item in scan.items}
    hashes |= scan.unusable_hashes
    if since is not None:
        positions = {record.path: i for i, record in enumerate(records)}
        findings += change_findings(since, hashes, positions)
    return DataCheckResult(
        source=source,
        items=scan.items,
        conflicts=conflicts,
        quarantined=(*unusable, *conflicts.values()),
        ignored=source.ignored,
        hashes=hashes,
        classes=tuple(counts),
        duplicates=duplicates,
        findings=worst_first(findings),
        unsearched=unsearched,
    )


def _open_source(data: str | Path) -> Source:
    """Open a data set by name or path; images in shards are listed, not decoded."""
    if str(data) not in NAMED and is_shards(data):
        from striate.data.shards.listing import list_shards  # which brings torch

        # Splitting them, as training does, would decode them all in this process.
        return list_shards(data)
    return find_source(data)


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sort findings by severity, the worst first; the sort is stable."""
    return tuple(sorted(findings, key=lambda finding: TONES.index(finding.tone)))


def _duplicates(
    scan: ScanResult, closeups: CloseupStore, near: bool
) -> tuple[Duplicates, int]:
    """Return all duplicates, and the number of images without near-duplicate check."""
    equal = exact_duplicates([item.stats.content for item in scan.items])
    exact_only = Duplicates(count=len(scan.items), equal=equal)
    if not near:
        return exact_only, 0
    sides = [min(item.stats.height, item.stats.width) for item in scan.items]
    distinct = set(exact_only.representatives)
    searched = searchable_positions(scan.thumbs, sides, distinct).tolist()
    pairs = find_near_duplicates(scan.thumbs[searched], lambda k: closeups(searched[k]))
    near_pairs = [
        replace(pair, first=searched[pair.first], second=searched[pair.second])
        for pair in pairs
    ]
    tints = [item.stats.tint for item in scan.items]
    near_pairs = [pair for pair in near_pairs if same_tint(pair, tints)]
    return replace(exact_only, near=tuple(near_pairs)), len(distinct) - len(searched)


def _unusable_files(skips: Sequence[Skipped]) -> list[Finding]:
    if not skips:
        return []
    reasons = Counter(skip.reason for skip in skips).most_common()
    counts = ", ".join(f"{n:,} {reason}" for reason, n in reasons)
    return [
        Finding(
            kind="quarantined",
            tone="bad",
            what=f"{count_text(len(skips), 'file')} cannot be used: {counts}",
            why="These files should be images, but they cannot be decoded or used. "
            "Training leaves them out.",
            fix="copy the files again from the original source, or remove the files",
            files=tuple(skips),
        )
    ]


def _file_notes(items: Sequence[ImageItem]) -> list[Finding]:
    """Return findings on conversions during decoding, and on file problems."""
    groups: dict[str, list[ImageGroup]] = defaultdict(list)
    for position, item in enumerate(items):
        for note in item.nature.notes if item.nature else ():
            several = note.startswith("only the first of ")
            general = "only the first image of the file is used" if several else note
            groups[general].append(ImageGroup(members=(position,), note=note))
    return [
        Finding(
            kind="exif" if note == EXIF_WARNING else "rule",
            tone="warning" if note == EXIF_WARNING else "note",
            what=f"{count_text(len(images), 'image')}: {note}",
            fix="check the orientation of these images" if note == EXIF_WARNING else "",
            groups=tuple(images),
        )
        for note, images in sorted(groups.items())
    ]


def _not_searched(count: int) -> list[Finding]:
    if not count:
        return []
    verb = "was" if count == 1 else "were"
    what = f"{count_text(count, 'image')} {verb} not searched for near-duplicates"
    why = (
        f"These images are smaller than {MIN_IMAGE_SIDE} pixels or have no contrast, "
        "so different images look the same."
    )
    return [Finding(kind="unsearched", tone="note", what=what, why=why)]


def _hash(item: ImageItem) -> str:
    """Return the file hash, or the content hash for images from arrays."""
    return item.sha256 or item.stats.content


def _file(item: ImageItem, conflict: Skipped | None) -> dict[str, Any]:
    stats, nature = item.stats, item.nature
    status: dict[str, Any] = {"status": "used"}
    if conflict is not None:
        status = {"status": "quarantined", "reason": conflict.reason}
        status["detail"] = conflict.detail
    return {
        "image_path": item.record.path,
        **status,
        "label": item.record.label,
        "split": item.record.split,
        "group": item.record.group,
        "hash": _hash(item),
        "content": stats.content,
        "bytes": item.size,
        "height": stats.height,
        "width": stats.width,
        "colored": stats.colored,
        "format": nature.format if nature else "",
        "mode": nature.mode if nature else "",
        "notes": list(nature.notes) if nature else [],
    }
