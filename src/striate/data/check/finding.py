"""Finding of `data check`: what was found, why it matters, the fix, and the images."""

from __future__ import annotations

from dataclasses import dataclass

from striate.data.sources.source import Skipped

TONES = ("bad", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGroup:
    """Images that belong together in a finding, by position, with a note."""

    members: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding about a data set.

    Args:
        kind: A short name for programs: `two-labels`, `leak`, …
        tone: `bad` makes results wrong, `warning` should be checked, `note` is only
            information.
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
