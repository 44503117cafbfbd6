"""What differs between a run as it was stopped and the same run as it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from striate.core.errors import RunError
from striate.core.files import read_csv
from striate.data.image_data import ImageData
from striate.data.scan import CHANGED
from striate.data.split.split_file import SPARE
from striate.run import layout as names
from striate.run.manifest import data_hash
from striate.run.run import Run

NAMED = 3  # images named of each kind of change


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Say what changed between two sets of circumstances, by name.

    Example:
        >>> differences({"torch": "2.13", "threads": "1"}, {"torch": "2.13"})
        ['threads: 1, now unknown']
    """
    known = dict.fromkeys([*before, *after])
    pairs = {n: (before.get(n, "unknown"), after.get(n, "unknown")) for n in known}
    return [
        f"{name}: {was}, now {now}" for name, (was, now) in pairs.items() if was != now
    ]


@dataclass(frozen=True, kw_only=True)
class DataChanges:
    """Images that came, went, or are others than they were, since a run began."""

    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]

    @property
    def harmless(self) -> bool:
        """Say whether the run's own images are as they were; added ones are not."""
        return not self.removed and not self.changed

    @property
    def summary(self) -> str:
        """Return the counts in words."""
        return f"{len(self.removed)} removed and {len(self.changed)} changed"

    def notes(self) -> list[str]:
        """Return a line for each kind of change, with its first images."""
        kinds = {
            "added since the run began, not used": self.added,
            "removed or no longer usable": self.removed,
            "changed since the run began": self.changed,
        }
        return [
            f"{len(paths):,} {_images(paths)} {kind}: {_listed(paths)}"
            for kind, paths in kinds.items()
            if paths
        ]


def _images(paths: Sequence[str]) -> str:
    return "image" if len(paths) == 1 else "images"


def _listed(paths: Sequence[str]) -> str:
    rest = f" and {len(paths) - NAMED:,} more" if paths[NAMED:] else ""
    return ", ".join(paths[:NAMED]) + rest


def data_changes(run: Run) -> DataChanges:
    """Compare a run's images as `split.csv` has them with what is there now.

    Raises:
        RunError: A class has come or gone: the network's outputs mean others.
    """
    data = run.data
    _check_classes(run, data)
    new = [skip.path for skip in data.ignored if skip.reason == "not-in-split"]
    if not new and data_hash(data) == run.manifest["data"]["hash"]:
        return DataChanges(added=(), removed=(), changed=())  # of millions, too
    rows = read_csv(run.path / names.SPLIT)
    spare = {r["path"] for r in rows if r["split"] == SPARE}
    then = {
        r["path"]: (r["label"], r["split"], r["content"])
        for r in rows
        if r["path"] not in spare
    }
    now = {r.path: (r.label, r.split, r.content) for r in data.rows}
    changed = {skip.path for skip in data.quarantined if skip.reason == CHANGED}
    changed |= {path for path in now if then.get(path) != now[path]}
    gone = then.keys() - now.keys() - changed
    return DataChanges(
        added=[path for path in new if path not in spare],
        removed=[path for path in then if path in gone],
        changed=sorted(changed),
    )


def _check_classes(run: Run, data: ImageData) -> None:
    if data.labels == run.labels:
        return
    was, now = ", ".join(run.labels.names), ", ".join(data.labels.names)
    what = f"the classes were {was}; now they are {now}"
    fix = "put the images back as they were, or train anew"
    raise RunError(what, where=data.origin or data.name, fix=fix)
