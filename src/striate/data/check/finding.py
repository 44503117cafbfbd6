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
    """One finding about a data set."""

    kind: str  # short identifier for programs: `two-labels`, `leak`, …
    # severity. `bad`: results are wrong; `warning`: should be checked; `note`:
    # information only
    tone: str
    what: str  # the finding in one sentence, with numbers
    why: str = ""  # what it means for training
    fix: str = ""  # what to do
    groups: tuple[ImageGroup, ...] = ()  # the images concerned
    files: tuple[Skipped, ...] = ()  # the files concerned that are not usable images
