"""Output files of `data check`: JSON, CSV of label quality, CSV for training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import write_csv
from striate.data.check.check import DataCheckResult
from striate.data.check.finding import Finding
from striate.data.check.label_errors import LabelErrors
from striate.data.check.scan import file_of
from striate.data.split.exact_counts import connected_components

RANKING_COLUMNS = (
    *("rank", "suggested_label", "probability", "label_probability", "label_quality"),
    "suspected",
)


def as_dict(result: DataCheckResult) -> dict[str, Any]:
    """Return a data check result as a JSON-serializable dict."""
    data: dict[str, Any] = {
        "data": result.source.name,
        "file_count": result.file_count,
        "used": result.used,
        "quarantined": len(result.quarantined),
        "ignored": len(result.ignored),
        "classes": dict(result.classes),
        "unsearched_for_near_duplicates": result.unsearched,
        "findings": [_finding_dict(result, finding) for finding in result.findings],
        "files": list(result.files()),
    }
    if result.label_errors is not None:
        for row in result.label_errors.ranking():
            values = {name: getattr(row, name) for name in RANKING_COLUMNS}
            data["files"][row.position]["label_check"] = values
        data["labels"] = _label_dict(result.label_errors)
    return data


def _label_dict(label_errors: LabelErrors) -> dict[str, Any]:
    """Return the results of the label check over all images."""
    analysis, names = label_errors.analysis, label_errors.names
    return {
        "checked": int(analysis.has_prediction.sum()),
        "suspected": len(analysis.suspected),
        "estimated_wrong": round(analysis.estimate, 2),
        "agreement": round(analysis.agreement, 4),
        "confusions": [
            {
                "label": names[cell.label],
                "suggested_label": names[cell.suggested],
                "suspected": cell.suspected_count,
                "estimated_wrong": round(cell.estimate, 2),
            }
            for cell in analysis.confusions
        ],
        "model": label_errors.model,
        "method": label_errors.method,
        "reason": label_errors.reason,
        "folds": label_errors.folds,
        "epochs": label_errors.epochs,
        "seconds": round(label_errors.seconds, 2),
    }


def save_ranking(result: DataCheckResult, path: Path) -> None:
    """Write a CSV of all images in the label check, the lowest label quality first.

    Raises:
        SettingError: The labels were not checked.
    """
    if result.label_errors is None:
        what = "--ranking needs the results of the label check"
        raise SettingError(what, where="--ranking", fix="add --labels")
    rows = []
    for row in result.label_errors.ranking():
        values = (getattr(row, name) for name in RANKING_COLUMNS)
        rows.append((result.items[row.position].record.path, row.label, *values))
    write_csv(path, ("image_path", "label", *RANKING_COLUMNS), rows)


def _finding_dict(result: DataCheckResult, finding: Finding) -> dict[str, Any]:
    paths = [item.record.path for item in result.items]
    return {
        "kind": finding.kind,
        "tone": finding.tone,
        "what": finding.what,
        "why": finding.why,
        "do": finding.fix,
        "groups": [
            {"image_paths": [paths[i] for i in group.members], "note": group.note}
            for group in finding.groups
        ],
        "files": [skip.as_dict() for skip in finding.files],
    }


def save_training_table(result: DataCheckResult, path: Path) -> None:
    """Write a training CSV in which duplicate images have the same `group` value.

    Raises:
        SettingError: The images are not local files.
    """
    if result.source.root is None:
        location = "are in shards or at a URL, but a CSV can only list local files"
        if result.source.files is None:
            location = "are in arrays, not files"
        what = f"the images of '{result.source.name}' {location}"
        raise SettingError(what, where="--csv", fix="remove --csv")
    groups = enumerate(split_groups(result))
    group_names = {i: f"duplicates-{k}" for k, members in groups for i in members}
    columns = ("image_path", "label", "split", "group")
    rows = []
    for position, item in enumerate(result.items):
        record = item.record
        name = os.path.relpath(file_of(result.source, record), path.parent)
        group = group_names.get(position, record.group or "")
        rows.append((name, record.label, record.split or "", group))
    write_csv(path, columns, rows)


def split_groups(result: DataCheckResult) -> list[list[int]]:
    """Return groups of images that must stay in one split, as lists of indices."""
    links = [(g[0], other) for g in result.duplicates.groups for other in g[1:]]
    first_of_group: dict[str, int] = {}
    for position, item in enumerate(result.items):
        if item.record.group:
            first = first_of_group.setdefault(item.record.group, position)
            links.append((first, position))
    groups = connected_components(len(result.items), links)
    return [group for group in groups if len(group) > 1]
