"""Sections of a report that run the network, or the reason why they are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from striate.audit.network import first_line
from striate.core import findings as f
from striate.core.errors import RunError, StorageError

MISSING = "This section is missing: "


def sections_or_reason(
    title: str, build: Callable[[], Iterable[f.Section]]
) -> list[f.Section]:
    """Return sections that run the network; if it fails, a section that says why.

    The result of a run must not be lost because its report cannot show everything.

    Example:
        >>> sections_or_reason("Layers", lambda: [][0])[0].blocks[0].text
        'This section is missing: list index out of range.'
    """
    sections: list[f.Section] = []
    try:
        sections.extend(build())
    except (RunError, StorageError):
        raise
    except Exception as error:  # a foreign forward may raise anything
        text = f"{MISSING}{first_line(error)}."
        sections.append(f.Section(title, (f.Prose(text, "warning"),)))
    return sections


def missing_sections(sections: Iterable[f.Section]) -> list[str]:
    """Return the titles of the sections that are missing.

    Example:
        >>> missing_sections(sections_or_reason("Layers", lambda: [][0]))
        ['Layers']
    """
    texts = ((s.title, b) for s in sections for b in s.blocks[:1])
    return [
        title
        for title, block in texts
        if isinstance(block, f.Prose) and block.text.startswith(MISSING)
    ]
