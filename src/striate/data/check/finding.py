"""Finding of `data check`: description, reason, fix, and the images concerned."""

from __future__ import annotations

from dataclasses import dataclass

from striate.data.sources.source import Skipped

TONES = ("bad", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGroup:
    """Group of images in a finding, as image indices, with a note."""

    members: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding about a data set.

    Args:
        kind: Short identifier for programs: `two-labels`, `leak`, …
        tone: Severity. `bad`: results are wrong; `warning`: should be checked; `note`:
            information only.
        what: The finding in one sentence, with numbers.
        why: What it means for training.
        fix: What to do.
        groups: The images concerned.
        files: The files concerned that are not usable images.
    """

    kind: str
    tone: str
    what: str
    why: str = ""
    fix: str = ""
    groups: tuple[ImageGroup, ...] = ()
    files: tuple[Skipped, ...] = ()
