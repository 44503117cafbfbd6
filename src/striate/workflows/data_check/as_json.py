"""What `data check` leaves for programs: JSON of every file, a table to train on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import write_csv
from striate.data.check.check import Checked
from striate.data.check.duplicates import linked_groups
from striate.data.check.finding import Finding, Group
from striate.data.check.label_error_findings import Doubts
from striate.data.check.scan import file_of

RANKED = (
    *("rank", "looks_like", "probability", "of_label", "support"),
    "believed_wrong",
)


def as_dict(found: Checked) -> dict[str, Any]:
    """Return everything as JSON values, every file included."""
    whole: dict[str, Any] = {
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
    return whole if found.doubts is None else _with_doubts(whole, found.doubts)


def _with_doubts(whole: dict[str, Any], doubts: Doubts) -> dict[str, Any]:
    """Add the judgement of all labels, and to each used file that of its own."""
    judged, names = doubts.judged, doubts.names
    for doubt in doubts.ranking():
        shown = {name: getattr(doubt, name) for name in RANKED}
        whole["files"][doubt.position]["doubt"] = shown
    whole["labels"] = {
        "judged": int(judged.judged.sum()),
        "doubted": len(judged.wrong),
        "estimated_wrong": round(judged.estimate, 2),
        "agreement": round(judged.agreement, 4),
        "confusions": [
            {
                "label": names[cell.given],
                "looks_like": names[cell.other],
                "doubted": cell.doubted,
                "estimated_wrong": round(cell.estimate, 2),
            }
            for cell in judged.confusions
        ],
        "model": doubts.model,
        "folds": doubts.folds,
        "epochs": doubts.epochs,
        "seconds": round(doubts.seconds, 2),
    }
    return whole


def save_ranking(found: Checked, path: Path) -> None:
    """Write a CSV of every used image, the most doubted label first.

    Raises:
        SettingError: The labels were not judged.
    """
    if found.doubts is None:
        what = "a ranking of labels needs them judged"
        raise SettingError(what, where="--ranking", fix="add --labels")
    rows = (
        (found.items[d.position].record.path, d.label, *(getattr(d, n) for n in RANKED))
        for d in found.doubts.ranking()
    )
    write_csv(path, ("image_path", "label", *RANKED), rows)


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
        SettingError: The images have no files of their own on this machine.
    """
    if found.source.root is None:
        held = (
            "in arrays, not files"
            if found.source.files is None
            else ("in shards or at an address, where a table cannot name them")
        )
        what = f"'{found.source.name}' holds its images {held}"
        raise SettingError(what, where="--csv", fix="leave --csv out")
    family = {i: f"copies-{k}" for k, g in enumerate(kept_together(found)) for i in g}
    columns = ("image_path", "label", "split", "group")
    rows = []
    for position, item in enumerate(found.items):
        record = item.record
        place = os.path.relpath(file_of(found.source, record), path.parent)
        group = family.get(position, record.group or "")
        rows.append((place, record.label, record.split or "", group))
    write_csv(path, columns, rows)


def kept_together(found: Checked) -> list[list[int]]:
    """Return what must stay together: copies, and the groups that were given."""
    links = [(f[0], other) for f in found.copies.families for other in f[1:]]
    first: dict[str, int] = {}
    for position, item in enumerate(found.items):
        if item.record.group:
            links.append((first.setdefault(item.record.group, position), position))
    return linked_groups(len(found.items), links)
