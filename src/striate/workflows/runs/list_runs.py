"""List the runs of a folder: find, filter and sort them; write tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core.errors import RunError, SettingError
from striate.core.files import write_json
from striate.core.findings import Column, Prose, Table
from striate.core.format import count_text
from striate.report.format import ci_text, shorten
from striate.report.terminal import blocks_text
from striate.run import layout as names
from striate.workflows.runs.run_entry import RunEntry, read_entry, read_tags

SORTS = ("date", "accuracy", "name", "verb", "data", "model", "status")
MAX_DEPTH = 5  # folders below the given folder
MAX_MODEL = 32  # characters of a network name in the table


@dataclass(frozen=True)
class RunList:
    """The runs of a folder, in the order of the list."""

    runs: tuple[RunEntry, ...]

    @property
    def damaged(self) -> tuple[RunEntry, ...]:
        """Return the runs with files that cannot be read."""
        return tuple(run for run in self.runs if run.damaged)

    def __iter__(self) -> Iterator[RunEntry]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __str__(self) -> str:
        return blocks_text(self.blocks, width=1000)

    def as_dict(self) -> dict[str, Any]:
        """Return the list as a dict of JSON values."""
        return {"runs": [run.as_dict() for run in self.runs]}

    @property
    def blocks(self) -> list[Table | Prose]:
        """Return the table of the runs, and a warning that names damaged files."""
        if not self.runs:
            return [Prose("No runs.")]
        lines = [f"{r.path}: {text}" for r in self.damaged for text in r.damaged]
        text = f"{count_text(len(lines), 'file')} cannot be read:\n" + "\n".join(lines)
        return [self._table(), *([Prose(text, "warning")] if lines else [])]

    def _table(self) -> Table:
        columns = (
            Column("run", "code", key="name"),
            Column("verb", rank=2),
            Column("data"),
            Column("network", key="model"),
            Column("test accuracy", "percent"),
            Column("95 % interval", key="test_interval", rank=3),
            Column("val accuracy", "percent", rank=5),
            Column("date", rank=1),
            Column("status"),
            *([Column("tags")] if any(run.tags for run in self.runs) else []),
        )
        return Table(columns=columns, rows=tuple(map(_row, self.runs)))


def _row(run: RunEntry) -> tuple[Any, ...]:
    return (
        run.name,
        run.verb,
        run.data,
        shorten(run.model, MAX_MODEL),
        run.test_accuracy,
        ci_text(run.test_interval) if run.test_interval else "",
        run.val_accuracy,
        run.started[:16].replace("T", " "),
        "damaged" if run.damaged else run.status,
        ", ".join(run.tags),
    )


def list_runs(
    folder: str | Path = "runs", *, sort: str = "date", text: str = ""
) -> RunList:
    """List the runs in a folder and its subfolders.

    Damaged runs are listed too; `damaged` names their files.

    Args:
        folder: The folder, or a single run folder.
        sort: `date` (newest first), `accuracy` (highest first), `name`, `verb`, `data`,
            `model` or `status`.
        text: List only runs that contain this text in path, verb, data, network,
            status or tags.

    Raises:
        RunError: The folder does not exist.
        SettingError: `sort` is not an order.
    """
    if sort not in SORTS:
        fix = f"choose one of: {', '.join(SORTS)}"
        raise SettingError(f"sort is '{sort}'", fix=fix)
    if not Path(folder).is_dir():
        fix = "give the folder that contains the run folders (default: runs)"
        raise RunError("the folder does not exist", where=folder, fix=fix)
    entries = filter(None, map(read_entry, _run_folders(Path(folder))))
    runs = [run for run in entries if text.casefold() in _searched(run)]
    runs.sort(key=lambda run: run.path)
    if sort == "accuracy":
        runs.sort(key=lambda run: -(run.test_accuracy or 0))
    elif sort == "date":
        runs.sort(key=lambda run: run.started, reverse=True)
    else:
        runs.sort(key=lambda run: str(getattr(run, sort)))
    return RunList(tuple(runs))


def _searched(run: RunEntry) -> str:
    words = (run.path, run.verb, run.data, run.model, run.status, *run.tags)
    return "\n".join(words).casefold()


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run folders in a folder; a run folder is not searched further."""
    for path, folders, files in os.walk(folder):
        depth = len(Path(path).relative_to(folder).parts)
        if names.MANIFEST in files or names.ARGS in files:
            folders.clear()
            yield Path(path)
        elif depth >= MAX_DEPTH:
            folders.clear()


def tag_run(run: str | Path, tag: str, *, remove: bool = False) -> tuple[str, ...]:
    """Add a tag to a run, or remove it, and return all tags of the run.

    Raises:
        RunError: The run does not exist, or its file of tags is damaged.
        SettingError: The tag is empty, or the run does not have the tag to remove.
    """
    folder, tag = names.find_run(run), tag.strip()
    damaged: list[str] = []
    tags = read_tags(folder, damaged)
    if damaged:
        fix = "mend or delete this file"
        raise RunError(damaged[0], where=folder / names.TAGS, fix=fix)
    if not tag:
        raise SettingError("the tag is empty", fix="give a name, such as baseline")
    if remove and tag not in tags:
        fix = f"its tags: {', '.join(tags) or 'none'}"
        raise SettingError(f"the run has no tag '{tag}'", where=folder, fix=fix)
    others = tuple(each for each in tags if each != tag)
    tags = others if remove else (*others, tag)
    write_json(folder / names.TAGS, {"tags": list(tags)})
    return tags
