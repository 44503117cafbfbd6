"""What a check has to say: a sentence, what it means, what to do, and the images."""

from __future__ import annotations

from dataclasses import dataclass

from striate.data.sources.source import Skipped

TONES = ("bad", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images that belong together in a finding, by position, and what they share."""

    members: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know about a set of images.

    Args:
        kind: A short name for programs: `two-labels`, `leak`, …
        tone: `bad` spoils results, `warning` deserves a look, `note` is only told.
        what: The finding in one sentence, with its figures.
        why: What it means for training.
        fix: What to do.
        groups: The images it is about.
        files: Files without an image that it is about.
    """

    kind: str
    tone: str
    what: str
    why: str = ""
    fix: str = ""
    groups: tuple[Group, ...] = ()
    files: tuple[Skipped, ...] = ()
