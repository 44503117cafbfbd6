"""`data check`: one pass over a set of images, and everything there is to know of it.

Nothing is written; every file is used, quarantined or ignored, and the three add up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from striate.data.check.changes import changes
from striate.data.check.classes import class_counts, class_findings
from striate.data.check.descriptor import points_of
from striate.data.check.duplicate_findings import Copies, copy_findings, find_equal
from striate.data.check.duplicates import SMALLEST, NearPair, near_pairs, searchable
from striate.data.check.finding import TONES, Finding, Group
from striate.data.check.label_error_findings import Doubts, doubt_findings
from striate.data.check.leaks import given_splits, leak_findings
from striate.data.check.outliers import oddities
from striate.data.check.scan import Item, Survey, Tick, Views, survey
from striate.data.find_source import find_source
from striate.data.shards.tars import is_shards
from striate.data.sources.named import NAMED
from striate.data.sources.source import Skipped, Source

WARNED = "the EXIF data is unreadable"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found.

    Args:
        source: What was checked.
        items: The usable images, in the source's order; findings speak of them by
            position.
        quarantined: Files that should have been usable and are not.
        ignored: Files that by rule are no images of the set.
        classes: Each class with its images by part.
        copies: Which images are copies of which.
        findings: The worst first.
        unsearched: Images too small or too plain to look for near-duplicates of.
        doubts: What networks think of the labels, where they were asked.
    """

    source: Source = field(repr=False)
    items: tuple[Item, ...] = field(repr=False)
    quarantined: tuple[Skipped, ...] = field(repr=False)
    ignored: tuple[Skipped, ...] = field(repr=False)
    hashes: Mapping[str, str] = field(repr=False)
    classes: tuple[tuple[str, dict[str, int]], ...] = field(repr=False)
    copies: Copies = field(repr=False)
    findings: tuple[Finding, ...]
    unsearched: int = 0
    doubts: Doubts | None = field(default=None, repr=False)

    @property
    def seen(self) -> int:
        """Return how many files were met."""
        return len(self.items) + len(self.quarantined) + len(self.ignored)

    @property
    def good(self) -> bool:
        """Tell whether there is nothing to mend."""
        return all(finding.tone == "note" for finding in self.findings)

    def with_doubts(self, doubts: Doubts) -> Checked:
        """Return the check with doubtful labels among its findings."""
        findings = worst_first([*doubt_findings(doubts), *self.findings])
        return replace(self, findings=findings, doubts=doubts)

    def files(self) -> Iterator[dict[str, Any]]:
        """Yield every file: what became of it and why."""
        for item in self.items:
            yield _file(item)
        for status, skips in (
            ("quarantined", self.quarantined),
            ("ignored", self.ignored),
        ):
            for skip in skips:
                yield {
                    "path": skip.path,
                    "status": status,
                    "reason": skip.reason,
                    "detail": skip.detail,
                    "hash": self.hashes.get(skip.path, ""),
                }


def check_data(
    data: str | Path | Source,
    *,
    near: bool = True,
    since: Mapping[str, str] | None = None,
    workers: int | None = None,
    tick: Tick | None = None,
) -> Checked:
    """Check a set of images without writing anything.

    Args:
        data: A named set, a folder, a CSV, IDX files, shards, an address, or a source.
        near: Look for near-duplicates too.
        since: Hashes of an earlier check, to tell what changed.
        workers: Decoding processes; as many as processors where not given.
        tick: Called with (done, all) while decoding.

    Raises:
        DataError: Nothing is there, or its layout is not one that is read.

    Example:
        >>> found = check_data("digits", near=False)
        >>> found.seen, found.good
        (1797, True)
    """
    source = data if isinstance(data, Source) else _found(data)
    with Views() as views:
        seen = survey(source, views, tick=tick, workers=workers)
        copies, unsearched = _copies(seen, views, near)
    records = [item.record for item in seen.items]
    splits = given_splits(records)
    labels = [record.label for record in records]
    counts = class_counts(labels, splits, source.labels.names)
    quarantined = (*source.quarantined, *seen.refused)
    findings = [
        *_quarantine(quarantined),
        *class_findings(counts, _places(labels), source.ignored),
        *leak_findings(copies, records, splits, points_of(seen.thumbs)),
        *copy_findings(copies, records, splits),
        *oddities([item.facts for item in seen.items]),
        *_natures(seen.items),
        *_source_warnings(source),
        *_unsearched(unsearched),
    ]
    hashes = {item.record.path: _hash(item) for item in seen.items}
    hashes |= seen.refused_hashes
    if since is not None:
        places = {record.path: i for i, record in enumerate(records)}
        findings += changes(since, hashes, places)
    return Checked(
        source=source,
        items=seen.items,
        quarantined=quarantined,
        ignored=source.ignored,
        hashes=hashes,
        classes=tuple(counts),
        copies=copies,
        findings=worst_first(findings),
        unsearched=unsearched,
    )


def _found(data: str | Path) -> Source:
    """Return the source behind a name or a path, of shards without a look at them."""
    if str(data) not in NAMED and is_shards(data):
        from striate.data.shards.listing import list_shards  # which brings torch

        # To deal them, as training does, is to decode them all in this process.
        return list_shards(data)
    return find_source(data)


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings by tone, else in the order they are in."""
    return tuple(sorted(findings, key=lambda found: TONES.index(found.tone)))


def _copies(seen: Survey, views: Views, near: bool) -> tuple[Copies, int]:
    """Find equal images, and near ones among one of each."""
    equal = find_equal([item.facts.content for item in seen.items])
    found = Copies(count=len(seen.items), equal=equal)
    if not near:
        return found, 0
    sides = [min(item.facts.height, item.facts.width) for item in seen.items]
    chosen = searchable(seen.thumbs, sides, set(found.stand_in))
    distinct = len(set(found.stand_in))
    pairs = near_pairs(seen.thumbs[chosen], lambda k: views(int(chosen[k])))
    told = tuple(
        NearPair(int(chosen[p.first]), int(chosen[p.second]), p.flip, p.score)
        for p in pairs
    )
    copies = Copies(count=len(seen.items), equal=equal, near=told)
    return copies, distinct - len(chosen)


def _places(labels: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        places[label].append(position)
    return places


def _quarantine(skips: Sequence[Skipped]) -> list[Finding]:
    if not skips:
        return []
    reasons = Counter(skip.reason for skip in skips).most_common()
    counts = ", ".join(f"{n:,} {reason}" for reason, n in reasons)
    noun = "file" if len(skips) == 1 else "files"
    return [
        Finding(
            kind="quarantined",
            tone="bad",
            what=f"{len(skips):,} {noun} cannot be used: {counts}",
            why="They should have been images of the set; training leaves them out.",
            fix="copy them again from where they came from, or remove them",
            files=tuple(skips),
        )
    ]


def _natures(items: Sequence[Item]) -> list[Finding]:
    """Tell what was done to images by rule, and what was odd about their files."""
    noted: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        for note in item.nature.notes if item.nature else ():
            noted[_general(note)].append(position)
    return [
        Finding(
            kind="exif" if note == WARNED else "rule",
            tone="warning" if note == WARNED else "note",
            what=f"{len(members):,} image{'' if len(members) == 1 else 's'}: {note}",
            fix="check which way up they are" if note == WARNED else "",
            groups=tuple(
                Group(members=(i,), note=_own(items[i], note)) for i in members
            ),
        )
        for note, members in sorted(noted.items())
    ]


def _general(note: str) -> str:
    several = note.startswith("the first of ")
    return "the first of several in the file counts" if several else note


def _own(item: Item, note: str) -> str:
    mine = (
        [own for own in item.nature.notes if _general(own) == note]
        if item.nature
        else []
    )
    return mine[0] if mine else note


def _unsearched(count: int) -> list[Finding]:
    if not count:
        return []
    what = f"{count:,} images were not searched for near-duplicates"
    why = f"Under {SMALLEST} pixels a side, or without contrast, too much looks alike."
    return [Finding(kind="unsearched", tone="note", what=what, why=why)]


def _source_warnings(source: Source) -> list[Finding]:
    return [
        Finding(kind="layout", tone="warning", what=text) for text in source.warnings
    ]


def _hash(item: Item) -> str:
    """Return the file's hash, or the content's where there is no file."""
    return item.sha256 or item.facts.content


def _file(item: Item) -> dict[str, Any]:
    facts, nature = item.facts, item.nature
    return {
        "path": item.record.path,
        "status": "used",
        "label": item.record.label,
        "split": item.record.split,
        "group": item.record.group,
        "hash": _hash(item),
        "content": facts.content,
        "bytes": item.size,
        "height": facts.height,
        "width": facts.width,
        "colored": facts.colored,
        "format": nature.format if nature else "",
        "mode": nature.mode if nature else "",
        "notes": list(nature.notes) if nature else [],
    }
